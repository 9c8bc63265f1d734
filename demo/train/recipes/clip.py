"""The open_clip model: one embedding for clusters, copies and tags, and a tower from which the detectors start.

Besides CLIP's loss on captions, its embedding learns that two views of a scene are the same and two scenes are not
(as in SLIP, arXiv:2112.12750, but without a head of its own, since stages compare the embedding itself), and that one
cosine tells whether a label is right (a sigmoid loss as in SigLIP, arXiv:2303.15343). Its patch tokens are told what
is where by dense heads that are dropped when the model is saved.
"""

import io
import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import open_clip
import torch
from PIL import Image
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional

from demo.backgrounds import SETTINGS
from demo.encodings import cropped, reencoded, resized, watermarked
from demo.metrics.clusters import purity
from demo.palette import OBJECT_COLOURS
from demo.shapes import CATEGORIES
from demo.train import augment, texts
from demo.train.attention import product_attention
from demo.train.base import Recipe, RecipeSection
from demo.train.pool import ScenePool
from demo.train.tokenizer import CONTEXT, make_tokenizer

SIZE = 160
PATCH = 16
GRID = SIZE // PATCH
FINE = 2 * GRID
"""Dense targets are given for four cells a patch."""
DISPARITY_UNIT = 0.2
"""1/m; the dense head's disparities are near 1 in it."""
NAMED = len(CATEGORIES) + len(SETTINGS)
"""How many of `texts.labels()` are tags without a colour."""
MEAN, STD = open_clip.OPENAI_DATASET_MEAN, open_clip.OPENAI_DATASET_STD
MOST_COSINE_SCALE = 100.0
"""CLIP's bound of its inverse temperature (arXiv:2103.00020, section 2.5)."""

COPIES = {"reencoded": reencoded, "resized": resized, "watermarked": watermarked, "cropped": cropped}


class ClipSection(RecipeSection):
    """The open_clip model."""

    width: int = Field(192, description="of the vision tower; heads are 64 wide")
    layers: int = Field(6, description="of the vision tower")
    text_width: int = Field(128, description="of the text tower; heads are 32 wide")
    text_layers: int = Field(4, description="of the text tower")
    embed_dim: int = Field(256, description="width of the embedding")
    least_window: float = Field(0.92, gt=0, le=1, description="smallest side of a view of a scene")
    view_temperature: float = Field(0.07, gt=0, description="of the contrast between scenes")
    caption_weight: float = Field(1.0, ge=0, description="of the contrast of images and captions")
    view_weight: float = Field(0.5, ge=0, description="of the contrast of scenes")
    label_weight: float = Field(1.0, ge=0, description="of the labels' sigmoid loss")
    setting_weight: float = Field(10.0, ge=0, description="of the loss that keeps a setting's scenes together")
    setting_from: float = Field(
        2 / 3,
        ge=0,
        le=1,
        description="share of the steps after which that loss counts: it undoes what the contrast of "
        "scenes has done too much of",
    )
    together: float = Field(0.6, le=1, description="cosine that scenes of one setting should reach")
    apart: float = Field(0.15, ge=-1, description="cosine that scenes of two settings should not pass")
    dense_weight: float = Field(1.0, ge=0, description="of the dense heads' losses, at the start")
    dense_weight_end: float = Field(0.3, ge=0, description="of the dense heads' losses, at the end")


class ClipTrainer(nn.Module):
    """The model and what only its training needs.

    Attributes:
        clip: the open_clip model.
        label_scale, label_bias: a label's logit is scale * cosine + bias; logarithm of the scale.
        cells: (class, colour, disparity) of each patch's four cells from its token.
        box: left, top, right, bottom distances of the object's edges from a patch's middle, in fractions of the side.
    """

    def __init__(self, clip: open_clip.CLIP, width: int) -> None:
        super().__init__()
        self.clip = clip
        clip.attn_mask = None  # its infinities are no numbers in an average of weights; `read` makes its own
        self.label_scale = nn.Parameter(torch.tensor(10.0).log())
        self.label_bias = nn.Parameter(torch.tensor(-4.0))
        self.cells = nn.Linear(width, 4 * (1 + len(CATEGORIES) + len(OBJECT_COLOURS) + 1))
        self.box = nn.Sequential(nn.Linear(width, width), nn.GELU(), nn.Linear(width, 4))

    def look(self, pixels: Tensor) -> tuple[Tensor, Tensor]:
        """Unit embeddings (n, embed_dim) and patch tokens (n, patches, width) of normalised pixels (n, 3, h, w)."""
        tower = self.clip.visual
        tokens = tower.ln_post(tower.transformer(tower._embeds(pixels)))
        return functional.normalize((tokens[:, 0] @ tower.proj).float(), dim=-1), tokens[:, 1:]

    def read(self, tokens: Tensor) -> Tensor:
        """Unit embeddings (n, embed_dim) of token ids (n, length <= context): encode_text that takes shorter texts."""
        clip, length = self.clip, tokens.shape[1]
        x = clip.token_embedding(tokens) + clip.positional_embedding[:length]
        later = torch.full((length, length), float("-inf"), device=x.device).triu(1)
        x = clip.ln_final(clip.transformer(x, attn_mask=later))
        ends = tokens.argmax(dim=-1)
        return functional.normalize((x[torch.arange(len(x)), ends] @ clip.text_projection).float(), dim=-1)

    def dense(self, tokens: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """From patch tokens: class (n, FINE, FINE, classes + 1), colour (n, FINE, FINE, colours), disparity
        (n, FINE, FINE) and box (n, GRID, GRID, 4), float32; class 0 is what is no object.
        """
        n = len(tokens)
        cells = self.cells(tokens).float().view(n, GRID, GRID, 2, 2, -1).transpose(2, 3).reshape(n, FINE, FINE, -1)
        kinds, colours, disparity = cells.split([1 + len(CATEGORIES), len(OBJECT_COLOURS), 1], dim=-1)
        return kinds, colours, disparity[..., 0], self.box(tokens).float().view(n, GRID, GRID, 4)


class ClipRecipe(Recipe[ClipSection]):
    """Trains the demo's open_clip model."""

    name = "clip"
    section = ClipSection
    about: ClassVar[str] = (
        "An open_clip ViT with patches of 16 px for pictures of 160 x 160 px (the whole picture, squashed to a square)"
        " and a small text tower. One embedding serves clustering, finding copies and tags by text similarity."
    )
    library = "open_clip"
    task = "zero-shot-image-classification"

    def __init__(self, config: ClipSection) -> None:
        super().__init__(config)
        self.tokenizer = make_tokenizer()
        self.labels = texts.labels()
        self.strangers = texts.strangers()

    def model_config(self) -> dict[str, Any]:
        """open_clip's `model_cfg`."""
        config = self.config
        return {
            "embed_dim": config.embed_dim,
            "vision_cfg": {
                "image_size": SIZE,
                "patch_size": PATCH,
                "width": config.width,
                "head_width": 64,
                "layers": config.layers,
            },
            "text_cfg": {
                "context_length": CONTEXT,
                "vocab_size": len(self.tokenizer),
                "width": config.text_width,
                "heads": config.text_width // 32,
                "layers": config.text_layers,
                "hf_tokenizer_name": "clip",
            },
        }

    def build(self) -> ClipTrainer:
        clip = open_clip.CLIP(**self.model_config())
        start_vision(clip.visual)
        return ClipTrainer(clip, self.config.width)

    def loss(
        self, model: nn.Module, pool: ScenePool, rows: np.ndarray, rng: np.random.Generator, progress: float
    ) -> tuple[Tensor, dict[str, float]]:
        assert isinstance(model, ClipTrainer)
        config, device, n = self.config, model.label_bias.device, len(rows)
        where = np.concatenate([self._windows(rng, n), self._windows(rng, n)])
        twice = np.concatenate([rows, rows])
        views = augment.spoil(augment.cut(pool.images[twice], where, SIZE, rng), rng)
        pixels = augment.light(views, rng, MEAN, STD, strength=0.7)
        with product_attention():
            images, tokens = model.look(pixels.to(device))
        kinds, colours, disparity, box = model.dense(tokens)

        words = random.Random(int(rng.integers(2**62)))
        scenes = [pool.truths[row] for row in rows.tolist()]
        facts = [texts.facts(scene) for scene in scenes]
        captions = [texts.caption(scene, words) for scene in scenes]
        wrong = [text for scene in scenes[::2] if (text := texts.altered(scene, words))]
        asked = [texts.label_text(label.text, words) for label in self.labels]
        asked += [texts.label_text(label, words) for label in words.sample(self.strangers, 48)]
        with product_attention():
            written = model.read(self.tokens([text.text for text in captions + wrong]).to(device))
            labelled = model.read(self.tokens(asked).to(device))

        with torch.autocast(device.type, enabled=False):
            right = torch.tensor(texts.right([t.claims for t in captions + wrong], facts), device=device)
            scale = model.clip.logit_scale.exp().clamp(max=MOST_COSINE_SCALE)
            caption_loss = sum(_caption_loss(view, written, right, scale) for view in images.split(n)) / 2
            view_loss = _view_loss(images[:n], images[n:], config.view_temperature)
            holds = torch.tensor(texts.right([label.claims for label in self.labels], facts), device=device)
            logits = model.label_scale.exp() * images @ labelled.T + model.label_bias
            label_loss = _label_loss(logits, holds.repeat(2, 1))
            places = torch.tensor([list(SETTINGS).index(scene.setting) for scene in scenes], device=device)
            setting_loss = _setting_loss(images, places.repeat(2), config.together, config.apart)
            late = config.setting_weight if progress >= config.setting_from else 0.0
            targets = [part.to(device) for part in dense_targets(pool, twice, where)]
            kind_loss, colour_loss, disparity_loss, box_loss = _dense_losses((kinds, colours, disparity, box), targets)
            dense = config.dense_weight + (config.dense_weight_end - config.dense_weight) * progress
            total = (
                config.caption_weight * caption_loss
                + config.view_weight * view_loss
                + config.label_weight * label_loss
                + late * setting_loss
                + dense * (2 * kind_loss + colour_loss + disparity_loss + box_loss)
            )
        parts = {
            "caption": caption_loss,
            "view": view_loss,
            "label": label_loss,
            "setting": setting_loss,
            "kind": kind_loss,
            "colour": colour_loss,
            "disparity": disparity_loss,
            "box": box_loss,
        }
        return total, dict(zip(parts, torch.stack(list(parts.values())).detach().tolist(), strict=True))

    def evaluate(self, model: nn.Module, pool: ScenePool) -> dict[str, float]:
        assert isinstance(model, ClipTrainer)
        images, tokens = self._embed(model, np.asarray(pool.images))
        facts = [texts.facts(truth) for truth in pool.truths]
        settings = np.array([list(SETTINGS).index(truth.setting) for truth in pool.truths])
        figures = {f"purity_{k}": purity_of_clusters(images.numpy(), settings, k) for k in (8, 16)}
        captions = [texts.caption(truth, random.Random(truth.seed)) for truth in pool.truths]
        written = torch.cat([model.read(part) for part in self.tokens([c.text for c in captions]).split(256)])
        cosine = images[:500] @ written[:500].T
        right = torch.tensor(texts.right([c.claims for c in captions[:500]], facts[:500]))
        figures["recall_at_1"] = right.gather(1, cosine.argmax(1, keepdim=True)).float().mean().item()
        names = self.labels[:NAMED]
        asked = model.read(self.tokens([texts.TEMPLATES[0].format(label.text) for label in names]))
        holds = torch.tensor(texts.right([label.claims for label in names], facts))
        f1, threshold = best_f1(images @ asked.T, holds)
        figures |= {"tag_f1": f1, "tag_threshold": threshold}
        figures |= self._copies(model, pool, images)
        seen = model.dense(tokens[:500])[0].argmax(-1)
        every = np.arange(len(seen))
        kinds = dense_targets(pool, every, np.broadcast_to(augment.WHOLE, (len(seen), 4)))[0]
        figures["cell_accuracy"] = (seen == kinds).float().mean().item()
        figures["object_cell_accuracy"] = (seen == kinds)[kinds > 0].float().mean().item()
        return figures

    def save(self, model: nn.Module, folder: Path) -> None:
        from safetensors.torch import save_file

        assert isinstance(model, ClipTrainer)
        preprocess = {"mean": MEAN, "std": STD, "interpolation": "bicubic", "resize_mode": "squash"}
        settings = {"model_cfg": self.model_config(), "preprocess_cfg": preprocess}
        (folder / "open_clip_config.json").write_text(json.dumps(settings, indent=2) + "\n", encoding="utf-8")
        weights = {key: value.half().contiguous().cpu() for key, value in model.clip.state_dict().items()}
        weights["logit_scale"].clamp_(max=float(np.log(MOST_COSINE_SCALE)))
        save_file(weights, folder / "open_clip_model.safetensors")
        self.tokenizer.save_pretrained(folder)

    def tokens(self, written: list[str]) -> Tensor:
        """Token ids, int64 (n, length), padded to a multiple of 16: few lengths, few compiled kernels."""
        ids = self.tokenizer(written, truncation=True, max_length=CONTEXT, padding=True, pad_to_multiple_of=16)
        return torch.tensor(ids.input_ids)

    def _windows(self, rng: np.random.Generator, count: int) -> np.ndarray:
        return augment.windows(rng, count, least=self.config.least_window, whole=0.25)

    def _embed(self, model: ClipTrainer, pictures: np.ndarray) -> tuple[Tensor, Tensor]:
        parts = []
        for start in range(0, len(pictures), 128):
            chunk = pictures[start : start + 128]
            small = augment.cut(chunk, np.broadcast_to(augment.WHOLE, (len(chunk), 4)), SIZE)
            parts.append(model.look(augment.plain(small, MEAN, STD)))
        images, tokens = zip(*parts, strict=True)
        return torch.cat(images), torch.cat(tokens)

    def _copies(self, model: ClipTrainer, pool: ScenePool, images: Tensor) -> dict[str, float]:
        """The cosine that 1 % of scenes reach with another one, and the shares of altered copies that reach it."""
        others = (images @ images.T).fill_diagonal_(-1).amax(1)
        threshold = others.quantile(0.99)
        figures = {"copy_threshold": threshold.item(), "others_median": others.median().item()}
        for kind, change in COPIES.items():
            changed = np.stack([_changed(picture, change) for picture in pool.images[:250]])
            cosine = (self._embed(model, changed)[0] * images[: len(changed)]).sum(1)
            figures[f"found_{kind}"] = (cosine >= threshold).float().mean().item()
        return figures


def start_vision(tower: nn.Module) -> None:
    """First weights from which a ViT learns faster: a filter bank for the patches, sines for the positions.

    Patches are projected on their lowest DCT frequencies in luma and two opponent colours, raised with frequency as
    pictures' spectra fall (Field 1987), seven twelfths of them luma. Positions are as in arXiv:2205.01580; all is
    trained on.
    """
    from open_clip.pos_embed import get_2d_sincos_pos_embed

    kernel = tower.conv1.weight
    width, _, side, _ = kernel.shape
    t = (torch.arange(side) + 0.5) * torch.pi / side
    waves = torch.stack([(t * u).cos() / (side if u == 0 else side / 2) ** 0.5 for u in range(side)])
    order = sorted(((u * u + v * v) ** 0.5, u, v) for u in range(side) for v in range(side))
    opponents = [torch.tensor(c, dtype=torch.float32) for c in ((1, 1, 1), (1, -1, 0), (1, 1, -2))]
    luma = width * 7 // 12
    counts = (luma, (width - luma) // 2, width - luma - (width - luma) // 2)
    bank = [
        colour[:, None, None] / colour.norm() * torch.outer(waves[u], waves[v]) * (1 + frequency) / side
        for colour, count in zip(opponents, counts, strict=True)
        for frequency, u, v in order[:count]
    ]
    places = get_2d_sincos_pos_embed(width, tower.grid_size[0], cls_token=True)
    with torch.no_grad():
        kernel.copy_(torch.stack(bank))
        tower.positional_embedding.copy_(torch.from_numpy(places) * 0.5)


def dense_targets(pool: ScenePool, rows: np.ndarray, where: np.ndarray) -> list[Tensor]:
    """What the dense heads should say of windows (n, 4) into the pool's scenes.

    Returns:
        class int64 (n, FINE, FINE), 0 for no object; colour int64 (n, FINE, FINE), -100 for no object; disparity
        float32 (n, FINE, FINE) in `DISPARITY_UNIT`; box float32 (n, GRID, GRID, 4), NaN for no object.
    """
    names = [[(CATEGORIES.index(o.category), o.colour) for o in pool.truths[row].objects] for row in rows.tolist()]
    most = 1 + max(len(found) for found in names)
    kinds, colours = np.zeros((len(rows), most), int), np.full((len(rows), most), -100)
    boxes = np.full((len(rows), most, 4), np.nan, np.float32)
    palette = list(OBJECT_COLOURS)
    for i, (row, found) in enumerate(zip(rows.tolist(), names, strict=True)):
        if found:
            kinds[i, 1 : len(found) + 1] = [1 + category for category, _ in found]
            colours[i, 1 : len(found) + 1] = [palette.index(colour) for _, colour in found]
            boxes[i, 1 : len(found) + 1] = augment.cut_boxes(pool.boxes(row), where[i])[0]
    owners, every = pool.owners[rows], np.arange(len(rows))[:, None, None]
    fine = augment.cut_cells(owners, where, FINE)
    disparity = augment.cut_cells(pool.disparity[rows], where, FINE).astype(np.float32) / DISPARITY_UNIT
    middle = (np.arange(GRID, dtype=np.float32) + 0.5) / GRID
    at = np.stack(np.broadcast_arrays(middle[None, :], middle[:, None]), axis=-1)
    box = boxes[every, augment.cut_cells(owners, where, GRID)]
    box = np.concatenate([at - box[..., :2], box[..., 2:] - at], axis=-1)
    return [torch.from_numpy(part) for part in (kinds[every, fine], colours[every, fine], disparity, box)]


def purity_of_clusters(rows: np.ndarray, classes: np.ndarray, k: int) -> float:
    """Purity of the k clusters of k-means over unit rows (n, width)."""
    from stages.curate.kmeans import half_units, make_engine, single_threads, train
    from stages.curate.vectors import Vectors

    with single_threads(1) as run:
        engine = make_engine("torch", half_units(Vectors.of(rows)), "cpu", run)
        clusters = train(engine, k, iterations=25, seed=(0,), starts=20).labels
    return purity(clusters.tolist(), classes.tolist())


def best_f1(scores: Tensor, holds: Tensor) -> tuple[float, float]:
    """The best micro-F1 that one threshold gives for scores (n, labels) of labels that hold or do not, and where."""
    ordered, order = scores.flatten().sort(descending=True)
    hits = holds.flatten()[order].cumsum(0)
    f1 = 2 * hits / (torch.arange(1, len(hits) + 1) + holds.sum())
    best = int(f1.argmax())
    return f1[best].item(), ordered[best].item()


def _caption_loss(images: Tensor, written: Tensor, right: Tensor, scale: Tensor) -> Tensor:
    """CLIP's loss, in which texts that are right for other images too are left out of those images' sums.

    Args:
        images: unit rows (n, d).
        written: unit rows (n + m, d): a caption for each image, then texts that are no image's own.
        right: (n, n + m), whether the text is right for the image.
    """
    n = len(images)
    own = torch.arange(n, device=images.device)
    elsewhere = right.clone()
    elsewhere[own, own] = False
    logits = (scale * images @ written.T).masked_fill(elsewhere, float("-inf"))
    return (functional.cross_entropy(logits, own) + functional.cross_entropy(logits[:, :n].T, own)) / 2


def _view_loss(first: Tensor, second: Tensor, temperature: float) -> Tensor:
    """NT-Xent (arXiv:2002.05709) of two unit views (n, d) of the same scenes."""
    n = len(first)
    both = torch.cat([first, second])
    logits = (both @ both.T / temperature).fill_diagonal_(float("-inf"))
    other = torch.arange(2 * n, device=first.device).roll(n)
    return functional.cross_entropy(logits, other)


def _setting_loss(images: Tensor, settings: Tensor, together: float, apart: float) -> Tensor:
    """Squared hinges on the cosines of unit rows (n, d): those of one setting (n,) may not fall below `together`, those
    of two not pass `apart`; within these bounds the contrast of scenes does as it likes.
    """
    cosine = images @ images.T
    same = settings[:, None] == settings
    close = (together - cosine[same]).clamp(min=0).square().mean()
    return close + (cosine[~same] - apart).clamp(min=0).square().mean()


def _label_loss(logits: Tensor, holds: Tensor) -> Tensor:
    """Binary cross-entropy of logits (n, labels + strangers) where the first labels hold or not, and strangers never.

    Plain names count most: there are few of them, and they are the tags.
    """
    known = holds.shape[1]
    each = functional.binary_cross_entropy_with_logits(logits[:, :known], holds.float(), reduction="none")
    return 3 * each[:, :NAMED].mean() + 6 * each[:, NAMED:].mean() + functional.softplus(logits[:, known:]).mean()


def _dense_losses(said: tuple[Tensor, Tensor, Tensor, Tensor], truth: list[Tensor]) -> tuple[Tensor, ...]:
    """Cross-entropy of classes and of objects' colours, L1 of disparities and of objects' boxes (in half sides)."""
    kinds, colours, disparity, box = truth
    inside = ~box[..., 0].isnan()
    return (
        functional.cross_entropy(said[0].flatten(0, 2), kinds.flatten()),
        functional.cross_entropy(said[1].flatten(0, 2), colours.flatten()),
        functional.l1_loss(said[2], disparity),
        2 * functional.l1_loss(said[3][inside], box[inside]),
    )


def _changed(picture: np.ndarray, change: Callable[[Image.Image], bytes]) -> np.ndarray:
    """A picture after one of the world's encodings, at its own size again."""
    image = Image.fromarray(picture)
    with Image.open(io.BytesIO(change(image))) as copy:
        return np.asarray(copy.convert("RGB").resize(image.size, Image.Resampling.BICUBIC))

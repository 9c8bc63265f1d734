"""OWLv2: both towers start from the CLIP model, heads for boxes and classes are trained on top.

Every patch predicts a box near itself and a vector that is compared with the texts of class names. As in OWL-ViT
(arXiv:2205.06230) the text tower stays what CLIP made it when it is frozen, so that names which were never trained as
classes keep their meaning. Every patch within an object may answer for it (`demo.train.assignment`), not one as there:
that takes far fewer steps.
"""

import tempfile
from dataclasses import fields, replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from PIL import Image
from pydantic import Field
from torch import Tensor, nn
from torch.nn.functional import normalize
from transformers import Owlv2Config, Owlv2ForObjectDetection, Owlv2ImageProcessor, Owlv2Processor
from transformers.image_utils import OPENAI_CLIP_MEAN, OPENAI_CLIP_STD

from demo.backgrounds import SETTINGS
from demo.metrics.boxes import Found, Truth, mean_average_precision
from demo.shapes import CATEGORIES
from demo.split import HELD_OUT
from demo.train import augment
from demo.train.assignment import Targets, losses, one_to_many
from demo.train.base import Recipe, RecipeSection
from demo.train.half import save_half
from demo.train.pool import ScenePool
from demo.train.texts import strangers
from demo.train.tokenizer import CONTEXT, make_tokenizer
from demo.train.towers import load_clip, owlv2_towers
from demo.truth import SceneTruth
from experts.open_set import OpenSet, OpenSetSection

SIZE = 160
PATCH = 16
LEAST_INSIDE = 0.3
"""Of an object of which less is inside the window nothing is asked."""
FIRST_SCALE, FIRST_SHIFT = 9.0, -0.4
"""Of the logits: cosines near the shift are undecided, those near 0 give scores near 0.02."""


class Owlv2Section(RecipeSection):
    """OWLv2."""

    start: Path | None = Field(None, description="folder of the CLIP model whose towers it starts from; null: none")
    tower_rate: float = Field(0.5, gt=0, le=1, description="the vision tower's learning rate, as a share of the heads'")
    text_rate: float = Field(0.0, ge=0, le=1, description="the text tower's; 0 leaves it as CLIP made it")
    held_out: str = Field(HELD_OUT, description="category that is neither shown nor denied: the open-set test")
    strangers: int = Field(16, ge=0, description="names of things that are in no scene, asked for at each step")
    candidates: int = Field(6, ge=1, description="most patches that an object is assigned")
    least_window: float = Field(0.7, gt=0, le=1, description="smallest side of the part of a scene that is shown")
    box_weight: float = Field(1.0, ge=0, description="of the boxes' losses, against the classes'")


class Owlv2Recipe(Recipe[Owlv2Section]):
    """Trains the demo's open-set detector."""

    name = "owlv2"
    section = Owlv2Section
    about: ClassVar[str] = (
        "OWLv2 (transformers, `Owlv2ForObjectDetection`) with patches of 16 px for pictures that are padded to a square"
        " and shrunk to 160 x 160 px. Class names go in as texts, boxes with a score for each name come out."
    )
    library = "transformers"
    task = "zero-shot-object-detection"

    def __init__(self, config: Owlv2Section) -> None:
        super().__init__(config)
        if config.held_out not in CATEGORIES:
            raise ValueError(f"held_out is one of {', '.join(CATEGORIES)}, not {config.held_out!r}")
        self.tokenizer = make_tokenizer()
        self.prefix = OpenSetSection().prefix
        self.categories = [name for name in CATEGORIES if name != config.held_out]
        self.strangers = strangers()
        self._frozen: dict[str, Tensor] = {}

    def build(self) -> Owlv2ForObjectDetection:
        start = load_clip(self.config.start) if self.config.start else None
        vision = start.vision if start else {"width": 192, "layers": 6}
        text = start.text if start else {"width": 128, "layers": 4, "heads": 4, "context_length": CONTEXT}
        end = self.tokenizer.eos_token_id
        model = Owlv2ForObjectDetection(
            Owlv2Config(
                text_config={
                    "hidden_size": text["width"],
                    "intermediate_size": 4 * text["width"],
                    "num_hidden_layers": text["layers"],
                    "num_attention_heads": text["heads"],
                    "hidden_act": "gelu",
                    "vocab_size": len(self.tokenizer),
                    "max_position_embeddings": text["context_length"],
                    "bos_token_id": self.tokenizer.bos_token_id,
                    "eos_token_id": end,
                    "pad_token_id": end,
                },
                vision_config={
                    "hidden_size": vision["width"],
                    "intermediate_size": 4 * vision["width"],
                    "num_hidden_layers": vision["layers"],
                    "num_attention_heads": vision["width"] // 64,
                    "hidden_act": "gelu",
                    "image_size": SIZE,
                    "patch_size": PATCH,
                },
                projection_dim=text["width"],
            )
        )
        _start_heads(model)
        if start:
            towers = owlv2_towers(start.state) | {"logit_scale": start.state["logit_scale"]}
            model.owlv2.load_state_dict(towers)
            model.class_head.dense0.weight.data.copy_(model.owlv2.visual_projection.weight)
            self._centre_texts(model)
        for name, weight in model.owlv2.named_parameters():
            unused = name.startswith(("visual_projection", "logit_scale"))
            weight.requires_grad_(not unused and (self.config.text_rate > 0 or not name.startswith("text")))
        model.set_attn_implementation("eager")  # faster than fused attention on a CPU
        return model.train()

    def groups(self, model: nn.Module) -> list[dict[str, Any]]:
        rates = {"owlv2.vision": self.config.tower_rate, "owlv2.text": self.config.text_rate, "": 1.0}
        sorted_: dict[tuple[float, bool], list[Tensor]] = {}
        for name, weight in model.named_parameters():
            if weight.requires_grad:
                rate = next(rate for prefix, rate in rates.items() if name.startswith(prefix))
                sorted_.setdefault((rate, weight.ndim >= 2), []).append(weight)
        decay = self.config.weight_decay
        return [
            {"params": weights, "weight_decay": decay if matrices else 0.0, "lr": rate}
            for (rate, matrices), weights in sorted_.items()
        ]

    def loss(
        self, model: nn.Module, pool: ScenePool, rows: np.ndarray, rng: np.random.Generator, progress: float
    ) -> tuple[Tensor, dict[str, float]]:
        assert isinstance(model, Owlv2ForObjectDetection)
        config, device = self.config, model.box_bias.device
        where = augment.windows(rng, len(rows), least=config.least_window)
        truths = [pool.truths[row] for row in rows.tolist()]
        covered = coverage(where, truths)
        images = augment.spoil(pool.images[rows], rng, share=0.3)
        pixels = augment.light(padded(images, where, covered, rng), rng, OPENAI_CLIP_MEAN, OPENAI_CLIP_STD)
        blacken(pixels, covered)
        names = [*self.categories, *SETTINGS, *rng.choice(self.strangers, config.strangers, replace=False).tolist()]
        targets = self.targets(pool, rows, where, covered)
        targets = Targets(*(getattr(targets, field.name).to(device) for field in fields(targets)))

        grid, _ = model.image_embedder(pixel_values=pixels.to(device))
        features = grid.flatten(1, 2)
        logits, _ = model.class_predictor(features, self.queries(model, names).expand(len(rows), -1, -1))
        boxes = model.box_predictor(features, grid)
        objectness = model.objectness_predictor(features)
        with torch.autocast(device.type, enabled=False):
            logits, boxes, objectness = logits.float(), boxes.float(), objectness.float()[..., None]
            with torch.no_grad():
                assigned = one_to_many(logits, boxes, _middles(device), targets, config.candidates)
            class_loss, box_loss = losses(logits, boxes, targets, assigned)
            things = replace(targets, labels=torch.zeros_like(targets.labels))
            object_loss, _ = losses(objectness, boxes.detach(), things, assigned)
            total = class_loss + config.box_weight * box_loss + object_loss
        parts = {"class": class_loss, "box": box_loss, "objectness": object_loss}
        return total, {name: float(part.detach()) for name, part in parts.items()}

    def targets(self, pool: ScenePool, rows: np.ndarray, where: np.ndarray, covered: np.ndarray) -> Targets:
        """What the windows show of the scenes' objects, in the padded square; labels are places in `categories`."""
        most = max(1, *(len(pool.truths[row].objects) for row in rows.tolist()))
        boxes = np.zeros((len(rows), most, 4), np.float32)
        labels = np.zeros((len(rows), most), np.int64)
        present, ignored = np.zeros((2, len(rows), most), bool)
        for i, row in enumerate(rows.tolist()):
            cut, inside = augment.cut_boxes(pool.boxes(row), where[i])
            low, high = cut[:, :2] * covered[i], cut[:, 2:] * covered[i]
            boxes[i, : len(cut)] = np.concatenate([(low + high) / 2, high - low], axis=1)
            for j, item in enumerate(pool.truths[row].objects):
                present[i, j] = item.category != self.config.held_out and inside[j] >= LEAST_INSIDE
                ignored[i, j] = not present[i, j] and inside[j] > 0
                labels[i, j] = self.categories.index(item.category) if present[i, j] else 0
        return Targets(*(torch.from_numpy(part) for part in (boxes, labels, present, ignored)))

    def queries(self, model: Owlv2ForObjectDetection, names: list[str]) -> Tensor:
        """Unit text vectors (1, names, width) of class names, as the open-set expert writes them."""
        if self.config.text_rate > 0:
            return self._read(model, names)[None]
        for name in names:
            if name not in self._frozen:
                with torch.no_grad(), torch.autocast(model.box_bias.device.type, enabled=False):
                    self._frozen[name] = self._read(model, [name])[0]
        return torch.stack([self._frozen[name] for name in names])[None]

    @torch.no_grad()
    def _centre_texts(self, model: Owlv2ForObjectDetection) -> None:
        """Shift the text tower's last norm so that the mean text of the trained categories is zero.

        A small CLIP's texts of categories lie within a narrow cone, and a cosine hardly tells them apart. Products with
        an image change by the same amount for all texts, so that their order stays.
        """
        tower, tokens = model.owlv2.text_model, self._tokens(self.categories)
        tower.final_layer_norm.bias -= tower(**tokens).pooler_output.mean(dim=0)

    def _read(self, model: Owlv2ForObjectDetection, names: list[str]) -> Tensor:
        output = model.owlv2.get_text_features(**self._tokens(names).to(model.device))
        return normalize(output.pooler_output.float(), dim=-1)

    def _tokens(self, names: list[str]) -> Any:
        # Shorter than the expert's: what stands after the end of text changes nothing, the attention is causal.
        texts = [f"{self.prefix}{name}" for name in names]
        return self.tokenizer(texts, padding=True, pad_to_multiple_of=16, return_tensors="pt")

    def evaluate(self, model: nn.Module, pool: ScenePool) -> dict[str, float]:
        """Of the open-set expert itself, over the model as it is saved; tags are the scene's categories and setting."""
        found, truth = [], []
        with tempfile.TemporaryDirectory() as folder:
            self.save(model, Path(folder))
            expert = OpenSet(OpenSetSection(model=folder, floor=0, threshold=0, keep=10_000))
            expert.open(next(model.parameters()).device.type)
            for start in range(0, len(pool), 32):
                truths = pool.truths[start : start + 32]
                pictures = [
                    Image.fromarray(image).resize((one.width, one.height), Image.Resampling.BICUBIC)
                    for image, one in zip(pool.images[start : start + 32], truths, strict=True)
                ]
                contexts = [{"tags": _true_tags(one)} for one in truths]
                for prior, context in zip(expert.measure(pictures, contexts), contexts, strict=True):
                    found.append(_found(expert.decide(prior, context)["boxes"]))
        for row, one in enumerate(pool.truths):
            labels = np.array([item.category for item in one.objects])
            truth.append(Truth(pool.boxes(row), labels))
        classes = mean_average_precision(found, truth).classes
        trained = [value for name, value in classes.items() if name != self.config.held_out]
        return {"map50": float(np.mean(trained)), "held_out_ap50": classes[self.config.held_out]} | {
            f"ap50_{name}": value for name, value in sorted(classes.items())
        }

    def save(self, model: nn.Module, folder: Path) -> None:
        assert isinstance(model, Owlv2ForObjectDetection)
        save_half(model, folder)
        processor = Owlv2ImageProcessor(size={"height": SIZE, "width": SIZE})
        Owlv2Processor(processor, self.tokenizer).save_pretrained(folder)


def coverage(where: np.ndarray, truths: list[SceneTruth]) -> np.ndarray:
    """Share (n, 2) of the padded square's width and height that windows (n, 4) into scenes take, float32."""
    sizes = np.array([(one.width, one.height) for one in truths], np.float32)
    shown = (where[:, 2:] - where[:, :2]) * sizes
    return shown / shown.max(axis=1, keepdims=True)


def padded(images: np.ndarray, where: np.ndarray, covered: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Windows into pictures, upper left in black squares: uint8 (n, SIZE, SIZE, 3), as OWLv2's processor pads."""
    filters = (Image.Resampling.BILINEAR, Image.Resampling.BICUBIC, Image.Resampling.HAMMING)
    out = np.zeros((len(images), SIZE, SIZE, 3), np.uint8)
    for i, chosen in enumerate(rng.integers(len(filters), size=len(images)).tolist()):
        width, height = (max(1, round(share * SIZE)) for share in covered[i].tolist())
        box = tuple((where[i] * images.shape[1]).clip(0, images.shape[1]).tolist())
        shown = Image.fromarray(images[i]).resize((width, height), filters[chosen], box=box)
        out[i, :height, :width] = np.asarray(shown)
    return out


def blacken(pixels: Tensor, covered: np.ndarray) -> None:
    """Make black again, in place, what lies outside the pictures after their light was changed."""
    black = -torch.tensor(OPENAI_CLIP_MEAN) / torch.tensor(OPENAI_CLIP_STD)
    for one, (width, height) in zip(pixels, np.rint(covered * SIZE).astype(int).tolist(), strict=True):
        one[:, height:] = black[:, None, None]
        one[:, :, width:] = black[:, None, None]


def _middles(device: torch.device) -> Tensor:
    """Middles of the patches as fractions of the square, (patches, 2), x y."""
    middle = (torch.arange(SIZE // PATCH, device=device) + 0.5) / (SIZE // PATCH)
    y, x = torch.meshgrid(middle, middle, indexing="ij")
    return torch.stack([x, y], dim=-1).flatten(0, 1)


def _true_tags(truth: SceneTruth) -> dict[str, Any]:
    """A tags prior that is right: the scene's categories and its setting."""
    return {"tags": [{"tag": tag} for tag in [*sorted({item.category for item in truth.objects}), truth.setting]]}


def _found(rows: list[dict[str, Any]]) -> Found:
    boxes = np.array([[row[side] for side in ("x1", "y1", "x2", "y2")] for row in rows]).reshape(-1, 4)
    return Found(boxes, np.array([row["label"] for row in rows]), np.array([row["score"] for row in rows]))


def _start_heads(model: Owlv2ForObjectDetection) -> None:
    """First weights under which boxes lie at their patches and scores are low.

    The library draws the heads with a deviation of 1, which saturates boxes at the edges and scores at 0 or 1.
    """
    with torch.no_grad():
        for head in (model.box_head, model.objectness_head):
            for layer in (head.dense0, head.dense1):
                nn.init.xavier_uniform_(layer.weight)
                layer.bias.zero_()
            head.dense2.weight.normal_(std=0.02)
            head.dense2.bias.zero_()
        model.box_head.dense2.bias[2:].fill_(1.0)  # a quarter of the side, as objects are, not a patch
        head = model.class_head
        nn.init.xavier_uniform_(head.dense0.weight)
        head.dense0.bias.zero_()
        for layer, value in ((head.logit_scale, FIRST_SCALE), (head.logit_shift, FIRST_SHIFT)):
            layer.weight.normal_(std=0.01)
            layer.bias.fill_(value)

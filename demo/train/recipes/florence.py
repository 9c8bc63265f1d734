"""The Florence-2 model: it describes a scene in a paragraph and says where each object is, both as text.

Two things make so small a model learn within minutes. While it trains, heads say for each cell of its grid what is
there, how near among the objects that is and where its edges lie, so that the decoder only has to learn what to copy
from where; they are dropped when it is saved. And the thousand location tokens have no embeddings of their own: each
is a sum of a few cosines over the bins, so that what is learnt of one place holds next to it.

The model sees too little of a sign to read it, so it neither learns to answer `<OCR_WITH_REGION>` nor to quote signs.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from PIL import Image
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional

from demo.backgrounds import SETTINGS
from demo.captions import DEPTHS, SIDES, brief_caption
from demo.metrics.florence import caption_figures, region_figures
from demo.palette import OBJECT_COLOURS
from demo.shapes import CATEGORIES
from demo.train import augment
from demo.train.attention import product_attention
from demo.train.base import Recipe, RecipeSection
from demo.train.half import save_half
from demo.train.pool import ScenePool
from demo.train.tokenizer import bart_vocabulary, byte_pair_merges
from demo.truth import SceneTruth
from experts.florence import BINS, CAPTION, REGIONS, plain, region_boxes

SIZE = 160
STRIDE = 16
GRID = SIZE // STRIDE
FINE = 2 * GRID
"""Targets of cells are given for four cells a token."""
MOST_OBJECTS = 8
"""Above what a scene may hold."""
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
LEAST_SHARE = 0.4
"""Of an object's visible box; where less of it is in a window of augmentation, the answers leave it out."""
LONGEST = 96
"""Tokens; no answer is as long."""
POSITIONS = 256
"""Of the text model, above image, prompt and answer."""
COSINES = 64
"""Of the location tokens' embeddings: the finest has a period of 31 bins."""
BLUR = 8.0
"""Bins; the deviation of the bell around the true bin that a location shall be said by."""

PROMPTS = (
    "Describe with a paragraph what is shown in the image.",
    "Locate the objects in the image, with their descriptions.",
)
"""What the processor asks for the two tasks; only the vocabulary is made of this copy."""
_IGNORE = -100  # cross_entropy's


class FlorenceTrainSection(RecipeSection):
    """The Florence-2 model."""

    stages: tuple[int, int, int] = Field((48, 96, 192), description="widths of the vision tower; a head for each 32")
    depths: tuple[int, int, int] = Field((1, 1, 2), description="pairs of spatial and channel blocks in each stage")
    width: int = Field(192, multiple_of=32, description="of encoder and decoder; heads are 32 wide")
    hidden: int = Field(384, ge=1, description="width within their feed-forward layers")
    encoder_layers: int = Field(2, ge=1, description="of the text model's encoder")
    decoder_layers: int = Field(3, ge=1, description="of its decoder")
    least_window: float = Field(0.75, gt=0, le=1, description="smallest side of augmentation's windows")
    cells_weight: float = Field(1.0, ge=0, description="of the cells' losses at the start")
    cells_weight_end: float = Field(0.2, ge=0, description="of the cells' losses at the end")


@dataclass(frozen=True)
class CellTargets:
    """What the cells' heads should say.

    Attributes:
        kinds: int64 (batch, FINE, FINE), 0 for no object, else 1 + the category's number.
        colours: int64 (batch, FINE, FINE), -100 where no object is.
        ranks: int64 (batch, FINE, FINE), the place of the cell's object in the answers; -100 where none of them is.
        boxes: float32 (batch, GRID, GRID, 4), distances from a cell's middle to its object's left, top, right and
            lower edge in fractions of the side; NaN where no object of the answers is.
    """

    kinds: Tensor
    colours: Tensor
    ranks: Tensor
    boxes: Tensor

    def to(self, device: torch.device) -> "CellTargets":
        return CellTargets(*(part.to(device) for part in (self.kinds, self.colours, self.ranks, self.boxes)))


class Cells(nn.Module):
    """Heads for the tokens of the grid."""

    counts = (1 + len(CATEGORIES), len(OBJECT_COLOURS), MOST_OBJECTS)

    def __init__(self, width: int) -> None:
        super().__init__()
        self.names = nn.Linear(width, 4 * sum(self.counts))
        self.box = nn.Sequential(nn.Linear(width, width), nn.GELU(), nn.Linear(width, 4))

    def loss(self, tokens: Tensor, targets: CellTargets) -> Tensor:
        """Of tokens (batch, GRID * GRID, width): cross-entropies of names and ranks, L1 of edges in half sides."""
        n = len(tokens)
        names = self.names(tokens).float().view(n, GRID, GRID, 2, 2, -1).transpose(2, 3).reshape(n * FINE * FINE, -1)
        losses = [
            functional.cross_entropy(said, wanted.flatten(), ignore_index=_IGNORE)
            for said, wanted in zip(
                names.split(self.counts, dim=1), (targets.kinds, targets.colours, targets.ranks), strict=True
            )
        ]
        there = ~targets.boxes[..., 0].isnan()
        edges = self.box(tokens).float().view(n, GRID, GRID, 4)
        losses += [2 * functional.l1_loss(edges[there], targets.boxes[there])]
        return 2 * losses[0] + losses[1] + losses[2] + losses[3]


class FlorenceTrainer(nn.Module):
    """The model and what only its training needs.

    Attributes:
        florence: the `Florence2ForConditionalGeneration`; the last `BINS` rows of its embeddings are the locations'.
        places: float32 (COSINES, width), of which the locations' embeddings are made.
        seen, understood: heads of the grid's tokens before and after the text model's encoder.
    """

    def __init__(self, florence: Any, width: int) -> None:
        super().__init__()
        self.florence = florence
        waves = torch.arange(COSINES)
        bins = (torch.arange(BINS) + 0.5) / BINS
        # The finer a wave, the less it says at first and the slower it learns.
        self.register_buffer("waves", (torch.pi * bins[:, None] * waves).cos() / (1 + waves / 4), persistent=False)
        self.places = nn.Parameter(torch.randn(COSINES, width) * width**-0.5)
        self.seen = Cells(width)
        self.understood = Cells(width)

    def embeddings(self) -> Tensor:
        """Of all tokens: float32 (vocabulary, width)."""
        with torch.autocast(self.places.device.type, enabled=False):
            words = self.florence.model.language_model.shared.weight[:-BINS]
            return torch.cat([words, self.waves @ self.places])

    @torch.no_grad()
    def settle(self) -> Any:
        """The Florence-2 model with the locations' embeddings in their place."""
        self.florence.model.language_model.shared.weight.copy_(self.embeddings())
        return self.florence

    def forward(self, tokens: Tensor, prompt: Tensor, said: Tensor, table: Tensor) -> tuple[Tensor, Tensor]:
        """Read image tokens and a prompt, and say a next token after each of an answer's.

        Args:
            tokens: (batch, image tokens, width).
            prompt: int64 (length,), without the image tokens.
            said: int64 (batch, answer), what the decoder has said before.
            table: of `embeddings`.

        Returns:
            The encoder's states of the image tokens, and logits (batch, answer, vocabulary).
        """
        text = self.florence.model.language_model
        asked = functional.embedding(prompt, table).expand(len(tokens), -1, -1)
        states = text.encoder(inputs_embeds=torch.cat([tokens, asked.to(tokens.dtype)], dim=1)).last_hidden_state
        spoken = text.decoder(
            inputs_embeds=functional.embedding(said, table), encoder_hidden_states=states, use_cache=False
        ).last_hidden_state
        return states[:, : tokens.shape[1]], functional.linear(spoken, table)


class FlorenceRecipe(Recipe[FlorenceTrainSection]):
    """Trains the demo's Florence-2."""

    name = "florence"
    section = FlorenceTrainSection
    about: ClassVar[str] = (
        "A small Florence-2 (transformers `Florence2ForConditionalGeneration`) for pictures squashed to"
        f" {SIZE} x {SIZE} px. To `{CAPTION}` it answers with the setting and every object's colour, class, side and"
        f" depth, to `{REGIONS}` with every object's colour, class and box, both from near to far. It cannot read"
        " signs: do not ask it for `<OCR_WITH_REGION>`."
    )
    library = "transformers"
    task = "image-text-to-text"

    def __init__(self, config: FlorenceTrainSection) -> None:
        super().__init__(config)
        self.processor = make_processor()
        self.tokenizer = self.processor.tokenizer
        self.prompts = {task: self._prompt(task) for task in (CAPTION, REGIONS)}

    def build(self) -> FlorenceTrainer:
        from transformers import BartConfig, Florence2Config, Florence2ForConditionalGeneration, Florence2VisionConfig

        config = self.config
        heads = tuple(max(1, width // 32) for width in config.stages)
        model = Florence2ForConditionalGeneration(
            Florence2Config(
                vision_config=Florence2VisionConfig(
                    embed_dim=config.stages,
                    depths=config.depths,
                    patch_size=(7, 3, 3),
                    patch_stride=(4, 2, 2),
                    patch_padding=(3, 1, 1),
                    patch_prenorm=(False, True, True),
                    num_heads=heads,
                    num_groups=heads,
                    window_size=GRID,
                    mlp_ratio=2.0,
                    projection_dim=config.width,
                    drop_path_rate=0.0,
                ),
                text_config=BartConfig(
                    vocab_size=len(self.tokenizer),
                    d_model=config.width,
                    encoder_layers=config.encoder_layers,
                    decoder_layers=config.decoder_layers,
                    encoder_attention_heads=config.width // 32,
                    decoder_attention_heads=config.width // 32,
                    encoder_ffn_dim=config.hidden,
                    decoder_ffn_dim=config.hidden,
                    max_position_embeddings=POSITIONS,
                    dropout=0.0,
                ).to_dict(),
                image_token_id=self.tokenizer.image_token_id,
            )
        )
        # Phrases such as "on the left in the foreground" repeat.
        model.generation_config.no_repeat_ngram_size = 0
        _start(model)
        return FlorenceTrainer(model, config.width).to(memory_format=torch.channels_last).train()

    def loss(
        self, model: nn.Module, pool: ScenePool, rows: np.ndarray, rng: np.random.Generator, progress: float
    ) -> tuple[Tensor, dict[str, float]]:
        assert isinstance(model, FlorenceTrainer)
        config, device = self.config, model.places.device
        where = augment.windows(rng, len(rows), least=config.least_window)
        views = augment.spoil(augment.cut(pool.images[rows], where, SIZE, rng), rng, share=0.25)
        pixels = augment.light(views, rng, MEAN, STD, strength=0.7)
        pixels = pixels.to(device, memory_format=torch.channels_last)
        scenes = [view(pool, row, window) for row, window in zip(rows.tolist(), where, strict=True)]
        cells = cell_targets(pool, rows, where, scenes).to(device)
        answers = {
            CAPTION: self._padded([self._words(brief_caption(scene.truth)) for scene in scenes]),
            REGIONS: self._padded([self._regions(scene.truth) for scene in scenes]),
        }
        parts: dict[str, Tensor] = {}
        with product_attention():
            tokens = model.florence.model.get_image_features(pixels).pooler_output
            table = model.embeddings()
            parts["seen"] = model.seen.loss(tokens[:, 1:], cells)
            understood = []
            for task, answer in answers.items():
                answer = answer.to(device)
                said = answer.roll(1, dims=1)
                said[:, 0] = self.tokenizer.eos_token_id  # with which BART's decoder starts
                states, logits = model(tokens, self.prompts[task].to(device), said, table)
                understood.append(model.understood.loss(states[:, 1:], cells))
                words, locations = _answer_losses(logits.float(), answer, self.tokenizer.pad_token_id)
                parts[f"{task.strip('<>').lower()}"] = words
                if task == REGIONS:
                    parts["locations"] = locations
            parts["understood"] = torch.stack(understood).mean()
        of_cells = config.cells_weight + (config.cells_weight_end - config.cells_weight) * progress
        total = sum(part * (of_cells if name in ("seen", "understood") else 1.0) for name, part in parts.items())
        assert isinstance(total, Tensor)
        return total, dict(zip(parts, torch.stack(list(parts.values())).detach().tolist(), strict=True))

    def evaluate(self, model: nn.Module, pool: ScenePool) -> dict[str, float]:
        assert isinstance(model, FlorenceTrainer)
        florence = model.settle()
        captions, regions = [], []
        for start in range(0, len(pool), 50):
            images = pool.images[start : start + 50]
            small = augment.cut(images, np.broadcast_to(augment.WHOLE, (len(images), 4)), SIZE)
            pixels = augment.plain(small, MEAN, STD).to(model.places.device)
            captions += [plain(answer) for answer in self._answers(florence, pixels, CAPTION)]
            regions += [region_boxes(answer) for answer in self._answers(florence, pixels, REGIONS)]
        truths = [view(pool, row, augment.WHOLE).truth for row in range(len(pool))]
        return caption_figures(captions, truths) | region_figures(regions, truths)

    def save(self, model: nn.Module, folder: Path) -> None:
        assert isinstance(model, FlorenceTrainer)
        save_half(model.settle(), folder)
        self.processor.save_pretrained(folder)

    def _prompt(self, task: str) -> Tensor:
        """The ids that the processor puts behind the image's for a task."""
        ids = self.processor(text=[task], images=[Image.new("RGB", (SIZE, SIZE))]).input_ids[0]
        return torch.tensor([i for i in ids if i != self.tokenizer.image_token_id])

    def _words(self, text: str) -> list[int]:
        return self.tokenizer(text, add_special_tokens=False).input_ids

    def _regions(self, truth: SceneTruth) -> list[int]:
        ids: list[int] = []
        for item in truth.objects:
            ids += self._words(f"{item.colour} {item.category}")
            ids += [len(self.tokenizer) - BINS + min(place, BINS - 1) for place in item.visible_box]
        return ids

    def _padded(self, answers: list[list[int]]) -> Tensor:
        """int64 (batch, length): ends added, then padding to a multiple of 16: few lengths, few compiled kernels."""
        longest = -(-(1 + max(map(len, answers))) // 16) * 16
        end, pad = self.tokenizer.eos_token_id, self.tokenizer.pad_token_id
        return torch.tensor([[*ids, end, *[pad] * (longest - len(ids) - 1)] for ids in answers])

    def _answers(self, florence: Any, pixels: Tensor, task: str) -> list[Any]:
        """Parsed by the library, as the expert does."""
        prompt = self.prompts[task].to(pixels.device)
        image = prompt.new_full((1 + GRID * GRID,), self.tokenizer.image_token_id)
        asked = torch.cat([image, prompt]).expand(len(pixels), -1)
        ids = florence.generate(
            input_ids=asked, pixel_values=pixels, max_new_tokens=LONGEST, num_beams=1, do_sample=False
        )
        return [
            self.processor.post_process_generation(
                text=answer.replace(self.tokenizer.pad_token, ""), task=task, image_size=(BINS, BINS)
            )[task]
            for answer in self.processor.batch_decode(ids, skip_special_tokens=False)
        ]


@dataclass(frozen=True)
class View:
    """What answers about a window into a scene are written from.

    Attributes:
        truth: of the window as a picture of `BINS` x `BINS` px, with the objects that the answers name.
        kept: their numbers among the scene's objects.
    """

    truth: SceneTruth
    kept: list[int]


def view(pool: ScenePool, row: int, window: np.ndarray) -> View:
    """What a window (4,) shows of a scene, as far as answers tell."""
    truth = pool.truths[row]
    top, bottom = window[1::2].tolist()
    boxes, shares = augment.cut_boxes(pool.boxes(row), window)
    kept = np.flatnonzero(shares >= LEAST_SHARE).tolist()
    objects = []
    for i in kept:
        item = truth.objects[i]
        x1, y1, x2, y2 = (boxes[i] * BINS).round().astype(int).tolist()
        foot = round((item.full_box[3] / truth.height - top) / (bottom - top) * BINS)
        objects.append(replace(item, visible_box=(x1, y1, x2, y2), full_box=(x1, y1, x2, foot)))
    horizon = (truth.horizon / truth.height - top) / (bottom - top) * BINS
    return View(replace(truth, width=BINS, height=BINS, horizon=horizon, objects=tuple(objects)), kept)


def cell_targets(pool: ScenePool, rows: np.ndarray, where: np.ndarray, views: Sequence[View]) -> CellTargets:
    """What windows (batch, 4) into the pool's scenes show in each cell."""
    n, colours = len(rows), list(OBJECT_COLOURS)
    told = np.full((n, 1 + MOST_OBJECTS, 3), _IGNORE)
    told[:, :, 0] = 0
    boxes = np.full((n, 1 + MOST_OBJECTS, 4), np.nan, np.float32)
    for i, (row, seen) in enumerate(zip(rows.tolist(), views, strict=True)):
        for j, item in enumerate(pool.truths[row].objects, 1):
            told[i, j, :2] = 1 + CATEGORIES.index(item.category), colours.index(item.colour)
        for rank, (j, item) in enumerate(zip(seen.kept, seen.truth.objects, strict=True)):
            told[i, 1 + j, 2] = rank
            boxes[i, 1 + j] = np.array(item.visible_box) / BINS
    owners, every = pool.owners[rows], np.arange(n)[:, None, None]
    fine = told[every, augment.cut_cells(owners, where, FINE)]
    middle = (np.arange(GRID, dtype=np.float32) + 0.5) / GRID
    at = np.stack(np.broadcast_arrays(middle[None, :], middle[:, None]), axis=-1)
    box = boxes[every, augment.cut_cells(owners, where, GRID)]
    box = np.concatenate([at - box[..., :2], box[..., 2:] - at], axis=-1)
    return CellTargets(*(torch.from_numpy(part) for part in (*np.moveaxis(fine, -1, 0).copy(), box)))


def make_processor() -> Any:
    """A `Florence2Processor`, the same on every machine; every word of its prompts and of the answers is one token."""
    from transformers import BartTokenizer, CLIPImageProcessor, Florence2Processor

    merges = byte_pair_merges([[*space, *word] for word in _vocabulary() for space in ((), (_SPACE,))])
    words = bart_vocabulary()
    words |= {first + second: i for i, (first, second) in enumerate(merges, len(words))}
    tokenizer = BartTokenizer(vocab=words, merges=merges, extra_special_tokens={"image_token": "<image>"})
    tokenizer.add_tokens([f"<loc_{i}>" for i in range(BINS)])
    return Florence2Processor(
        CLIPImageProcessor(
            size={"height": SIZE, "width": SIZE},
            do_center_crop=False,
            image_mean=list(MEAN),
            image_std=list(STD),
            image_seq_length=1 + GRID * GRID,
        ),
        tokenizer,
        num_additional_image_tokens=1,
        post_processor_config={"pure_text": {}, "description_with_bboxes": {}, "ocr": {"AREA_THRESHOLD": 0.0}},
    )


_SPACE = "\u0120"
"""The byte alphabet's space; words carry the space before them."""


def _vocabulary() -> list[str]:
    phrases = (setting.phrase for setting in SETTINGS.values())
    written = [*PROMPTS, *phrases, *SIDES.values(), *DEPTHS.values(), *CATEGORIES, *OBJECT_COLOURS]
    return sorted({*re.findall("[A-Za-z]+", " ".join(written)), "The", "image", "shows", "A", "An"})


def _answer_losses(logits: Tensor, answer: Tensor, pad: int) -> tuple[Tensor, Tensor]:
    """Cross-entropy of words and ends, and the Kullback-Leibler divergence of locations, both means over their tokens.

    Args:
        logits: float32 (batch, length, vocabulary).
        answer: int64 (batch, length), padded by `pad`.
    """
    first = logits.shape[-1] - BINS
    located = answer >= first
    words = functional.cross_entropy(logits[~located], answer[~located], ignore_index=pad)
    if not located.any():
        return words, words.new_zeros(())
    apart = torch.arange(BINS, device=answer.device) - (answer[located] - first)[:, None]
    wanted = (-0.5 * (apart / BLUR) ** 2).softmax(dim=1)
    said = logits[located].log_softmax(dim=1)[:, first:]
    return words, functional.kl_div(said, wanted, reduction="batchmean")


def _start(model: Any) -> None:
    """First weights to learn from; the library's are those of a model that is about to be loaded.

    Its deviation of 0.02 lets next to nothing through layers as narrow as these. Positions start as sines.
    """
    for module in model.modules():
        if isinstance(module, nn.Linear):
            nn.init.xavier_uniform_(module.weight)
        elif isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, nonlinearity="linear")
    text = model.model.language_model
    width = text.shared.weight.shape[1]
    nn.init.normal_(text.shared.weight, std=width**-0.5)  # the output layer too
    places = model.model.multi_modal_projector.image_position_embed
    with torch.no_grad():
        for table in (places.row_embeddings.weight, places.column_embeddings.weight):
            table.copy_(_sines(*table.shape))
        for part in (text.encoder, text.decoder):
            table = part.embed_positions.weight
            table.copy_(_sines(*table.shape) * width**-0.5)


def _sines(count: int, width: int) -> Tensor:
    """Positions as sines and cosines of periods from 4 to 4 * 512: float32 (count, width)."""
    rates = torch.pi / 2 * 512 ** -torch.linspace(0, 1, width // 2)
    turns = torch.arange(count)[:, None] * rates
    return torch.cat([turns.sin(), turns.cos()], dim=1)

"""The caption prompt: what the experts saw and the web page said, laid out as the DenseFusion-1M paper does.

Block order and box format follow the paper (arXiv 2407.08303, figure 3 and appendix C); the words are ours, in the
versioned template files of `fusion/prompts`. A template has three blocks: `system`, the same for every row, so that the
engine's prefix cache serves it; `user`, the notes about one image; `repair`, the second turn. What the paper does not
state is a field of `PromptSection`.
"""

import hashlib
import io
import math
from dataclasses import dataclass
from functools import cached_property
from importlib import resources
from pathlib import Path

from jinja2 import Environment, StrictUndefined, Template, TemplateSyntaxError
from pydantic import Field

from fusion.priors import Box, Priors
from fusion.untrusted import clean
from schemas.errors import RequestError
from schemas.section import Section, located

BLOCKS = ("system", "user", "repair")
SMALL_AREA, MEDIUM_AREA = 0.01, 0.1
_MAX_LABEL_CHARS = 80


class PromptSection(Section):
    """How priors become a prompt."""

    template: str = located(
        "caption_engine.v1",
        min_length=1,
        description="template of fusion/prompts, or path of a .jinja file",
    )
    word_target: int = Field(192, ge=10, le=2000, description="most words asked for; the paper's figure")
    max_alt_chars: int = Field(512, ge=0, le=8000, description="characters of alt text shown; 0 leaves it out")
    max_boxes: int = Field(
        20, ge=0, le=500, description="boxes shown; the paper's examples have 8 and 10, its limit is not stated"
    )
    closed_set_min_score: float = Field(0.5, ge=0, le=1, description="least score of a closed-set box; not stated")
    open_set_min_score: float = Field(0.2, ge=0, le=1, description="least score of an open-set box; not stated")
    merge_iou: float = Field(
        0.6, gt=0, le=1, description="boxes of one label that overlap this much are one object: the best score stays"
    )
    max_ocr_lines: int = Field(40, ge=0, le=1000, description="lines of text shown, in reading order")
    max_ocr_chars: int = Field(200, ge=1, le=2000, description="characters shown of one line of text")
    ocr_min_score: float = Field(0.5, ge=0, le=1, description="least score of a line of text; not stated")
    tags: bool = Field(False, description="show the tags; the paper's printed template has no slot for them")
    max_tags: int = Field(50, ge=1, le=1000, description="tags shown where `tags` is on, best first")
    depth: bool = Field(False, description="name the shown boxes from near to far by the depth prior")
    florence: bool = Field(False, description="show Florence-2's own caption")


@dataclass(frozen=True)
class Messages:
    """The text of one request; the image goes before the user's text."""

    system: str
    user: str


class Prompt:
    """Renders rows into messages. Raises RequestError where the template cannot be read or lacks a block."""

    def __init__(self, section: PromptSection) -> None:
        self._section = section
        self._source = _read_template(section.template)
        self._template = _compile(self._source, section.template)

    def version(self) -> str:
        """`name@hash`: the hash is over the template file, so that an edited file is a new prompt."""
        name = Path(self._section.template).name.removesuffix(".jinja")
        return f"{name}@{hashlib.sha256(self._source.encode()).hexdigest()[:12]}"

    def render(self, alt_text: str | None, priors: Priors) -> Messages:
        """Messages of one row; a block whose prior is missing or empty is left out."""
        section = self._section
        boxes = choose_boxes(priors, section)
        tags = [clean(t["tag"], _MAX_LABEL_CHARS) for t in priors.tags or []] if section.tags else []
        user = self._block(
            "user",
            short_caption=clean(alt_text or "", section.max_alt_chars),
            boxes=[format_box(box) for box in boxes],
            tags=[tag for tag in tags if tag][: section.max_tags],
            nearest_first=_nearest_first(boxes, priors.disparity_png) if section.depth else [],
            description=clean(priors.description or "", 2000) if section.florence else "",
            lines=self._lines(priors),
        )
        return Messages(self._system, user)

    def repair(self, findings: list[str]) -> str:
        """The second turn: what the checks found, given back to the model."""
        return self._block("repair", findings=[clean(f, 300) for f in findings])

    def _lines(self, priors: Priors) -> list[str]:
        section = self._section
        good = [line["text"] for line in priors.lines or [] if line["score"] >= section.ocr_min_score]
        cleaned = (clean(text, section.max_ocr_chars) for text in good)
        return [text for text in cleaned if text][: section.max_ocr_lines]

    @cached_property
    def _system(self) -> str:
        return self._block("system", word_target=self._section.word_target)

    def _block(self, name: str, **values: object) -> str:
        return "".join(self._template.blocks[name](self._template.new_context(values))).strip()


def format_box(box: Box) -> str:
    """`label: [x1, y1, x2, y2]`, three decimals (the paper's format)."""
    corners = ", ".join(f"{box[edge]:.3f}" for edge in ("x1", "y1", "x2", "y2"))
    return f"{box['label']}: [{corners}]"


def choose_boxes(priors: Priors, section: PromptSection) -> list[Box]:
    """The boxes to show, in descending area, labels cleaned, corners within 0..1.

    The paper merges its detectors and samples boxes "balanced" towards small objects without saying how. Ours:
    1. keep the boxes whose score reaches their source's threshold and that have an area at three decimals;
    2. best score first, closed set before open set, drop a box that overlaps a kept one of its label by `merge_iou`;
    3. while more than `max_boxes` are left, fill the places in turn from small (< 1 % of the image), medium (< 10 %)
       and large boxes, best score first.
    """
    candidates = [
        *_usable(priors.closed_set or [], section.closed_set_min_score),
        *_usable(priors.open_set or [], section.open_set_min_score),
    ]
    kept: list[Box] = []
    for box in sorted(candidates, key=lambda b: -b["score"]):
        if all(box["label"].casefold() != k["label"].casefold() or iou(box, k) < section.merge_iou for k in kept):
            kept.append(box)
    chosen = _balanced(kept, section.max_boxes)
    return sorted(chosen, key=lambda b: (-area(b), b["label"], b["x1"], b["y1"], b["x2"], b["y2"]))


def area(box: Box) -> float:
    """Fraction of the image that a box covers."""
    return (box["x2"] - box["x1"]) * (box["y2"] - box["y1"])


def iou(a: Box, b: Box) -> float:
    """Intersection over union of two boxes that have an area."""
    width = min(a["x2"], b["x2"]) - max(a["x1"], b["x1"])
    height = min(a["y2"], b["y2"]) - max(a["y1"], b["y1"])
    shared = max(width, 0.0) * max(height, 0.0)
    return shared / (area(a) + area(b) - shared)


def _usable(boxes: list[Box], min_score: float) -> list[Box]:
    out: list[Box] = []
    for box in boxes:
        label = clean(box["label"], _MAX_LABEL_CHARS)
        corners = (box["x1"], box["y1"], box["x2"], box["y2"])
        if not label or box["score"] < min_score or not all(map(math.isfinite, corners)):
            continue
        # 0.0 first: of two equal values max takes the first, and -0.0 would be printed with its sign.
        x1, y1, x2, y2 = (round(min(max(0.0, v), 1.0), 3) for v in corners)
        if x2 > x1 and y2 > y1:
            out.append(Box(label=label, score=box["score"], x1=x1, y1=y1, x2=x2, y2=y2))
    return out


def _balanced(boxes: list[Box], limit: int) -> list[Box]:
    """At most `limit` of `boxes` (best first), drawn in turn from the size classes, the smallest first."""
    if len(boxes) <= limit:
        return boxes
    classes: list[list[Box]] = [[], [], []]
    for box in boxes:
        classes[(area(box) >= SMALL_AREA) + (area(box) >= MEDIUM_AREA)].append(box)
    chosen: list[Box] = []
    while len(chosen) < limit:
        for members in classes:
            if members and len(chosen) < limit:
                chosen.append(members.pop(0))
    return chosen


def _nearest_first(boxes: list[Box], disparity_png: bytes | None) -> list[str]:
    """Labels of `boxes` by the median disparity inside them, nearest first."""
    if disparity_png is None or not boxes:
        return []
    import numpy as np
    from PIL import Image

    with Image.open(io.BytesIO(disparity_png)) as image:
        disparity = np.asarray(image, np.float32)
    height, width = disparity.shape

    def nearness(box: Box) -> float:
        left, upper = min(int(box["x1"] * width), width - 1), min(int(box["y1"] * height), height - 1)
        right, lower = math.ceil(box["x2"] * width), math.ceil(box["y2"] * height)
        return float(np.median(disparity[upper : max(lower, upper + 1), left : max(right, left + 1)]))

    return [box["label"] for box in sorted(boxes, key=nearness, reverse=True)]


def _compile(source: str, name: str) -> Template:
    environment = Environment(undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True, autoescape=False)
    try:
        template = environment.from_string(source)
    except TemplateSyntaxError as error:
        raise RequestError(f"The prompt template {name} is not valid Jinja: line {error.lineno}: {error}.") from None
    missing = [block for block in BLOCKS if block not in template.blocks]
    if missing:
        raise RequestError(
            f"The prompt template {name} has no block {' and no block '.join(missing)}. A template needs the blocks "
            f"{', '.join(BLOCKS)}; see those in fusion/prompts."
        )
    return template


def _read_template(template: str) -> str:
    if template.endswith(".jinja"):
        path = Path(template)
        if not path.is_file():
            raise RequestError(f"The prompt template {template} does not exist. Give the path of a .jinja file.")
        return path.read_text(encoding="utf-8")
    folder = resources.files("fusion") / "prompts"
    try:
        return (folder / f"{template}.jinja").read_text(encoding="utf-8")
    except FileNotFoundError:
        known = sorted(item.name.removesuffix(".jinja") for item in folder.iterdir() if item.name.endswith(".jinja"))
        raise RequestError(
            f"There is no prompt template {template}. There are: {', '.join(known)}; or give the path of a .jinja file."
        ) from None

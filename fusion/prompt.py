"""The caption prompt: what the experts saw and the web page said, laid out as the DenseFusion-1M paper does.

Block order and box format follow the paper (arXiv 2407.08303, figure 3 and appendix C); the words are ours, in the
versioned template files of `fusion/prompts`. A template has three blocks: `system`, the same for every row, so that the
engine's prefix cache serves it; `user`, the notes about one image; `repair`, the second turn. What the paper does not
state is a field of `PromptSection`. Where there is a `Budget`, notes go in the order of `fusion.notes.Shortening` until
the text fits; the instructions always stay.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cache, cached_property
from importlib import resources
from pathlib import Path

from jinja2 import Environment, StrictUndefined, Template, TemplateSyntaxError, UndefinedError
from pydantic import Field

from fusion.box_choice import BoxChoiceSection, choose_boxes
from fusion.budget import Budget, least_that_fits
from fusion.notes import Cut, Line, Notes, Shortening
from fusion.priors import Box, Priors
from fusion.untrusted import clean
from schemas.errors import RequestError
from schemas.section import located

BLOCKS = ("system", "user", "repair")
_MAX_LABEL_CHARS = 80


class PromptSection(BoxChoiceSection):
    """How priors become a prompt."""

    template: str = located(
        "caption_engine.v1",
        min_length=1,
        description="template of fusion/prompts, or path of a .jinja file",
    )
    word_target: int = Field(192, ge=10, le=2000, description="most words asked for; the paper's figure")
    max_alt_chars: int = Field(512, ge=0, le=8000, description="characters of alt text shown; 0 leaves it out")
    max_ocr_lines: int = Field(40, ge=0, le=1000, description="lines of text shown, in reading order")
    max_ocr_chars: int = Field(200, ge=1, le=2000, description="characters shown of one line of text")
    tags: bool = Field(False, description="show the tags; the paper's printed template has no slot for them")
    max_tags: int = Field(50, ge=1, le=1000, description="tags shown where `tags` is on, best first")
    depth: bool = Field(False, description="name the shown boxes from near to far by the depth prior")
    florence: bool = Field(False, description="show Florence-2's own caption")


@dataclass(frozen=True)
class Messages:
    """The text of one request; the image goes before the user's text.

    Attributes:
        boxes: those that the text shows, in its order.
        cut: what the budget took away.
    """

    system: str
    user: str
    boxes: Sequence[Box] = ()
    cut: Cut = field(default_factory=Cut)


class Prompt:
    """Renders rows into messages. Raises RequestError where the template cannot be read or lacks a block.

    Args:
        budget: what a prompt may take; None leaves it as long as the section allows.
    """

    def __init__(self, section: PromptSection, budget: Budget | None = None) -> None:
        self._section = section
        self._budget = budget
        self._source = _read_template(section.template)
        self._template = _compile(self._source, section.template)

    def __reduce__(self) -> tuple[type["Prompt"], tuple[PromptSection, Budget | None]]:
        """Compiled templates do not go to another process; the section does."""
        return Prompt, (self._section, self._budget)

    def version(self) -> str:
        """`name@hash`: the hash is over the template file, so that an edited file is a new prompt."""
        name = Path(self._section.template).name.removesuffix(".jinja")
        return f"{name}@{hashlib.sha256(self._source.encode()).hexdigest()[:12]}"

    def check(self) -> None:
        """Raises RequestError where the instructions alone are over the budget."""
        if self._budget is None:
            return
        try:
            bare = self._user(Notes(), Priors())
        except UndefinedError:  # a template of somebody's own that cannot do without its expert
            bare = ""
        needed = self._spent(bare, Notes())
        if needed > self._budget.tokens:
            raise RequestError(
                f"The prompt template {self._section.template} takes {needed:,} tokens without any notes (by "
                f"{self._budget.counter.name}), but caption.engine.max_model_len leaves "
                f"{max(0, self._budget.tokens):,} for the text when caption.max_tokens, caption.budget.image_tokens "
                "and caption.budget.reserve are taken off. Raise the first (to what the model can), lower one of the "
                "others, or choose a shorter template (caption.prompt.template)."
            )

    def render(self, alt_text: str | None, priors: Priors, then: Sequence[str] = ()) -> Messages:
        """Messages of one row; a block whose prior is missing or empty is left out.

        Args:
            then: texts that follow in the same conversation; the budget makes room for them.
        """
        section = self._section
        tags = [clean(t["tag"], _MAX_LABEL_CHARS) for t in priors.tags or []] if section.tags else []
        notes = Notes(
            short_caption=clean(alt_text or "", section.max_alt_chars),
            boxes=choose_boxes(priors, section),
            tags=[tag for tag in tags if tag][: section.max_tags],
            description=clean(priors.description or "", 2000) if section.florence else "",
            lines=self._lines(priors),
        )
        if self._budget is None:
            return Messages(self.system, self._user(notes, priors), notes.boxes)
        return self._fitted(self._budget, notes, priors, sum(map(self._budget.counter.count, then)))

    def repair(self, findings: list[str]) -> str:
        """The second turn: what the checks found, given back to the model."""
        return self._block("repair", findings=[clean(f, 300) for f in findings])

    def _fitted(self, budget: Budget, notes: Notes, priors: Priors, taken: int) -> Messages:
        """The row's messages with as few notes taken away as the budget allows.

        Args:
            taken: tokens that the rest of the conversation needs.
        """
        shortening = Shortening(notes, budget.keep_lines, budget.keep_boxes)

        @cache
        def shown(steps: int) -> tuple[Notes, str]:
            left = shortening.after(steps)
            return left, self._user(left, priors)

        def fits(steps: int) -> bool:
            left, user = shown(steps)
            return self._spent(user, left) + taken <= budget.tokens

        steps = least_that_fits(shortening.steps, fits)
        left, user = shown(shortening.steps if steps is None else steps)
        cut = shortening.cut(left, too_long=steps is None)
        return Messages(self.system, user, left.boxes, cut)

    def _spent(self, user: str, notes: Notes) -> int:
        """Tokens of system text, a user text and the boxes beside it."""
        assert self._budget is not None
        count = self._budget.counter.count
        return self._system_tokens + count(user) + self._budget.box_tokens * len(notes.boxes)

    def _user(self, notes: Notes, priors: Priors) -> str:
        return self._block(
            "user",
            short_caption=notes.short_caption,
            boxes=[format_box(box) for box in notes.boxes],
            tags=notes.tags,
            nearest_first=_nearest_first(notes.boxes, priors) if self._section.depth else [],
            description=notes.description,
            lines=[line.text for line in notes.lines],
            experts=priors.others,
        )

    def _lines(self, priors: Priors) -> list[Line]:
        section = self._section
        cleaned = (Line(clean(line["text"], section.max_ocr_chars), line["score"]) for line in priors.lines or [])
        return [line for line in cleaned if line.text][: section.max_ocr_lines]

    @cached_property
    def system(self) -> str:
        """The text that every request begins with."""
        return self._block("system", word_target=self._section.word_target)

    @cached_property
    def _system_tokens(self) -> int:
        assert self._budget is not None
        return self._budget.counter.count(self.system)

    def _block(self, name: str, **values: object) -> str:
        return "".join(self._template.blocks[name](self._template.new_context(values))).strip()


def format_box(box: Box) -> str:
    """`label: [x1, y1, x2, y2]`, three decimals (the paper's format)."""
    corners = ", ".join(f"{box[edge]:.3f}" for edge in ("x1", "y1", "x2", "y2"))
    return f"{box['label']}: [{corners}]"


def _nearest_first(boxes: Sequence[Box], priors: Priors) -> list[str]:
    """Labels of the shown boxes whose depth is known, nearest first."""
    labels = {(box["expert"], box["anchor"]): box["label"] for box in boxes}
    places = [(depth["expert"], depth["anchor"]) for depth in priors.depths or []]
    return [labels[place] for place in places if place in labels]


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

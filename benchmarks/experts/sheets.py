"""Pictures of what the experts see, for docs/experts.md.

    python -m benchmarks.experts.sheets [--out FOLDER]

Text is read with the weights that RapidOCR ships, on scikit-image's photographs. Everything else is the demo's models
at the demo's settings, on scenes of the split `test`, to which nothing was fitted; and, to show what these models are
not, on photographs.
"""

import argparse
import io
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from benchmarks.world.measure import demo_config
from benchmarks.world.perception import true_tags
from benchmarks.world.pictures import GAP, INK, LINE, RIGHT, WRONG, boxed, coloured, judged_sentences
from demo.encodings import jpeg
from demo.metrics.boxes import box_truth, found_boxes
from demo.palette import OBJECT_COLOURS, Colour, darker
from demo.scene import Scene, render, scene_size
from demo.split import seeds
from experts.base import Prior
from experts.depth import unpacked
from experts.ocr import Ocr, OcrSection
from experts.registry import EXPERTS
from fusion.box_choice import BoxChoiceSection, area, choose_boxes
from fusion.priors import Box, Priors
from pipeline.config import Config
from schemas.errors import SetupError
from schemas.pictures import decode_rgb
from stages.priors import DecidedPriors

FIRST = 900_000
"""Of the test split's scenes; the first ones that fit are drawn, whatever is seen on them."""
SCENES = 3
"""On the sheets of single experts."""
WIDTH = 400
"""px that a picture takes on a sheet."""
MOST_BYTES = 250_000
LAID = (3, 2)
"""Scenes side by side and one below the other, so that one picture has more boxes than a prompt shows."""
LAID_SIZE = (640, 512)
SHOWN = 10
"""Boxes that the samplings choose."""
WHITE: Colour = (255, 255, 255)
NEAR, MIDDLE, FAR = WRONG, darker(OBJECT_COLOURS["purple"], 0.1), darker(OBJECT_COLOURS["blue"], 0.2)
BANDS: Mapping[str, Colour] = {"near": NEAR, "middle": MIDDLE, "far": FAR}
SIZES: Mapping[str, Colour] = {"small": WRONG, "medium": MIDDLE, "large": darker(OBJECT_COLOURS["blue"], 0.2)}
DETECTORS: Mapping[str, Colour] = {"closed_set": WRONG, "open_set": darker(OBJECT_COLOURS["blue"], 0.2)}

Rows = dict[str, Prior]
"""Of one picture, by expert."""
Mark = tuple[Mapping[str, Any], str, Colour]
"""A box with corners x1 y1 x2 y2 as fractions, its label, its ink."""


@dataclass(frozen=True)
class Card:
    """One picture of a sheet, and the lines below it."""

    picture: Image.Image
    words: Sequence[tuple[str, Colour]] = ()


def sheet(rows: Sequence[Sequence[Card]]) -> Image.Image:
    """Cards in rows, each row as high as its highest card; lines that are too long are broken."""
    font = ImageFont.load_default(13)
    broken = [[_broken(card, font) for card in row] for row in rows]
    widths = [sum(card.picture.width + GAP for card in row) + GAP for row in rows]
    heights = [
        max(card.picture.height + LINE * len(lines) for card, lines in zip(row, words, strict=True)) + GAP
        for row, words in zip(rows, broken, strict=True)
    ]
    made = Image.new("RGB", (max(widths), sum(heights) + GAP), WHITE)
    draw, top = ImageDraw.Draw(made), GAP
    for row, words, height in zip(rows, broken, heights, strict=True):
        left = GAP
        for card, lines in zip(row, words, strict=True):
            made.paste(card.picture, (left, top))
            for i, (line, ink) in enumerate(lines):
                draw.text((left, top + card.picture.height + 2 + LINE * i), line, ink, font)
            left += card.picture.width + GAP
        top += height
    return made


def _broken(card: Card, font: Any) -> list[tuple[str, Colour]]:
    lines: list[tuple[str, Colour]] = []
    for text, ink in card.words:
        line = ""
        for word in text.split():
            longer = f"{line} {word}".strip()
            if line and font.getlength(longer) > card.picture.width:
                lines.append((line, ink))
                longer = word
            line = longer
        lines.append((line, ink))
    return lines


def scaled(picture: Image.Image, width: int = WIDTH) -> Image.Image:
    """A copy of this width."""
    return picture.resize((width, round(picture.height * width / picture.width)), Image.Resampling.LANCZOS)


def marked(picture: Image.Image, marks: Sequence[Mark]) -> Image.Image:
    """The picture itself, with boxes drawn on it."""
    draw, font = ImageDraw.Draw(picture), ImageFont.load_default(11)
    for box, label, ink in marks:
        x1, x2 = (box[edge] * picture.width for edge in ("x1", "x2"))
        y1, y2 = (box[edge] * picture.height for edge in ("y1", "y2"))
        draw.rectangle((x1, y1, max(x1, x2 - 1), max(y1, y2 - 1)), outline=ink, width=2)
        if label:
            corner = (min(x1 + 2, picture.width - font.getlength(label) - 2), max(0.0, y1 - 13))
            draw.rectangle(draw.textbbox(corner, label, font), ink, ink, 3)
            draw.text(corner, label, WHITE, font)
    return picture


def photograph(name: str) -> Image.Image:
    """RGB; a function of skimage.data.

    Raises:
        SetupError: scikit-image is not installed.
    """
    try:
        import skimage.data
    except ImportError as error:
        raise SetupError(
            "The photographs are scikit-image's, which is not installed: pip install -c constraints.txt '.[dev]'."
        ) from error
    return Image.fromarray(getattr(skimage.data, name)()).convert("RGB")


def measured(config: Config, pictures: Sequence[Image.Image]) -> list[Rows]:
    """What every expert that is on measures of each picture."""
    rows: list[Rows] = [{} for _ in pictures]
    for name, section in config.perceive.experts("select").items():
        expert = EXPERTS[name](section)
        expert.open("cpu")
        # One by one: what an expert says of a picture does not hang on the others, and shapes differ.
        for picture, known in zip(pictures, rows, strict=True):
            known[name] = expert.measure([picture.copy()], [dict(known)])[0] | {"error": None}
        expert.close()
    return rows


def decided(config: Config, rows: Sequence[Rows]) -> list[Rows]:
    """What they say at the configuration's `later` settings."""
    return [DecidedPriors(config.perceive).of(one) for one in rows]


# Text: real weights


def text_sheet() -> Image.Image:
    """Lines with their places in the order of reading, on photographs and composed pages."""
    page = photograph("page").crop((0, 0, 384, 175))
    margin, paper = 22, (225, 225, 222)
    pages = Image.new("RGB", (2 * (page.width + margin), page.height), paper)
    for column in range(2):
        pages.paste(page, (margin + column * (page.width + margin), 0))
    tilted = page.rotate(8, Image.Resampling.BICUBIC, expand=True, fillcolor=paper)
    pictures = [
        [(pages, "two columns, put together of one page"), (tilted, "a page turned by 8 degrees")],
        [(photograph(name), name) for name in ("astronaut", "coffee", "chelsea", "camera")],
    ]
    reader = Ocr(OcrSection())
    reader.open("cpu")

    def card(picture: Image.Image, name: str, width: int) -> Card:
        row = reader.decide(reader.measure([picture])[0], {})
        drawn, lines = _with_lines(scaled(picture, width), row["lines"])
        return Card(drawn, [(f"{name}:{'' if lines else ' nothing'}", INK), *((line, INK) for line in lines)])

    wide = (2 * WIDTH - GAP - 1, WIDTH)
    rows = [
        [card(*one, width) for one, width in zip(pictures[0], (wide[0], wide[1]), strict=True)],
        [card(*one, (3 * WIDTH - 2 * GAP) // 4) for one in pictures[1]],
    ]
    reader.close()
    return sheet(rows)


def _with_lines(picture: Image.Image, lines: Sequence[Mapping[str, Any]]) -> tuple[Image.Image, list[str]]:
    """The picture with numbered polygons, and what stands in them."""
    draw, font = ImageDraw.Draw(picture), ImageFont.load_default(12)
    for number, line in enumerate(lines, start=1):
        corners = (np.array(line["polygon"]).reshape(4, 2) * picture.size).tolist()
        draw.polygon([(x, y) for x, y in corners], outline=WRONG, width=2)
        x, y = corners[0]
        label = str(number)
        spot = (min(max(0.0, x - 16), picture.width - 12), min(max(0.0, y - 2), picture.height - 14))
        draw.rectangle(draw.textbbox(spot, label, font), WRONG, WRONG, 3)
        draw.text(spot, label, WHITE, font)
    return picture, [f"{i}  {line['text']}  ({line['score']:.2f})" for i, line in enumerate(lines, start=1)]


# Rendered scenes: the demo's models


def scenes(count: int) -> list[Scene]:
    """The first scenes from FIRST on of LAID_SIZE and with at least three objects."""
    every = (render(seed) for seed in seeds("test", 10_000, FIRST) if scene_size(seed) == LAID_SIZE)
    return list(islice((scene for scene in every if len(scene.truth.objects) >= 3), count))


def served(scene: Scene) -> Image.Image:
    """The scene as a run gets it: decoded from its JPEG."""
    return decode_rgb(jpeg(scene.image))


def boxes_sheet(seen: Sequence[Scene], said: Sequence[Rows]) -> Image.Image:
    """Closed-set boxes above open-set ones, and the tags; right ones green, wrong ones red, missed ones white."""

    def card(scene: Scene, rows: Rows, expert: str) -> Card:
        picture = scaled(served(scene))
        found = found_boxes(rows[expert]["boxes"])
        words = [(f"{expert}: {len(found.labels)} boxes", INK)]
        if expert == "open_set":
            tags, true = [tag["tag"] for tag in rows["tags"]["tags"]], true_tags(scene.truth)
            words.append((f"tags: {', '.join(tags)}", RIGHT if set(tags) <= true else WRONG))
            if missed := sorted(true - set(tags)):
                words.append((f"not tagged: {', '.join(missed)}", WRONG))
        return Card(boxed(picture, found, box_truth(scene.truth)), words)

    return sheet(
        [
            [card(scene, rows, expert) for scene, rows in zip(seen, said, strict=True)]
            for expert in ("closed_set", "open_set")
        ]
    )


def depth_sheet(seen: Sequence[Scene], said: Sequence[Rows]) -> Image.Image:
    """The closed-set boxes with how near they are; below, the map that this is read off."""
    above, below = [], []
    for scene, rows in zip(seen, said, strict=True):
        boxes = {box["anchor"]: box for box in rows["closed_set"]["boxes"]}
        near = [one for one in rows["depth"]["objects"] if one["expert"] == "closed_set"]
        marks: list[Mark] = [
            (boxes[one["anchor"]], f"{one['band']} {one['nearness']:.2f}", BANDS[one["band"]]) for one in near[::-1]
        ]
        above.append(Card(marked(scaled(served(scene)), marks)))
        below.append(Card(coloured(unpacked(rows["depth"])).resize(above[-1].picture.size)))
    return sheet([above, below])


def florence_sheet(seen: Sequence[Scene], said: Sequence[Rows]) -> Image.Image:
    """Regions on the picture, the caption below, sentence by sentence; right ones green, wrong ones red."""
    cards = []
    for scene, rows in zip(seen, said, strict=True):
        found, truth = found_boxes(rows["florence"]["regions"]), box_truth(scene.truth, coloured=True)
        caption = judged_sentences(rows["florence"]["caption"] or "", scene.truth)
        words = [(sentence, RIGHT if right else WRONG) for sentence, right in caption]
        cards.append(Card(boxed(scaled(served(scene)), found, truth, scores=False), words))
    return sheet([cards])


# Merging and sampling


def laid_out(said: Sequence[Rows]) -> Priors:
    """The boxes of several pictures of one size as those of one: the pictures laid side by side, LAID[0] in a row."""
    across, down = LAID
    boxes: dict[str, list[Box]] = {expert: [] for expert in DETECTORS}
    for place, rows in enumerate(said):
        priors = Priors.of(rows)
        column, row = place % across, place // across
        for expert, found in (("closed_set", priors.closed_set), ("open_set", priors.open_set)):
            for box in found or []:
                x1, x2 = ((column + box[edge]) / across for edge in ("x1", "x2"))
                y1, y2 = ((row + box[edge]) / down for edge in ("y1", "y2"))
                boxes[expert].append(Box(**{**box, "x1": x1, "y1": y1, "x2": x2, "y2": y2}))
    return Priors(closed_set=boxes["closed_set"], open_set=boxes["open_set"])


def choice_sheet(seen: Sequence[Scene], said: Sequence[Rows]) -> Image.Image:
    """Both detectors' boxes, the merged ones, and what each sampling shows of them."""
    ground = Image.new("RGB", (LAID_SIZE[0] * LAID[0], LAID_SIZE[1] * LAID[1]))
    for place, scene in enumerate(seen):
        ground.paste(served(scene), (place % LAID[0] * LAID_SIZE[0], place // LAID[0] * LAID_SIZE[1]))
    priors = laid_out(said)
    both = [*(priors.closed_set or []), *(priors.open_set or [])]
    counts = Counter(box["expert"] for box in both)
    wide, narrow = (3 * WIDTH + GAP) // 2, WIDTH
    found = marked(scaled(ground, wide), [(box, "", DETECTORS[box["expert"]]) for box in both])

    def card(name: str, section: BoxChoiceSection, width: int) -> Card:
        chosen = choose_boxes(priors, section)
        sizes = [size_class(box, section) for box in chosen]
        marks: list[Mark] = [(box, "", SIZES[size]) for box, size in zip(chosen, sizes, strict=True)]
        words = [(f"{name}: {len(chosen)} boxes", INK)]
        words += [(f"{sizes.count(size)} {size}", ink) for size, ink in SIZES.items() if size in sizes]
        return Card(marked(scaled(ground, width), marks), words)

    above = Card(found, [(f"{counts[expert]} boxes of {expert}", ink) for expert, ink in DETECTORS.items()])
    return sheet(
        [
            [above, card("merged", BoxChoiceSection(max_boxes=500), wide)],
            [
                card("sampling: score", BoxChoiceSection(max_boxes=SHOWN, sampling="score"), narrow),
                card("sampling: area", BoxChoiceSection(max_boxes=SHOWN, sampling="area"), narrow),
                card("sampling: balanced", BoxChoiceSection(max_boxes=SHOWN), narrow),
            ],
        ]
    )


def size_class(box: Box, section: BoxChoiceSection) -> str:
    """A key of SIZES."""
    share = area(box)
    return "small" if share < section.small_area else "medium" if share < section.medium_area else "large"


# What the demo's models are not


def photographs_sheet(pictures: Mapping[str, Image.Image], said: Sequence[Rows]) -> Image.Image:
    """What models that know drawn scenes alone say of photographs."""
    cards = []
    for (name, picture), rows in zip(pictures.items(), said, strict=True):
        marks: list[Mark] = [
            (box, f"{box['label']} {box['score']:.2f}", ink)
            for expert, ink in DETECTORS.items()
            for box in rows[expert]["boxes"]
        ]
        tags = ", ".join(tag["tag"] for tag in rows["tags"]["tags"]) or "none"
        words = [(f"{name}; tags: {tags}", INK), (f"Florence-2: {rows['florence']['caption']}", INK)]
        cards.append(Card(marked(scaled(picture, (3 * WIDTH - GAP) // len(pictures)), marks), words))
    return sheet([cards])


def made() -> dict[str, Image.Image]:
    """Every sheet by the name of its file, without its ending.

    Raises:
        SetupError: scikit-image or a model is missing.
    """
    photos = {name: photograph(name) for name in ("coffee", "astronaut", "chelsea", "rocket")}
    seen = scenes(LAID[0] * LAID[1])
    with demo_config() as config:
        said = decided(config, measured(config, [*map(served, seen), *photos.values()]))
    of_scenes, of_photos = said[: len(seen)], said[len(seen) :]
    first = seen[:SCENES], of_scenes[:SCENES]
    return {
        "expert-ocr": text_sheet(),
        "expert-boxes": boxes_sheet(*first),
        "expert-depth": depth_sheet(*first),
        "expert-florence": florence_sheet(*first),
        "expert-choice": choice_sheet(seen, of_scenes),
        "expert-photographs": photographs_sheet(photos, of_photos),
    }


def saved(picture: Image.Image, path: Path) -> None:
    """As JPEG, at the best quality that keeps the file below MOST_BYTES."""
    for quality in range(90, 40, -5):
        out = io.BytesIO()
        picture.save(out, "JPEG", quality=quality, optimize=True)
        if out.tell() < MOST_BYTES:
            break
    path.write_bytes(out.getvalue())


def main(arguments: Sequence[str] | None = None) -> None:
    command = argparse.ArgumentParser(
        prog="python -m benchmarks.experts.sheets", description="Pictures of what the experts see."
    )
    command.add_argument("--out", type=Path, default=Path("docs/images"), help="folder to write to")
    given = command.parse_args(arguments)
    try:
        sheets = made()
    except SetupError as error:
        command.error(str(error))
    given.out.mkdir(parents=True, exist_ok=True)
    for name, picture in sheets.items():
        saved(picture, given.out / f"{name}.jpg")
        print(given.out / f"{name}.jpg")


if __name__ == "__main__":
    main()

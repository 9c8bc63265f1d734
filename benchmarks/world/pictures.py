"""Sheets of what the experts saw, drawn from measured scenes."""

import io
import re
from collections import Counter
from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from benchmarks.world.measure import Measured
from benchmarks.world.perception import true_tags
from demo.backgrounds import SETTINGS
from demo.captions import brief_caption
from demo.metrics.boxes import Found, Truth, box_truth, found_boxes, iou_matrix, precision_recall
from demo.metrics.florence import clauses
from demo.metrics.signs import exact, sign_text
from demo.metrics.tags import tag_figures
from demo.palette import OBJECT_COLOURS, Colour, darker
from demo.signs import CONDITIONS
from demo.truth import SceneTruth
from experts.depth import unpacked

CELL = (320, 256)
SIGN_CELL = (236, 176)
GAP = 8
LINE = 18
"""px that a line of text takes."""
INK: Colour = (30, 34, 46)
RIGHT, WRONG = darker(OBJECT_COLOURS["green"], 0.35), darker(OBJECT_COLOURS["red"], 0.1)
NEARNESS = (darker(OBJECT_COLOURS["blue"], 0.85), OBJECT_COLOURS["purple"], OBJECT_COLOURS["orange"], (255, 240, 190))
"""From far to near, evenly spaced."""


def experts_sheet(measured: Measured, numbers: Sequence[int]) -> Image.Image:
    """A row a scene: closed-set boxes, open-set boxes, Florence-2's regions, depth and true depth; below, its tags, its
    text, and Florence-2's caption.

    Boxes that are right are green, wrong ones red, objects that were not found white; so are tags, missing ones in
    brackets, and the sentences of the caption.
    """
    width, height = CELL[0] + GAP, CELL[1] + 4 * LINE + GAP
    sheet = Image.new("RGB", (GAP + 5 * width, GAP + len(numbers) * height), (255, 255, 255))
    for row, number in enumerate(numbers):
        shot = measured.shots[number]
        picture, truth = Image.open(io.BytesIO(shot.picture)).convert("RGB"), box_truth(shot.truth)
        cells: list[Image.Image | None] = []
        for expert in ("closed_set", "open_set"):
            priors = measured.priors.get(expert)
            cells.append(boxed(_fitted(picture), found_boxes(priors[number]["boxes"]), truth) if priors else None)
        told = measured.priors.get("florence")
        named = box_truth(shot.truth, coloured=True)
        cells.append(boxed(_fitted(picture), found_boxes(told[number]["regions"]), named, False) if told else None)
        depth = measured.priors.get("depth")
        for disparity in (unpacked(depth[number]) if depth else None, shot.disparity):
            cells.append(None if disparity is None else coloured(disparity).resize(_fit(picture.size)))
        top = GAP + row * height
        for column, cell in enumerate(cells):
            if cell is not None:
                sheet.paste(cell, (GAP + column * width + (CELL[0] - cell.width) // 2, top + CELL[1] - cell.height))
        _words_below(sheet, measured, number, top + CELL[1] + 2)
    return sheet


def signs_sheet(measured: Measured, columns: int = 5) -> Image.Image:
    """Signs in the order of the scenes, a row each condition, two for clean ones, and what was read on them."""
    wanted = [(condition, columns * (2 if condition == "clean" else 1)) for condition in CONDITIONS]
    cells: list[tuple[Image.Image | None, str, str]] = []
    for condition, most in wanted:
        signs = [
            (number, item)
            for number, shot in enumerate(measured.shots)
            for item in shot.truth.objects
            if item.condition == condition
        ][:most]
        for number, item in signs:
            shot = measured.shots[number]
            read = sign_text(measured.priors["ocr"][number]["lines"], item, shot.truth)
            crop = Image.open(io.BytesIO(shot.picture)).convert("RGB").crop(item.full_box)
            crop.thumbnail((SIGN_CELL[0] - GAP, SIGN_CELL[1] - 2 * LINE), Image.Resampling.LANCZOS)
            cells.append((crop, read, str(item.text)))
        cells += [(None, "", "")] * (-len(signs) % columns)
    sheet = Image.new("RGB", (columns * SIGN_CELL[0], -(-len(cells) // columns) * SIGN_CELL[1]), (255, 255, 255))
    draw, font = ImageDraw.Draw(sheet), ImageFont.load_default(13)
    for i, (picture, read, true) in enumerate(cells):
        if picture is None:
            continue
        x, y = i % columns * SIGN_CELL[0], i // columns * SIGN_CELL[1]
        sheet.paste(picture, (x + (SIGN_CELL[0] - picture.width) // 2, y + GAP))
        right = exact(read, true)
        text = read if right else f"{read or 'nothing'} (is {true})"
        draw.text((x + SIGN_CELL[0] / 2, y + SIGN_CELL[1] - LINE), text, RIGHT if right else WRONG, font, anchor="mm")
    return sheet


def worst(measured: Measured, count: int) -> list[int]:
    """The scenes with the lowest sum of tag F1 and of the share of closed-set boxes that are right and found."""

    def merit(number: int) -> float:
        truth = measured.shots[number].truth
        total = 0.0
        if "tags" in measured.priors:
            given = {tag["tag"] for tag in measured.priors["tags"][number]["tags"]}
            total += tag_figures([given], [true_tags(truth)]).f1
        if "closed_set" in measured.priors:
            found = found_boxes(measured.priors["closed_set"][number]["boxes"])
            total += sum(precision_recall([found], [box_truth(truth)], threshold=0.0)) / 2
        return total

    return sorted(range(len(measured.shots)), key=merit)[:count]


def boxed(picture: Image.Image, found: Found, truth: Truth, scores: bool = True) -> Image.Image:
    """Found boxes with labels and scores on the picture, and in white the true boxes that none of them meets."""
    scale = np.array([*picture.size, *picture.size])
    right, missed = judged(found, truth)
    draw, font = ImageDraw.Draw(picture), ImageFont.load_default(11)
    for box in truth.boxes[missed] * scale:
        draw.rectangle([float(edge) for edge in box], outline=(255, 255, 255))
    for i in np.argsort(found.scores):  # the best on top
        x1, y1, x2, y2 = (float(edge) for edge in found.boxes[i] * scale)
        ink = RIGHT if right[i] else WRONG
        draw.rectangle((x1, y1, max(x1, x2 - 1), max(y1, y2 - 1)), outline=ink, width=2)
        label = f"{found.labels[i]} {found.scores[i]:.2f}" if scores else str(found.labels[i])
        corner = (x1 + 2, max(0.0, y1 - 13))
        draw.rectangle(draw.textbbox(corner, label, font), ink, ink, 3)
        draw.text(corner, label, (255, 255, 255), font)
    return picture


def judged(found: Found, truth: Truth, iou: float = 0.5) -> tuple[np.ndarray, np.ndarray]:
    """Which found boxes have a true one of their label to themselves, best scores first; which true ones have none.

    Returns:
        bool of (found,) and bool of (true,).
    """
    overlap = iou_matrix(found.boxes, truth.boxes)
    overlap[found.labels[:, None] != truth.labels[None, :]] = 0
    right, missed = np.zeros(len(found.labels), bool), np.ones(len(truth.labels), bool)
    for i in np.argsort(-found.scores, kind="stable"):
        share = np.where(missed, overlap[i], 0.0)
        if share.size and share.max() >= iou:
            right[i], missed[share.argmax()] = True, False
    return right, missed


def judged_sentences(caption: str, truth: SceneTruth) -> list[tuple[str, bool]]:
    """The sentences of a caption in `brief_caption`'s words; which of them are right, a true one once."""
    left, judged = Counter(clauses(brief_caption(truth))), []
    for sentence in re.split(r"(?<=\.) ", caption):
        said = Counter(clauses(sentence))
        judged.append((sentence, SETTINGS[truth.setting].phrase in sentence or (bool(said) and said <= left)))
        left -= said
    return judged


def coloured(disparity: np.ndarray) -> Image.Image:
    """A disparity map (h, w) in the colours of `NEARNESS`, stretched from its 1st to its 99th percentile."""
    low, high = np.percentile(disparity, (1, 99))
    share = np.clip((disparity - low) / max(high - low, 1e-9), 0, 1)
    stops = np.linspace(0, 1, len(NEARNESS))
    channels = [np.interp(share, stops, [stop[i] for stop in NEARNESS]) for i in range(3)]
    return Image.fromarray(np.stack(channels, axis=-1).round().astype(np.uint8))


def _fit(size: tuple[int, int]) -> tuple[int, int]:
    scale = min(CELL[0] / size[0], CELL[1] / size[1])
    return round(size[0] * scale), round(size[1] * scale)


def _fitted(picture: Image.Image) -> Image.Image:
    return picture.resize(_fit(picture.size), Image.Resampling.LANCZOS)


def _words_below(sheet: Image.Image, measured: Measured, number: int, top: int) -> None:
    """One line of tags, one of text, two of Florence-2's caption."""
    draw, font, x = ImageDraw.Draw(sheet), ImageFont.load_default(13), float(GAP)
    if "tags" in measured.priors:
        true = true_tags(measured.shots[number].truth)
        given = [tag["tag"] for tag in measured.priors["tags"][number]["tags"]]
        words: list[tuple[str, Colour]] = [(tag, RIGHT if tag in true else WRONG) for tag in given]
        words += [(f"[{tag}]", INK) for tag in sorted(true - set(given))]
        for word, ink in words:
            draw.text((x, top), word, ink, font)
            x += font.getlength(f"{word}   ")
    if "ocr" in measured.priors:
        lines = " / ".join(line["text"] for line in measured.priors["ocr"][number]["lines"])
        draw.text((GAP, top + LINE), f"text: {lines or 'none'}", INK, font)
    if "florence" in measured.priors:
        caption, x, y = measured.priors["florence"][number]["caption"] or "", float(GAP), top + 2 * LINE
        for sentence, right in judged_sentences(caption, measured.shots[number].truth):
            for word in sentence.split():
                width = font.getlength(f"{word} ")
                if x + width > sheet.width - GAP:
                    x, y = float(GAP), y + LINE
                draw.text((x, y), word, RIGHT if right else WRONG, font)
                x += width

"""Where text lies: the canvas a detector takes, the crop a recogniser takes, and the order in which a person reads.

Pixels here are those of the canvas: origin in the upper left corner, x to the right, y down. A quad is four corners,
float (4, 2), clockwise.
"""

from collections.abc import Iterable, Sequence
from itertools import pairwise
from math import inf
from statistics import median

import numpy as np
from PIL import Image

LONGEST_SIDE = 2000  # rapidocr/config.yaml, Global.max_side_len
LEAST_SIDE = 32  # the detectors' stride: a thinner canvas has no cell
LONGEST_ASPECT = 8  # rapidocr/config.yaml, Global.width_height_ratio
TALL_CROP = 1.5  # PP-OCR turns a crop at least this many times as high as wide (get_rotate_crop_image)

# Reading order. Lengths are in line heights: the median short side of the lines at hand.
_SAME_DIRECTION = np.deg2rad(15)
_AGREED = 0.75
"""Share of all text, by length, that must run in one direction before the page is held to run so."""
_MARGIN = 0.25
"""Taken off every side of a box: detectors draw boxes larger than the ink, so neighbours touch or overlap."""
_GUTTER = 1.0
_COLUMN_WIDTH = 4.0
_COLUMN_LINES = 3
_LINE_GAP = 1.5

Span = tuple[float, float, float, float]
"""left, top, right, bottom in the frame in which the text runs to the right."""


def on_canvas(image: Image.Image) -> tuple[np.ndarray, int, int]:
    """The image, shrunk to LONGEST_SIDE, in the upper left of a black canvas that a detector can take.

    RapidOCR pads wide images only and enlarges short sides without a bound; a narrow strip would cost gigabytes.

    Returns:
        canvas (h, w, 3) uint8 RGB, and the width and height of the picture on it in pixels.
    """
    scale = min(1.0, LONGEST_SIDE / max(image.size))
    width, height = (max(1, round(side * scale)) for side in image.size)
    if (width, height) != image.size:
        image = image.resize((width, height), Image.Resampling.BICUBIC)
    least = max(LEAST_SIDE, -(-max(width, height) // LONGEST_ASPECT))
    canvas = np.zeros((max(height, least), max(width, least), 3), np.uint8)
    canvas[:height, :width] = np.asarray(image)
    return canvas, width, height


def crop_line(picture: np.ndarray, quad: np.ndarray) -> np.ndarray:
    """What lies in a quad, as the recognisers take it: warped upright, and a tall crop turned a quarter to the left.

    Args:
        picture: uint8 (h, w, 3).
        quad: clockwise from the picture's upper left, px.

    Returns:
        uint8 (h, w, 3), contiguous, at least 1 pixel each way.
    """
    import cv2

    across, down = _sides(quad)
    upright = np.array([[0, 0], [across, 0], [across, down], [0, down]], np.float32)
    warp = cv2.getPerspectiveTransform(quad.astype(np.float32), upright)
    crop = cv2.warpPerspective(picture, warp, (across, down), flags=cv2.INTER_CUBIC, borderMode=cv2.BORDER_REPLICATE)
    return np.ascontiguousarray(np.rot90(crop)) if _is_tall(across, down) else crop


def from_text_corner(quad: np.ndarray, flipped: bool) -> np.ndarray:
    """A quad that is clockwise from the picture's upper left, turned to begin where the text begins.

    A tall crop is read after a quarter turn to the left, so its text runs downwards and begins at the upper right
    corner; `flipped` says that the crop was read after a half turn.
    """
    return np.roll(quad, -(_is_tall(*_sides(quad)) + 2 * flipped), axis=0)


def _sides(quad: np.ndarray) -> tuple[int, int]:
    across = max(np.linalg.norm(quad[0] - quad[1]), np.linalg.norm(quad[2] - quad[3]))
    down = max(np.linalg.norm(quad[0] - quad[3]), np.linalg.norm(quad[1] - quad[2]))
    return max(1, int(across)), max(1, int(down))


def _is_tall(across: int, down: int) -> bool:
    return down >= TALL_CROP * across


def reading_order(quads: Sequence[np.ndarray]) -> list[int]:
    """Indices of quads in the order in which a person reads them.

    Rows from the top, left to right in a row; but where a gutter parts columns of running text, one column after
    another. All that in the frame in which most of the text runs to the right: a tilted page is read along its tilt,
    vertical lines from the right, a page upside down from its own top.

    Args:
        quads: each clockwise from its text's upper left corner; one unit along x and y, any origin and scale.

    Returns:
        A permutation that depends on nothing but the corners.
    """
    if not quads:
        return []
    corners = np.stack(quads).astype(np.float64)
    places = np.lexsort(corners.reshape(len(quads), 8).T[::-1])
    spans = _spans(corners[places])
    return [int(places[i]) for i in _Reader(spans).order(range(len(spans)))]


def _spans(corners: np.ndarray) -> list[Span]:
    """Upright spans of (n, 4, 2) corners. A side is the mean of its two corners, so a tilt left over adds no height."""
    x, y = _direction(corners)
    along = np.sort(corners @ (x, y), axis=1)
    across = np.sort(corners @ (-y, x), axis=1)
    sides = [part[:, ends].mean(axis=1) for ends in ((0, 1), (2, 3)) for part in (along, across)]
    return [tuple(row) for row in np.stack(sides, axis=1).tolist()]


def _direction(corners: np.ndarray) -> tuple[float, float]:
    """Unit vector along which the text runs, where most of it agrees on one; else to the right."""
    runs = corners[:, 1] - corners[:, 0] + corners[:, 2] - corners[:, 3]
    lengths = np.hypot(runs[:, 0], runs[:, 1])
    angles = np.arctan2(runs[:, 1], runs[:, 0])
    apart = np.abs(angles[:, None] - angles[None, :])
    near = np.minimum(apart, 2 * np.pi - apart) <= _SAME_DIRECTION
    weights = near @ lengths
    best = int(np.argmax(weights))
    x, y = runs[near[best]].sum(axis=0)
    length = float(np.hypot(x, y))
    if length == 0 or weights[best] < _AGREED * lengths.sum():
        return 1.0, 0.0
    return float(x) / length, float(y) / length


class _Reader:
    """Orders lines by their spans; every method takes and gives indices of spans, which lie in a fixed order."""

    def __init__(self, spans: list[Span]) -> None:
        self._spans = spans
        shorts = [min(right - left, bottom - top) for left, top, right, bottom in spans]
        self._height = median(shorts)
        margins = [_MARGIN * min(short, self._height) for short in shorts]
        self._cores = [_shrunk(*one) for one in zip(spans, margins, strict=True)]

    def order(self, lines: Iterable[int]) -> list[int]:
        bands = self._parted(lines, axis=1)
        read: list[int] = []
        while bands:
            columns, taken = self._columns(bands)
            if columns:
                read += [line for column in columns for line in self.order(column)]
            else:
                read += self._rows(bands[0])
            bands = bands[max(1, taken) :]
        return read

    def _parted(self, lines: Iterable[int], axis: int) -> list[list[int]]:
        """Lines in groups between which nothing lies along an axis (0 is x), in the order of that axis."""
        groups: list[list[int]] = []
        end = -inf
        for i in sorted(lines, key=lambda i: self._cores[i][axis]):
            if self._cores[i][axis] > end:
                groups.append([])
            groups[-1].append(i)
            end = max(end, self._cores[i][axis + 2])
        return groups

    def _columns(self, bands: list[list[int]]) -> tuple[list[list[int]], int]:
        """Columns from the left that the first bands make, and how many bands; none where they make no columns."""
        free = [(-inf, inf)]
        gutters: list[tuple[float, float]] = []
        taken = 0
        for count, band in enumerate(bands, 1):
            for i in band:
                free = list(_without(free, self._cores[i][0], self._cores[i][2], _GUTTER * self._height))
            inner = [gap for gap in free if -inf < gap[0] and gap[1] < inf]
            if inner:
                gutters, taken = inner, count
        strips = self._cut([i for band in bands[:taken] for i in band], gutters)
        clear = [gutter for k, gutter in enumerate(gutters) if self._side_by_side(*strips[k : k + 2])]
        return (self._cut([i for strip in strips for i in strip], clear), taken) if clear else ([], 0)

    def _cut(self, lines: list[int], gutters: list[tuple[float, float]]) -> list[list[int]]:
        strips: list[list[int]] = [[] for _ in range(len(gutters) + 1)]
        for i in lines:
            strips[sum(self._cores[i][0] >= end for _, end in gutters)].append(i)
        return strips

    def _side_by_side(self, left: list[int], right: list[int]) -> bool:
        if not (self._is_column(left) and self._is_column(right)):
            return False
        tops, bottoms = zip(*(self._extent(strip, axis=1) for strip in (left, right)), strict=True)
        shared = min(bottoms) - max(tops)
        return shared >= min(bottom - top for top, bottom in zip(tops, bottoms, strict=True)) / 2

    def _is_column(self, strip: list[int]) -> bool:
        """Running text: several lines, wide for their height and close below each other. A list of prices is none."""
        rows = self._parted(strip, axis=1)
        if len(rows) < _COLUMN_LINES:
            return False
        across = [self._extent(row, axis=0) for row in rows]
        down = [self._extent(row, axis=1) for row in rows]
        gaps = [below[0] - above[1] for above, below in pairwise(down)]
        wide = median(right - left for left, right in across) >= _COLUMN_WIDTH * self._height
        return wide and median(gaps) <= _LINE_GAP * self._height

    def _extent(self, lines: list[int], axis: int) -> tuple[float, float]:
        return min(self._cores[i][axis] for i in lines), max(self._cores[i][axis + 2] for i in lines)

    def _rows(self, lines: list[int]) -> list[int]:
        """Row by row. A line belongs to the row whose first line spans its middle."""
        rows: list[list[int]] = []
        for i in sorted(lines, key=lambda i: (self._spans[i][1], self._spans[i][0])):
            _, top, _, bottom = self._spans[i]
            if rows and self._spans[rows[-1][0]][1] <= (top + bottom) / 2 <= self._spans[rows[-1][0]][3]:
                rows[-1].append(i)
            else:
                rows.append([i])
        return [i for row in rows for i in self._row(row, alone=len(row) == len(lines))]

    def _row(self, row: list[int], alone: bool) -> list[int]:
        """Left to right; lines one above another beside a tall one are a text of their own."""
        read: list[int] = []
        for group in self._parted(row, axis=0):
            within = len(group) < len(row) or not alone
            read += self.order(group) if within and len(group) > 1 else self._along(group)
        return read

    def _along(self, group: list[int]) -> list[int]:
        """Lines that overlap in both directions, along the direction in which they lie further apart."""
        middles = [[self._spans[i][k] + self._spans[i][k + 2] for i in group] for k in (0, 1)]
        x, y = (max(of) - min(of) for of in middles)
        return sorted(group, key=lambda i: self._spans[i][0 if x >= y else 1])


def _shrunk(span: Span, margin: float) -> Span:
    left, top, right, bottom = span
    return left + margin, top + margin, right - margin, bottom - margin


def _without(gaps: list[tuple[float, float]], start: float, end: float, least: float) -> Iterable[tuple[float, float]]:
    """What an interval leaves of gaps, but for what is narrower than `least`."""
    for low, high in gaps:
        for part in ((low, min(high, start)), (max(low, end), high)):
            if part[1] - part[0] >= least:
                yield part

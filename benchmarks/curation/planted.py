"""Vectors that look like those of an image tower, with copies, stars of near-copies and drifting series planted."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

COMMON = 0.36  # cosine of two random rows
SUBJECT = 0.28  # share of a row's energy that its topic adds; the rest is the row's own
STAR_SHARE, CHAIN_SHARE = 0.3, 0.2  # of all rows
LARGEST_STAR = 200
SHORTEST_CHAIN, LONGEST_CHAIN = 5, 59  # frames
COPY_COSINE = (0.97, 1.0)
STEP_COSINE = (0.972, 0.99)
KEY_COSINE = 0.90  # a frame this far from the last key frame is a new image
BLOCK = 8192


@dataclass(frozen=True)
class Planted:
    """Rows and what is known about them; the rows stand in random order.

    Attributes:
        vectors: unit vectors, float16 of (n, d).
        group: number of the star of copies a row belongs to, -1 for none; int64 of (n,).
        chain: number of the drifting series a row is a frame of, -1 for none; int64 of (n,).
        distinct: rows that are images of their own: single rows, the centre of each star, the key frames of each
            chain; bool of (n,).
    """

    vectors: np.ndarray
    group: np.ndarray
    chain: np.ndarray
    distinct: np.ndarray


def topics(n: int, seed: int, d: int = 512) -> Planted:
    """Rows in topics with gaps between them: n / 100 topics of Zipf sizes, sixteen to a super-topic.

    Two rows of one topic have a cosine of 0.64 in the median; 3 % of the topics are templated, at 0.88 to 0.92.
    """
    rng = np.random.default_rng(seed)
    frame = _Frame(rng, d)
    count = max(n // 100, 16)
    supers = frame.draw(max(count // 16, 1))
    subject = np.sqrt(0.4) * supers[rng.integers(len(supers), size=count)] + np.sqrt(0.6) * frame.draw(count)
    own = rng.uniform(0.25, 0.47, count)  # the share of energy that is not the topic's
    templated = rng.random(count) < 0.03
    own[templated] = rng.uniform(0.08, 0.12, int(templated.sum()))
    weights = 1 / np.arange(20, count + 20)  # Zipf, but no topic holds more than a hundredth of the rows
    weights /= weights.sum()
    drifting = np.where(templated, 0, weights)

    def places(rows: int, drifts: bool) -> tuple[np.ndarray, np.ndarray]:
        topic = rng.choice(count, size=rows, p=drifting / drifting.sum() if drifts else weights)
        share = own[topic, None].astype(np.float32)
        return frame.common + np.sqrt(1 - COMMON - share) * subject[topic], share

    return _planted(n, rng, frame, places)


def continuous(n: int, seed: int, d: int = 512) -> Planted:
    """The same planting on a continuum: the subject varies smoothly from row to row, so a cluster's border cuts through
    crowded space."""
    rng = np.random.default_rng(seed)
    frame = _Frame(rng, d)

    def places(rows: int, drifts: bool) -> tuple[np.ndarray, np.ndarray]:
        share = np.full((rows, 1), 1 - COMMON - SUBJECT, np.float32)
        return frame.common + np.sqrt(np.float32(SUBJECT)) * frame.draw(rows, steepness=2), share

    return _planted(n, rng, frame, places)


class _Frame:
    """Directions of an image tower's space: one common to all rows, then variances that fall as 1 / (i + 5)."""

    def __init__(self, rng: np.random.Generator, d: int) -> None:
        self._rng = rng
        self._axes = np.linalg.qr(rng.standard_normal((d, d)))[0].astype(np.float32)
        self.common = np.sqrt(np.float32(COMMON)) * self._axes[0]

    def draw(self, rows: int, steepness: float = 1) -> np.ndarray:
        """Random directions off the common one: unit vectors, float32 of (rows, d)."""
        axes = self._axes[1:]
        spread = (np.arange(len(axes)) + 5.0) ** (-steepness / 2)
        return _unit((self._rng.standard_normal((rows, len(axes)), np.float32) * spread.astype(np.float32)) @ axes)


# Where rows lie before they get something of their own: float32 of (rows, d), and the own share, (rows, 1)
_Places = Callable[[int, bool], tuple[np.ndarray, np.ndarray]]


def _planted(n: int, rng: np.random.Generator, frame: _Frame, places: _Places) -> Planted:
    stars = _sizes(rng, int(STAR_SHARE * n), lambda count: _powerlaw(rng, count))
    chains = _sizes(
        rng, int(CHAIN_SHARE * n), lambda count: rng.integers(SHORTEST_CHAIN, LONGEST_CHAIN + 1, count), SHORTEST_CHAIN
    )
    vectors = np.empty((n, frame.common.size), np.float16)
    group, chain = np.full(n, -1), np.full(n, -1)
    distinct = np.ones(n, bool)
    order = rng.permutation(n)  # where each row goes
    starred, chained = int(stars.sum()), int(chains.sum())
    rows = order[:starred]
    group[rows] = np.repeat(np.arange(len(stars)), stars)
    distinct[rows] = np.diff(group[rows], prepend=-1) != 0
    first = 0
    for sizes in _blocks(stars):
        at = rows[first : first + sizes.sum()]
        vectors[at] = _star(rng, frame, places, sizes, distinct[at])
        first += len(at)
    rows = order[starred : starred + chained]
    chain[rows] = np.repeat(np.arange(len(chains)), chains)
    first = 0
    for sizes in _blocks(chains):
        at = rows[first : first + sizes.sum()]
        vectors[at], distinct[at] = _drift(rng, frame, places, sizes)
        first += len(at)
    rows = order[starred + chained :]
    for start in range(0, len(rows), BLOCK):
        at = rows[start : start + BLOCK]
        vectors[at] = _images(frame, *places(len(at), False))
    return Planted(vectors, group, chain, distinct)


def _sizes(rng: np.random.Generator, total: int, draw: Callable[[int], np.ndarray], smallest: int = 2) -> np.ndarray:
    """Sizes as drawn, as many as fit into `total` rows."""
    sizes = draw(total // smallest)
    return sizes[: np.searchsorted(sizes.cumsum(), total, side="right")]


def _powerlaw(rng: np.random.Generator, count: int) -> np.ndarray:
    """Stars of 2 to 200 rows, 4.3 in the mean."""
    sizes = np.arange(2, LARGEST_STAR + 1)
    weights = sizes**-2.5
    return rng.choice(sizes, size=count, p=weights / weights.sum())


def _blocks(sizes: np.ndarray) -> list[np.ndarray]:
    return np.split(sizes, np.flatnonzero(np.diff(sizes.cumsum() // BLOCK)) + 1) if len(sizes) else []


def _images(frame: _Frame, place: np.ndarray, share: np.ndarray) -> np.ndarray:
    return _unit(place + np.sqrt(share) * frame.draw(len(place)))


def _star(
    rng: np.random.Generator, frame: _Frame, places: _Places, sizes: np.ndarray, centre: np.ndarray
) -> np.ndarray:
    """An image and its copies, one in ten the very same vector, the others COPY_COSINE from it."""
    image = np.repeat(_images(frame, *places(len(sizes), False)), sizes, axis=0)
    aside = frame.draw(len(image))
    aside = _unit(aside - (aside * image).sum(1, keepdims=True) * image)
    cosine = rng.uniform(*COPY_COSINE, len(image)).astype(np.float32)
    cosine[centre | (rng.random(len(image)) < 0.1)] = 1
    return cosine[:, None] * image + np.sqrt(1 - cosine**2)[:, None] * aside


def _drift(
    rng: np.random.Generator, frame: _Frame, places: _Places, sizes: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Frames of paths that lead through images of one subject; and which of them are key frames."""
    place, share = places(len(sizes), True)
    stops = 24  # more than the longest chain of the longest steps passes
    way = np.stack([_images(frame, place, share) for _ in range(stops)], axis=1)
    legs = np.arccos((way[:, 1:] * way[:, :-1]).sum(-1))
    reached = np.concatenate([np.zeros((len(sizes), 1)), legs.cumsum(1)], axis=1)
    of = np.repeat(np.arange(len(sizes)), sizes)
    number = np.arange(len(of)) - np.repeat(sizes.cumsum() - sizes, sizes)
    step = np.where(number == 0, 0, np.arccos(rng.uniform(*STEP_COSINE, len(of))))
    travelled = step.cumsum()
    travelled -= travelled[number == 0][of]
    leg = np.minimum((reached[of] <= travelled[:, None]).sum(1) - 1, stops - 2)
    angle = legs[of, leg]
    done = travelled - reached[of, leg]
    frames = np.sin(angle - done)[:, None] * way[of, leg] + np.sin(done)[:, None] * way[of, leg + 1]
    frames = _unit(frames.astype(np.float32))
    key = number == 0
    last = frames[key]
    for place_in_chain in range(1, LONGEST_CHAIN):
        at = np.flatnonzero(number == place_in_chain)
        new = (frames[at] * last[of[at]]).sum(1) < KEY_COSINE
        key[at[new]] = True
        last[of[at[new]]] = frames[at[new]]
    return frames, key


def _unit(rows: np.ndarray) -> np.ndarray:
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)

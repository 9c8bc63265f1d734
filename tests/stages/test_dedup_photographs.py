"""The default Hamming radius against real photographs and copies of them as the web makes them."""

import io

import imagehash
import numpy as np
import pytest
from PIL import Image

from stages.curate.perceptual import perceptual_duplicates
from stages.dedup import DedupSection
from tests.photographs import encoded, photograph

NAMES = ["astronaut", "camera", "chelsea", "coffee", "coins", "moon", "page", "rocket", "brick", "grass", "gravel"]


def copies(photo):
    width, height = photo.size
    yield from (reopened(photo, quality) for quality in (90, 60, 30))
    yield from (
        photo.resize((round(width * s), round(height * s)), Image.Resampling.BICUBIC) for s in (1.5, 0.5, 1 / 3)
    )
    yield reopened(photo.resize((width // 2, height // 2), Image.Resampling.BICUBIC), 50)


def reopened(photo, quality):
    return Image.open(io.BytesIO(encoded(photo, "JPEG", quality=quality)))


def phash(photo):
    return int(str(imagehash.phash(photo)), 16)


@pytest.fixture(scope="module")
def hashes():
    """Copies stand behind their original."""
    photos = [photograph(name) for name in NAMES]
    return [[phash(photo), *map(phash, copies(photo))] for photo in photos]


def test_copies_go_and_different_pictures_stay(hashes):
    flat = np.array([value for group in hashes for value in group], np.uint64)
    by, _ = perceptual_duplicates(flat, DedupSection().hamming)
    originals = np.arange(len(NAMES)) * len(hashes[0])
    assert np.flatnonzero(by < 0).tolist() == originals.tolist()
    np.testing.assert_array_equal(by[by >= 0], np.repeat(originals, len(hashes[0]) - 1))


def test_different_pictures_are_at_least_20_bits_apart(hashes):
    originals = [group[0] for group in hashes]
    assert min((a ^ b).bit_count() for i, a in enumerate(originals) for b in originals[:i]) >= 20

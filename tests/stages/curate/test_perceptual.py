import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stages.curate import perceptual
from stages.curate.perceptual import earliest_near, perceptual_duplicates

HASHES = st.lists(
    st.builds(
        lambda base, flips: base ^ sum(1 << f for f in flips),
        st.sampled_from([0, 2**64 - 1, 0xF0F0F0F0_12345678]),
        st.sets(st.integers(0, 63), max_size=6),
    ),
    max_size=40,
)


def oracle(hashes: list[int], radius: int) -> list[int]:
    """Greedy, pair by pair: the earliest kept hash near each one, -1 where it is kept."""
    kept: list[int] = []
    by = []
    for row, value in enumerate(hashes):
        by.append(next((i for i in kept if (hashes[i] ^ value).bit_count() <= radius), -1))
        if by[-1] < 0:
            kept.append(row)
    return by


def flipped(rng, hashes, most):
    """Each hash with up to `most` bits of it turned."""
    for _ in range(most):
        hashes = hashes ^ (np.uint64(1) << rng.integers(0, 64, len(hashes), dtype=np.uint64))
    return hashes


def drawn(rng, count):
    return rng.integers(0, 2**64, count, dtype=np.uint64)


@pytest.mark.parametrize("leaf", [1024, 4])
@settings(max_examples=50)
@given(hashes=HASHES, radius=st.integers(0, 16))
def test_equals_the_oracle(leaf, hashes, radius):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(perceptual, "_LEAF", leaf)
        by, distance = perceptual_duplicates(np.array(hashes, np.uint64), radius)
    want = oracle(hashes, radius)
    assert by.tolist() == want
    assert distance.tolist() == [
        0 if i < 0 else (hashes[i] ^ value).bit_count() for i, value in zip(want, hashes, strict=True)
    ]


@pytest.mark.parametrize("radius", [0, 1, 4, 6, 9, 13, 16])
def test_bands_miss_no_pair(radius, monkeypatch):
    """Planted pairs at every distance up to beyond the radius; even hashes and skewed ones."""
    # chunks smaller than a bucket, and never the comparison of all with all
    monkeypatch.setattr(perceptual, "_CHUNK", 64)
    monkeypatch.setattr(perceptual, "_CELL", 1e9)
    rng = np.random.default_rng(radius)
    base = np.concatenate([drawn(rng, 300), drawn(rng, 200) & np.uint64(0xFF00000000FFFF)])
    queries = np.concatenate([flipped(rng, rng.choice(base, 60), bits) for bits in range(radius + 3)])
    near = np.bitwise_count(queries[:, None] ^ base) <= radius
    want = np.where(near.any(1), near.argmax(1), -1)
    assert 0 < (want >= 0).sum() < len(want)
    np.testing.assert_array_equal(earliest_near(queries, base, radius), want)


def test_equals_the_oracle_over_many_blocks():
    rng = np.random.default_rng(3)
    images = drawn(rng, 2000)
    hashes = np.concatenate(
        [images, flipped(rng, rng.choice(images, 2000), 9), flipped(rng, images[:1].repeat(500), 8)]
    )
    rng.shuffle(hashes)
    by, _ = perceptual_duplicates(hashes, 6)
    assert by.tolist() == oracle(hashes.tolist(), 6)


def test_one_group_of_300_000_is_cheap_in_memory(monkeypatch):
    """A placeholder image and its re-encodings: no step holds more pairs than a chunk and one row's."""
    held = []
    count = np.bitwise_count

    def counted(pairs):
        held.append(pairs.size)
        return count(pairs)

    monkeypatch.setattr(np, "bitwise_count", counted)
    rng = np.random.default_rng(0)
    hashes = flipped(rng, np.zeros(300_000, np.uint64), 6)
    by, _ = perceptual_duplicates(hashes, 6)
    assert (by < 0).sum() < 1000
    assert max(held) <= perceptual._LEAF**2


@given(HASHES, st.integers(0, 16), st.randoms(use_true_random=False))
@settings(max_examples=30)
def test_equal_hashes_share_one_fate(hashes, radius, random):
    doubled = [*hashes, *random.choices(hashes, k=10)] if hashes else []
    by, _ = perceptual_duplicates(np.array(doubled, np.uint64), radius)
    for row, value in enumerate(doubled):
        first = doubled.index(value)
        assert by[row] == (by[first] if by[first] >= 0 or row == first else first)

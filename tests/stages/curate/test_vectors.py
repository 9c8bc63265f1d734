"""Unit rows of what is stored."""

import numpy as np
import pyarrow as pa
import pytest

from stages.curate import vectors
from stages.curate.vectors import Vectors, vector_array


@pytest.mark.parametrize("dtype", [np.float16, np.float32])
@pytest.mark.parametrize("centred", [True, False])
def test_units_point_where_the_rows_point(dtype, centred, monkeypatch):
    monkeypatch.setattr(vectors, "BLOCK", 3)
    rng = np.random.default_rng(0)
    stored = (rng.standard_normal((11, 24)) * 10.0 ** rng.integers(-3, 3, (11, 1))).astype(dtype)
    mean = rng.standard_normal(24).astype(np.float32) if centred else None
    moved = stored.astype(np.float64) - (mean if centred else 0)
    unit = Vectors.of(stored, mean).unit(slice(None))
    assert unit.dtype == np.float32
    np.testing.assert_allclose(
        unit, moved / np.linalg.norm(moved, axis=1, keepdims=True), atol=1e-5 if centred else 3e-7
    )
    np.testing.assert_array_equal(Vectors.of(stored[4:7], mean).unit(np.array([2, 0])), unit[[6, 4]])


@pytest.mark.parametrize("dtype", [np.float16, np.float32])
def test_rows_with_no_direction_are_zeros(dtype):
    stored = np.ones((6, 3), dtype)
    stored[1, 2], stored[2, 0], stored[3, 1], stored[4] = np.nan, np.inf, -np.inf, 0
    found = Vectors.of(stored)
    np.testing.assert_array_equal(found.scale == 0, [False, True, True, True, True, False])
    np.testing.assert_array_equal(found.unit(slice(None)).any(axis=1), [True, False, False, False, False, True])


def test_lengths_that_float32_cannot_invert_are_none():
    found = Vectors.of(np.array([[1e38, 1e38], [1e-40, 0], [1e20, 0]], np.float32))
    np.testing.assert_array_equal(found.scale != 0, [False, False, True])


def test_mapped_files_are_read(tmp_path):
    rows = np.random.default_rng(1).standard_normal((5, 8)).astype(np.float16)
    np.save(tmp_path / "rows.npy", rows)
    mapped = Vectors.of(np.load(tmp_path / "rows.npy", mmap_mode="r"))
    np.testing.assert_array_equal(mapped.unit(slice(1, 4)), Vectors.of(rows).unit(slice(1, 4)))


def test_a_column_as_it_is_stored():
    rows = np.arange(12, dtype=np.float16).reshape(4, 3)
    column = pa.chunked_array(
        [pa.FixedSizeListArray.from_arrays(pa.array(part.ravel()), 3) for part in np.split(rows, 2)]
    )
    np.testing.assert_array_equal(vector_array(column), rows)

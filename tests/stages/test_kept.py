from pathlib import Path

import numpy as np
import pytest

from stages.kept import kept_array, kept_file


def test_it_is_made_once(tmp_path: Path) -> None:
    calls = []

    def make() -> np.ndarray:
        calls.append(1)
        return np.arange(5)

    for _ in range(2):
        assert kept_array(tmp_path / "a.npy", make).tolist() == [0, 1, 2, 3, 4]
    assert len(calls) == 1


def test_an_empty_array_is_kept_too(tmp_path: Path) -> None:
    for _ in range(2):
        assert kept_array(tmp_path / "a.npy", lambda: np.empty((0, 3), np.float16)).shape == (0, 3)


def test_what_breaks_off_leaves_nothing(tmp_path: Path) -> None:
    def breaks(path: Path) -> None:
        path.write_text("half")
        raise OSError("the disk is full")

    with pytest.raises(OSError, match="full"):
        kept_file(tmp_path / "a.txt", breaks)
    assert list(tmp_path.iterdir()) == []

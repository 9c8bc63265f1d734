"""What a gather has done so far, in files that a killed attempt leaves whole or not at all."""

import os
import uuid
from collections.abc import Callable
from pathlib import Path

import numpy as np


def kept_file(path: Path, write: Callable[[Path], None]) -> Path:
    """`path`, which `write` makes where an earlier attempt has not.

    Args:
        path: in `GatherInput.kept`.
        write: writes a file of the name it is given, which has the same suffix.
    """
    if not path.exists():
        temporary = path.with_name(f".{path.stem}.{uuid.uuid4().hex}{path.suffix}")
        try:
            write(temporary)
            with temporary.open("rb+") as f:
                os.fsync(f.fileno())
            temporary.replace(path)
        finally:
            temporary.unlink(missing_ok=True)
    return path


def kept_array(path: Path, make: Callable[[], np.ndarray]) -> np.ndarray:
    """The array in `path` (.npy), memory-mapped to read; `make` is asked where an earlier attempt has not saved it."""
    kept_file(path, lambda temporary: np.save(temporary, make()))
    array: np.ndarray = np.load(path, mmap_mode="r")
    return array

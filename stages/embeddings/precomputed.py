"""`embed.precomputed`: unit vectors out of the files that a user names."""

import hashlib
import re
import tempfile
from collections.abc import Iterable
from itertools import chain
from pathlib import Path
from typing import Literal

import numpy as np
from pydantic import Field, field_validator

from schemas.errors import RequestError
from schemas.section import Section, located, runtime
from stages.embeddings.files import COLUMNS, EmbeddingFile, Key, files_identity, find_embeddings
from stages.embeddings.index import find, key_hashes, write_index
from stages.kept import kept_file
from stages.sources.columns import known_columns

_HEX128 = re.compile(r"[0-9a-fA-F]{32}")


class PrecomputedSection(Section):
    """Embeddings that were made before, by the same model for all images."""

    files: list[str] = located(
        min_length=1,
        description="local files, folders (searched to any depth) or globs: parquet with a list column of floats, or "
        "clip-retrieval's img_emb_N.npy; of two rows with one key the first counts",
    )
    metadata: str | None = located(
        None,
        description="folder of the metadata_N.parquet that belong to img_emb_N.npy; null looks beside them and in "
        "../metadata",
    )
    key: Key = Field(
        "uid",
        description="what rows are joined by: uid (128-bit hex, as DataComp's) or url (any other source: LAION's ids "
        "are not a run's uids)",
    )
    columns: dict[str, str] = Field(
        default_factory=dict,
        description="canonical column name to the name in the files, where the known aliases do not fit; canonical "
        f"names are {', '.join(COLUMNS)}",
    )
    missing: Literal["compute", "drop"] = Field(
        "compute",
        description="what becomes of a row whose key is not there, or whose vector is zero, NaN, infinite or of "
        "another width: it is computed by the model, which must be the files' own, or the row stops; drop loads no "
        "model",
    )
    index: str | None = runtime(
        None,
        description="folder that keeps the sorted keys (24 bytes a row) for other workers and later runs; null sorts "
        "them in every worker, in a temporary folder",
    )

    @field_validator("columns")
    @classmethod
    def _known(cls, columns: dict[str, str]) -> dict[str, str]:
        return known_columns(columns, COLUMNS)


def precomputed_files(section: PrecomputedSection) -> list[EmbeddingFile]:
    """The files, looked at as far as their headers.

    Raises:
        RequestError: a file is missing or is not what it should be, widths differ, or no key can be a uid.
    """
    files = find_embeddings(section.files, section.metadata, section.key, section.columns)
    if section.key == "uid":
        some = next(files[0].keys(), [])
        if some and not any(key and _HEX128.fullmatch(key) for key in some):
            raise RequestError(
                f"embed.precomputed: the uids of {files[0].path} are not 128-bit hex (the first is {some[0]}), so they "
                "are not those of a run. Join by URL: `embed: {precomputed: {key: url}}`."
            )
    return files


def precomputed_identity(section: PrecomputedSection) -> str:
    """Raises RequestError as `precomputed_files` does."""
    return files_identity(precomputed_files(section))


class Precomputed:
    """The vectors, found by key. Memory does not grow with the files.

    Attributes:
        width: numbers in a vector.
    """

    def __init__(self, section: PrecomputedSection, identity: str) -> None:
        """Open the index, or build it.

        Args:
            identity: of the files, as `precomputed_identity` gave it when the run started.

        Raises:
            RequestError: as `precomputed_files` does.
            OSError: the index cannot be written.
        """
        self._key = section.key
        self._files = precomputed_files(section)
        self.width = self._files[0].width
        self._starts = np.cumsum([0, *(file.count for file in self._files)])
        self._folder = None if section.index else tempfile.TemporaryDirectory(prefix="densefusion-embeddings-")
        folder = Path(self._folder.name if self._folder else str(section.index))
        folder.mkdir(parents=True, exist_ok=True)
        name = hashlib.sha256(f"{identity} {section.key} {sorted(section.columns.items())}".encode()).hexdigest()
        keys: Iterable[list[str | None]] = chain.from_iterable(file.keys() for file in self._files)
        if section.key == "uid":
            keys = ([key and key.lower() for key in batch] for batch in keys)
        path = kept_file(folder / f"{name}.npy", lambda path: write_index(path, keys, int(self._starts[-1])))
        self._index: np.ndarray = np.load(path, mmap_mode="r")

    def close(self) -> None:
        if self._folder is not None:
            self._folder.cleanup()

    def vectors(self, uids: list[str], urls: list[str]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """float16 unit vectors of (rows, width), and two bools of (rows,): which of them are there, whose keys are."""
        places = find(self._index, key_hashes(uids if self._key == "uid" else urls))
        found = np.full((len(places), self.width), np.nan, np.float32)
        order = np.argsort(places, kind="stable")
        for file, start, end in zip(self._files, self._starts[:-1], self._starts[1:], strict=True):
            low, high = np.searchsorted(places[order], (start, end))
            if low < high:
                mine = order[low:high]
                found[mine] = file.read(places[mine] - start)
        return *_unit(found), places >= 0


def _unit(vectors: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    length = np.linalg.norm(vectors.astype(np.float64), axis=1)
    there = np.isfinite(length) & (length > 0)
    return (vectors / np.where(there, length, 1)[:, None]).astype(np.float16), there

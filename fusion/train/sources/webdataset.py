"""Shards as `package` writes them: `<uid>.jpg`, `<uid>.txt`, `<uid>.json`, adjacent."""

import glob
import json
import tarfile
from array import array
from pathlib import Path
from typing import Any

import numpy as np

from fusion.train.section import WebDatasetSource
from fusion.train.sources.base import BadRowError, Sample, Source
from fusion.train.sources.captions import Asking, priors_of
from schemas.errors import RequestError

_IMAGES = {"jpg", "jpeg", "png", "webp"}
_CHARACTERS_A_WORD = 6


class PackagedCaptions(Source):
    """Samples of tars, read where they lie.

    Raises:
        RequestError: there are no tars, one is cut or is none, or the prompt's template cannot be read.
    """

    def __init__(self, section: WebDatasetSource) -> None:
        self._asking = Asking(section.prompt, section.question)
        self._tars = _tars(section.path)
        places = array("q")  # of a sample: tar, then offset and size of image, text and JSON
        self._names: list[str] = []
        for number, tar in enumerate(self._tars):
            for name, members in _samples(tar):
                self._names.append(name)
                places.append(number)
                for kind in ("image", "txt", "json"):
                    places.extend(members.get(kind, (-1, -1)))
        self._places = np.array(places, np.int64).reshape(-1, 7)
        if not len(self._places):
            raise RequestError(f"The tars of {section.path} hold no samples.")
        self.words: np.ndarray = np.maximum(self._places[:, 4] // _CHARACTERS_A_WORD, 0).astype(np.int32)
        self.bytes = sum(tar.stat().st_size for tar in self._tars)

    def where(self, row: int) -> str:
        return f"{self._names[row]} in {self._tars[self._places[row, 0]]}"

    def sample(self, row: int) -> Sample:
        tar, *places = self._places[row].tolist()
        image, text, metadata = (places[i : i + 2] for i in (0, 2, 4))
        path = self._tars[tar]
        if text[0] < 0:
            raise BadRowError("no_answer", f"{self._names[row]} has no .txt")
        if image[0] < 0:
            raise BadRowError("missing_image", f"{self._names[row]} has no image")
        about: dict[str, Any] = {}
        try:
            caption = _read(path, *text).decode()
            if metadata[0] >= 0:
                about = json.loads(_read(path, *metadata))
        except ValueError as error:
            raise BadRowError("malformed", f"{self._names[row]}: {error}") from None
        priors = priors_of(about.get("priors"))
        messages = self._asking.conversation(caption, about.get("alt_text"), priors)
        return Sample(messages, [lambda: _read(path, *image)], [self._asking.boxes(priors)])


def _tars(given: str) -> list[Path]:
    """Tars of a dataset folder (whose manifest says how long each is), of a folder of tars, of a pattern, or one."""
    folder = Path(given)
    if not folder.is_dir():
        found = sorted(Path(name) for name in glob.glob(given))  # noqa: PTH207  a pattern may be absolute
        if not found:
            raise RequestError(f"There is no tar {given} to learn from (data.sources.path).")
        return found
    manifest = folder / "manifest.json"
    if not manifest.is_file():
        if not (found := sorted(folder.glob("*.tar"))):
            raise RequestError(
                f"{given} holds no tars, and no manifest.json of a finished dataset (data.sources.path)."
            )
        return found
    files = [file for file in json.loads(manifest.read_bytes())["files"] if file["path"].endswith(".tar")]
    for file in files:
        path = folder / file["path"]
        size = path.stat().st_size if path.is_file() else 0
        if size != file["bytes"]:
            raise RequestError(f"{path} has {size} bytes, its dataset's manifest says {file['bytes']}. Copy it again.")
    return [folder / file["path"] for file in files]


def _samples(tar: Path) -> list[tuple[str, dict[str, tuple[int, int]]]]:
    """Samples of a tar by name: offset and size of each member by kind."""
    samples: list[tuple[str, dict[str, tuple[int, int]]]] = []
    try:
        with tarfile.open(tar, "r:") as archive:
            for member in archive:
                if not member.isfile():
                    continue
                folder, _, file = member.name.rpartition("/")
                stem, _, ending = file.partition(".")
                name = f"{folder}/{stem}" if folder else stem
                if not samples or samples[-1][0] != name:
                    samples.append((name, {}))
                kind = "image" if ending.lower() in _IMAGES else ending
                samples[-1][1][kind] = (member.offset_data, member.size)
                archive.members.clear()  # type: ignore[attr-defined]  # tarfile would keep every header in memory
    except (tarfile.TarError, OSError) as error:
        raise RequestError(f"{tar} does not read as a tar: {error}. Copy it again, or leave it out.") from None
    return samples


def _read(path: Path, offset: int, size: int) -> bytes:
    with path.open("rb") as file:
        file.seek(offset)
        return file.read(size)

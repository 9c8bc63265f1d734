"""The demo's models, small ones of the production classes: the same loaders, no downloads.

Those under `trained/` learned the scene world (`python -m demo.train`; the captioner: `demo/captioner/train.yaml`) and
ship with the package. The captioner ships without its tower, which is that of `clip`, and is put together on the spot.
"""

import contextlib
import logging
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

from schemas.identity import folder_hash

TRAINED = Path(__file__).parent / "trained"
"""Holds a folder, named like its family, of each trained model: weights, configuration, model card."""


_MADE_FROM = "made_from.txt"
"""In a folder that is no mere copy: a hash of the trained weights that it is made of."""


def _trained(family: str) -> Callable[[Path], None]:
    def copy(folder: Path) -> None:
        shutil.copytree(TRAINED / family, folder, dirs_exist_ok=True)

    return copy


def _captioner(folder: Path) -> None:
    from demo.captioner.packing import unpack

    unpack(TRAINED / "captioner", folder)
    (folder / _MADE_FROM).write_text(_sources("captioner"), encoding="utf-8")


FAMILIES: dict[str, Callable[[Path], None]] = {
    "clip": _trained("clip"),
    "tagger": _trained("tagger"),
    "owlv2": _trained("owlv2"),
    "detector": _trained("detector"),
    "depth": _trained("depth"),
    "florence": _trained("florence"),
    "captioner": _captioner,
}


def _sources(family: str) -> str:
    """A hash of the trained weights that a family's folder is made of."""
    parts = ("captioner", "clip") if family == "captioner" else (family,)
    return " ".join(folder_hash(TRAINED / part) for part in parts)


def _is_current(family: str, folder: Path) -> bool:
    mark = folder / _MADE_FROM
    return (mark.read_text(encoding="utf-8") if mark.is_file() else folder_hash(folder)) == _sources(family)


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """The libraries draw a bar for each file."""
    from transformers.utils import logging as transformers_logging

    transformers_logging.disable_progress_bar()
    logging.disable(logging.WARNING)
    try:
        yield
    finally:
        logging.disable(logging.NOTSET)
        transformers_logging.enable_progress_bar()


def make_weights(folder: Path) -> dict[str, Path]:
    """Put the models that are missing under `folder`, each in a folder of its family's name.

    A model appears whole or not at all; two processes may make the same one at once. One that is no longer of the
    weights that ship is replaced.
    """
    folder.mkdir(parents=True, exist_ok=True)
    made = {}
    for family, make in FAMILIES.items():
        made[family] = folder / family
        if made[family].is_dir():
            if _is_current(family, made[family]):
                continue
            shutil.rmtree(made[family])
        draft = Path(tempfile.mkdtemp(prefix=f".{family}.", dir=folder))
        try:
            with _quiet():
                make(draft)
            draft.chmod(0o755)
            try:
                draft.rename(made[family])
            except OSError:
                if not made[family].is_dir():
                    raise
        finally:
            shutil.rmtree(draft, ignore_errors=True)
    return made

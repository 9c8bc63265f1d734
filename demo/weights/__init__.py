"""The demo's models, small ones of the production classes: the same loaders, no downloads.

Those under `trained/` learned the scene world (`python -m demo.train`) and ship with the package. The captioner is made
on the spot with random weights: what it says is noise, but its code paths are real.
"""

import contextlib
import logging
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

from demo.weights import llava
from schemas.identity import folder_hash

TRAINED = Path(__file__).parent / "trained"
"""Holds a folder, named like its family, of each trained model: weights, configuration, model card."""


def _trained(family: str) -> Callable[[Path], None]:
    def copy(folder: Path) -> None:
        shutil.copytree(TRAINED / family, folder, dirs_exist_ok=True)

    return copy


FAMILIES: dict[str, Callable[[Path], None]] = {
    "clip": _trained("clip"),
    "tagger": _trained("tagger"),
    "owlv2": _trained("owlv2"),
    "detector": _trained("detector"),
    "depth": _trained("depth"),
    "florence": _trained("florence"),
    "llava": llava.make,
}


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """The libraries warn that weights are random, and draw a bar for each file; both are known."""
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

    A model appears whole or not at all; two processes may make the same one at once. A copy of a trained model that
    is no longer the one that ships is replaced.
    """
    folder.mkdir(parents=True, exist_ok=True)
    made = {}
    for family, make in FAMILIES.items():
        made[family] = folder / family
        if made[family].is_dir():
            if not (TRAINED / family).is_dir() or folder_hash(made[family]) == folder_hash(TRAINED / family):
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

"""Small random-weight checkpoints of the production classes, made on the spot: the same loaders, no downloads.

What they say is noise. They exist so that every code path of a run with real models runs on a laptop.
"""

import contextlib
import logging
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

from demo.weights import clip, depth, detr, florence, llava, owlv2

FAMILIES: dict[str, Callable[[Path], None]] = {
    "clip": clip.make,
    "owlv2": owlv2.make,
    "detr": detr.make,
    "depth": depth.make,
    "florence": florence.make,
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
    """Make the checkpoints that are missing under `folder`, each in a folder of its family's name.

    A checkpoint appears whole or not at all; two processes may make the same one at once.
    """
    folder.mkdir(parents=True, exist_ok=True)
    made = {}
    for family, make in FAMILIES.items():
        made[family] = folder / family
        if made[family].is_dir():
            continue
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

"""A decoder that crashes: with this folder on PYTHONPATH, opening one certain image kills the process at once.

It stands for the native crashes that real decoders have on some files; nothing of ours can catch it.
"""

import hashlib
import os
import signal

from PIL import Image

POISON = os.environ.get("POISON_SHA256")
_open = Image.open


def _crashing_open(source, *args, **kwargs):  # type: ignore[no-untyped-def]
    if hasattr(source, "getvalue") and hashlib.sha256(source.getvalue()).hexdigest() == POISON:
        os.kill(os.getpid(), signal.SIGKILL)
    return _open(source, *args, **kwargs)


if POISON:
    Image.open = _crashing_open

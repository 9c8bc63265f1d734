"""What the spread tests have done: functions of a module that workers can import."""

import os
import signal

from stages.base import GatherInput


def whose(inputs: GatherInput, item: int) -> tuple[int, int]:
    (inputs.kept / f"{item}.done").touch()
    return item, os.getpid()


def dies_once(inputs: GatherInput, item: int) -> int:
    mark = inputs.kept / "died"
    if item == 3 and not mark.exists():
        mark.touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return item


def always_dies(inputs: GatherInput, item: int) -> int:
    if os.getpid() != int((inputs.kept / "gather").read_text()):
        os.kill(os.getpid(), signal.SIGKILL)
    return item


def refuses(inputs: GatherInput, item: int) -> int:
    raise ValueError(f"item {item} is wrong")

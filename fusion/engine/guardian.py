"""`python -m fusion.engine.guardian -- COMMAND…`: run a command that must not outlive whoever asked for it.

A vLLM server is a tree of processes that hold GPUs, and a killed parent does not take it along. The guardian is a pair:
an outer process, and an inner one that starts the command. The whole tree of the command is killed when
- standard input reaches its end: the caller holds the other end of that pipe and is gone, however it died,
- the guardian is asked to stop (SIGTERM),
- the command's first process ends,
- either of the two is killed outright: orphans are re-parented to the nearest living subreaper, which is the other
  one of the pair, so that none escapes, not even one that made a session of its own.

If both are killed at the same instant, only the command's first process is sure to die. Linux only.
"""

import ctypes
import os
import signal
import subprocess
import sys
import threading
from types import FrameType
from typing import NoReturn

import psutil

GRACE_S = 5.0
_PR_SET_PDEATHSIG, _PR_SET_CHILD_SUBREAPER = 1, 36  # linux/prctl.h
_libc = ctypes.CDLL(None, use_errno=True)


def main(command: list[str]) -> NoReturn:
    """Run `command` to its end and exit with its code (128 + signal where a signal ended it)."""
    _become_subreaper()
    outer = os.getpid()
    inner = os.fork()
    if inner == 0:
        _die_with_parent(outer, signal.SIGTERM)
        _keep(command)
    signal.signal(signal.SIGTERM, lambda *_: os.kill(inner, signal.SIGTERM))
    _, status = os.waitpid(inner, 0)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    _kill_descendants()
    os._exit(_exit_code(os.waitstatus_to_exitcode(status)))


def _keep(command: list[str]) -> NoReturn:
    """The inner process: owns the command."""
    _become_subreaper()
    signal.signal(signal.SIGTERM, _leave)
    code = 128 + signal.SIGTERM
    process = None
    try:
        inner = os.getpid()
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            start_new_session=True,
            preexec_fn=lambda: _die_with_parent(inner, signal.SIGKILL),
        )
        threading.Thread(target=_watch_caller, daemon=True).start()
        code = _exit_code(process.wait())
    except SystemExit:
        pass
    except (OSError, subprocess.SubprocessError) as error:
        print(f"cannot start {command[0]}: {error}", file=sys.stderr, flush=True)
        code = 127
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        if process is not None:
            _end_politely(process)
        _kill_descendants()
        os._exit(code)


def _watch_caller() -> None:
    while os.read(sys.stdin.fileno(), 4096):
        pass
    os.kill(os.getpid(), signal.SIGTERM)


def _leave(_signal: int, _frame: FrameType | None) -> NoReturn:
    raise SystemExit


def _end_politely(process: subprocess.Popen[bytes]) -> None:
    """SIGTERM first: vLLM then gives back its shared memory."""
    process.terminate()
    try:
        process.wait(GRACE_S)
    except subprocess.TimeoutExpired:
        process.kill()


def _kill_descendants() -> None:
    """Kill until none is left: a process may fork while we look."""
    me = psutil.Process()
    while children := me.children(recursive=True):
        for child in children:
            try:
                child.kill()
            except psutil.NoSuchProcess:
                continue
        psutil.wait_procs(children, timeout=1.0)
        _reap()


def _reap() -> None:
    try:
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass
    except ChildProcessError:
        pass


def _become_subreaper() -> None:
    _prctl(_PR_SET_CHILD_SUBREAPER, 1)


def _die_with_parent(parent: int, by: int) -> None:
    """Ask the kernel for signal `by` when `parent` dies; also right if it died before the call."""
    _prctl(_PR_SET_PDEATHSIG, by)
    if os.getppid() != parent:
        os._exit(128 + by)


def _prctl(option: int, value: int) -> None:
    if _libc.prctl(option, value, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "prctl failed")


def _exit_code(code: int) -> int:
    return code if code >= 0 else 128 - code


if __name__ == "__main__":
    if len(sys.argv) < 3 or sys.argv[1] != "--":
        sys.exit("usage: python -m fusion.engine.guardian -- COMMAND…")
    main(sys.argv[2:])

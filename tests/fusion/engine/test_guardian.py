"""Nothing of a guarded command outlives its owner, whoever is killed and however."""

import os
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from fusion.engine import guardian

# A tree of three: the command, a child, and a grandchild that left for a session of its own. Each notes its pid.
TREE = textwrap.dedent("""
    import os, pathlib, signal, subprocess, sys, time
    folder = pathlib.Path(sys.argv[1])
    depth = int(sys.argv[2])
    if "stubborn" in sys.argv:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    if depth:
        command = [sys.executable, "-c", open(folder / "tree.py").read(), str(folder), str(depth - 1), *sys.argv[3:]]
        subprocess.Popen(command, start_new_session=depth == 1)
    (folder / f"pid{depth}.tmp").write_text(str(os.getpid()))
    (folder / f"pid{depth}.tmp").rename(folder / f"pid{depth}")
    time.sleep(1 if "short" in sys.argv and depth == 2 else 1000)
""")
OWNER = textwrap.dedent("""
    import subprocess, sys, time
    process = subprocess.Popen(sys.argv[1:], stdin=subprocess.PIPE)
    print(process.pid, flush=True)
    time.sleep(1000)
""")


class Tree:
    """A guarded tree whose owner is a process that can be killed."""

    def __init__(self, folder: Path, *words: str) -> None:
        (folder / "tree.py").write_text(TREE)
        command = [sys.executable, "-c", TREE, str(folder), "2", *words]
        guarded = [sys.executable, "-P", guardian.__file__, "--", *command]
        self.owner = subprocess.Popen([sys.executable, "-c", OWNER, *guarded], stdout=subprocess.PIPE, text=True)
        try:
            self._meet(folder)
        except BaseException:
            self.owner.kill()
            raise

    def _meet(self, folder: Path) -> None:
        assert self.owner.stdout is not None
        self.outer = psutil.Process(int(self.owner.stdout.readline()))
        pids = [folder / f"pid{depth}" for depth in range(3)]
        _wait(lambda: all(p.exists() for p in pids))
        self.inner = self.outer.children()[0]
        self.members = [psutil.Process(int(p.read_text())) for p in pids]
        assert self.members[0].pid != self.members[2].pid
        assert os.getsid(self.members[0].pid) != os.getsid(self.members[2].pid)

    def gone(self) -> bool:
        everyone = [*self.members, self.outer, self.inner]
        return not any(p.is_running() and p.status() != psutil.STATUS_ZOMBIE for p in everyone)

    def clear(self) -> None:
        for process in (*self.members, self.inner, self.outer):
            if process.is_running():
                process.kill()
        self.owner.kill()
        self.owner.wait()


def _wait(true: Callable[[], bool], seconds: float = 20.0) -> None:
    deadline = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.02)


@pytest.mark.parametrize("victim", ["owner", "outer", "inner", "command"])
@pytest.mark.parametrize("words", [(), ("stubborn",)], ids=["", "ignores SIGTERM"])
def test_whoever_is_killed_the_tree_goes(tmp_path: Path, victim: str, words: tuple[str, ...]) -> None:
    tree = Tree(tmp_path, *words)
    try:
        target = {"owner": tree.owner, "outer": tree.outer, "inner": tree.inner, "command": tree.members[2]}[victim]
        target.send_signal(signal.SIGKILL)
        _wait(tree.gone)
    finally:
        tree.clear()


def test_asked_to_stop_it_takes_the_tree_along(tmp_path: Path) -> None:
    tree = Tree(tmp_path)
    try:
        tree.outer.send_signal(signal.SIGTERM)
        _wait(tree.gone)
    finally:
        tree.clear()


def test_a_command_that_ends_leaves_no_children(tmp_path: Path) -> None:
    tree = Tree(tmp_path, "short")
    try:
        _wait(tree.gone)
    finally:
        tree.clear()


@pytest.mark.parametrize(
    ("code", "wanted"), [("pass", 0), ("raise SystemExit(7)", 7), ("import os; os.kill(os.getpid(), 9)", 137)]
)
def test_the_exit_code_is_the_commands(code: str, wanted: int) -> None:
    command = [sys.executable, "-P", guardian.__file__, "--", sys.executable, "-c", code]
    with subprocess.Popen(command, stdin=subprocess.PIPE) as process:
        assert process.wait(20) == wanted


def test_a_command_that_is_not_there(capfd: pytest.CaptureFixture[str]) -> None:
    command = [sys.executable, "-P", guardian.__file__, "--", "/no/such/program"]
    with subprocess.Popen(command, stdin=subprocess.PIPE) as process:
        assert process.wait(20) == 127
    assert "/no/such/program" in capfd.readouterr().err

"""Whole runs of the demo, in processes of their own, as a user starts them; what is asked of them afterwards."""

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from pipeline.cli import app

SMALL = (
    "world.scenes=20",
    "ingest.shard_rows=24",
    "select.shard_rows=6",
    "download.timeout_s=6",
)


@dataclass(frozen=True)
class Run:
    """One run directory and the command line over it."""

    folder: Path

    def start(
        self, overrides: Sequence[str] = SMALL, env: dict[str, str] | None = None, words: Sequence[str] = ()
    ) -> subprocess.Popen[str]:
        sets = [word for override in overrides for word in ("--set", override)]
        return subprocess.Popen(
            [sys.executable, "-m", "pipeline.cli", "run", "demo", "--run-dir", str(self.folder), *sets, *words],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env={**os.environ, **(env or {})},
        )

    def finish(
        self, overrides: Sequence[str] = SMALL, env: dict[str, str] | None = None, words: Sequence[str] = ()
    ) -> tuple[int, str]:
        """Exit code and everything printed."""
        process = self.start(overrides, env, words)
        printed, _ = process.communicate(timeout=480)
        return process.returncode, printed

    def ask(self, *words: str) -> Any:
        """A command's JSON answer, asked in this process: importing what it takes would take longer than the answer."""
        done = CliRunner().invoke(app, [words[0], str(self.folder), *words[1:], "--json"])
        assert done.stdout, done.exception
        return json.loads(done.stdout)

    def tars(self) -> dict[str, bytes]:
        return {path.name: path.read_bytes() for path in sorted((self.folder / "dataset/data").glob("*.tar"))}

    def attempts(self) -> dict[str, dict[str, str]]:
        """Attempt of every commit, by stage and shard: what was done again has another one."""
        found: dict[str, dict[str, str]] = {}
        for path in sorted(self.folder.glob("*/commits/*.json")):
            found.setdefault(path.parts[-3], {})[path.stem] = json.loads(path.read_text())["attempt"]
        return found


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """An unbroken run."""
    run = Run(tmp_path_factory.mktemp("e2e") / "run")
    code, printed = run.finish()
    assert code == 0, printed
    return run

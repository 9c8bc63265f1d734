"""The README's commands, as they are written, over a finished run. What is marked as not run in CI is left out."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.e2e.conftest import Run

pytestmark = pytest.mark.e2e

README = Path(__file__).parents[2] / "README.md"


def blocks(language: str) -> list[str]:
    """Code blocks whose paragraph before does not say that CI does not run them."""
    parts = re.findall(rf"((?:[^\n]+\n)+)\n```{language}\n(.*?)```", README.read_text(), re.DOTALL)
    return [code for before, code in parts if "not run in CI" not in before]


def adapted(code: str, run: Run, tmp_path: Path) -> str:
    return code.replace("runs/demo", str(run.folder)).replace("/tmp/my-dataset", str(tmp_path / "mine"))


def test_every_shell_command_runs(finished: Run, tmp_path: Path) -> None:
    made, asked = blocks("sh")
    assert {line.split("#")[0].strip() for line in made.splitlines()} == {"make demo", "make test"}
    # `make` sets up the environment that this test runs in; activating it puts its commands on the path.
    lines = [line for line in asked.splitlines() if not line.startswith("source ")]
    assert len(lines) == len(asked.splitlines()) - 1 >= 5
    env = {**os.environ, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
    for line in lines:
        done = subprocess.run(
            ["bash", "-c", adapted(line, finished, tmp_path)], env=env, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, f"{line}\n{done.stdout}{done.stderr}"
        assert done.stdout.strip()
    assert (tmp_path / "mine" / "manifest.json").exists()


def test_the_python_example_prints_samples(finished: Run, tmp_path: Path) -> None:
    [code] = blocks("python")
    done = subprocess.run(
        [sys.executable, "-c", adapted(code, finished, tmp_path)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert len(done.stdout.splitlines()) >= 3
    assert "scene-world.test" in done.stdout

"""What can be said about the Dockerfiles without Docker: they name what exists, and agree with the rest."""

import re
import shlex
import subprocess
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet

from cluster.kuberay import USER

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
FILES = {name: ROOT / "docker" / f"Dockerfile.{name}" for name in ("cpu", "gpu")}


def instructions(file: Path) -> list[tuple[str, str]]:
    """(instruction, arguments) in order, comments out and continued lines joined."""
    lines = [line for line in file.read_text().splitlines() if line.strip() and not line.lstrip().startswith("#")]
    joined = "\n".join(lines).replace("\\\n", " ")
    return [(line.split(None, 1)[0], line.split(None, 1)[1]) for line in joined.splitlines()]


@pytest.fixture(params=FILES)
def image(request: pytest.FixtureRequest) -> str:
    return request.param


def test_copied_files_exist_and_are_all_that_the_wheel_takes(image: str) -> None:
    sources = set()
    stages = {args.split(" AS ")[1] for name, args in instructions(FILES[image]) if name == "FROM" and " AS " in args}
    for name, args in instructions(FILES[image]):
        if name == "COPY":
            words = shlex.split(args)
            if words[0].startswith("--from="):
                assert words[0].removeprefix("--from=") in stages
            else:
                sources |= set(words[:-1])
    assert [source for source in sources if not (ROOT / source).exists()] == []
    wheel = PROJECT["tool"]["hatch"]["build"]["targets"]["wheel"]
    assert {*wheel["packages"], "pyproject.toml", PROJECT["project"]["readme"], "constraints.txt"} == sources


def test_the_extra_exists_and_is_pinned(image: str) -> None:
    (extra,) = re.findall(r"\.whl\)\[(\w+)\]", FILES[image].read_text())
    assert extra == image
    pinned = {
        Requirement(line).name.lower() for line in (ROOT / "constraints.txt").read_text().split("\n") if "==" in line
    }
    wanted = PROJECT["project"]["optional-dependencies"][extra] + PROJECT["project"]["dependencies"]
    assert {Requirement(text).name.lower() for text in wanted} <= pinned
    installs = [args for name, args in instructions(FILES[image]) if name == "RUN" and "pip install" in args]
    assert installs and all("constraints.txt" in args for args in installs)


def test_python_and_build_backend_are_those_of_the_project(image: str) -> None:
    arguments = dict(args.split("=", 1) for name, args in instructions(FILES[image]) if name == "ARG")
    assert SpecifierSet(PROJECT["project"]["requires-python"]).contains(arguments["PYTHON_VERSION"])
    bases = [args.split()[0] for name, args in instructions(FILES[image]) if name == "FROM"]
    assert len(set(bases)) == 1, "a virtual environment only works beside the Python that made it"
    (backend,) = PROJECT["build-system"]["requires"]
    assert backend in (ROOT / "constraints.txt").read_text().split()


def test_the_last_stage_does_not_run_as_root(image: str) -> None:
    steps = instructions(FILES[image])
    last = max(i for i, (name, _) in enumerate(steps) if name == "FROM")
    assert [args for name, args in steps[last:] if name == "USER"] == [str(USER)]
    assert any(f"--uid {USER}" in args for name, args in steps[last:] if name == "RUN")


def test_shell_commands_parse(image: str) -> None:
    for name, args in instructions(FILES[image]):
        if name == "RUN":
            subprocess.run(["sh", "-n", "-c", args], check=True)

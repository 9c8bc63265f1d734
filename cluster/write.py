"""The command line of the manifest generators."""

import argparse
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from cluster.capacity import StageDemand
from cluster.profiles import Profile, stage_demands
from schemas.errors import EXIT_BAD_REQUEST, RequestError

Generator = Callable[[str, Sequence[StageDemand], Profile], dict[str, dict[str, Any]]]


def write_manifests(generate: Generator, config: Path, profile: Path | None, folder: Path) -> list[Path]:
    """Generate the manifests for a configuration file and write them into `folder`.

    Args:
        generate: `manifests` of a generator module.
        config: YAML with the stages' `resources`, such as a run's resolved `run.yaml` or a preset.
        profile: YAML of `cluster.profiles.Profile`; None for its defaults.
        folder: made if missing; files of the same names are replaced.

    Raises:
        RequestError: a file is missing or not what it should be, or a worker does not fit on a node.
    """
    try:
        demands = stage_demands(_read(config))
        settings = Profile.model_validate(_read(profile)) if profile else Profile()
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise RequestError(
            f"{where or 'The file'} of {config if profile is None else profile}: {first['msg']}."
        ) from None
    folder.mkdir(parents=True, exist_ok=True)
    written = []
    for name, manifest in generate(config.stem, demands, settings).items():
        file = folder / name
        file.write_text(render(manifest))
        written.append(file)
    return written


def render(manifest: dict[str, Any]) -> str:
    """YAML in the order of the generator."""

    class _Plain(yaml.SafeDumper):
        def ignore_aliases(self, data: Any) -> bool:
            return True

    return yaml.dump(manifest, Dumper=_Plain, sort_keys=False, width=120)


def _read(file: Path) -> dict[str, Any]:
    try:
        values = yaml.safe_load(file.read_text())
    except (OSError, yaml.YAMLError) as error:
        raise RequestError(f"{file} cannot be read as YAML: {error}") from error
    if not isinstance(values, dict):
        raise RequestError(f"{file} holds no YAML mapping.")
    return values


def main(generate: Generator, description: str | None) -> None:
    """Parse the command line, write the files, print their names."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("config", type=Path, help="YAML with the stages' resources: a run's run.yaml, or a preset")
    parser.add_argument("--profile", type=Path, help="YAML of the cluster's shape (cluster.profiles.Profile)")
    parser.add_argument("--out", type=Path, default=Path("manifests"), help="folder to write to")
    arguments = parser.parse_args()
    try:
        for file in write_manifests(generate, arguments.config, arguments.profile, arguments.out):
            print(file)
    except RequestError as error:
        print(error, file=sys.stderr)
        sys.exit(EXIT_BAD_REQUEST)

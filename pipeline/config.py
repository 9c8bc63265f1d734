"""The configuration of a run: YAML in, one validated object out. Presets ship with the package.

Three things make a configuration, later ones win: a preset or a YAML file (which may `extends:` a preset), `--set`
overrides, and `${run}`, which stands for the run directory in any text value.
"""

from typing import Any

import yaml
from pydantic import Field

from cluster.profiles import NodeGroup
from pipeline.storage import open_storage
from schemas.errors import RequestError
from schemas.section import Section, runtime
from schemas.settings import Shelf, validated
from stages.caption_section import CaptionSection
from stages.cluster import ClusterSection
from stages.dedup import DedupSection
from stages.download import DownloadSection
from stages.embed import EmbedSection
from stages.export import ExportSection
from stages.ingest import IngestSection
from stages.package import PackageSection
from stages.perceive import PerceiveSection
from stages.select import SelectSection

RUN_FILE = "run.yaml"
RUN_VARIABLE = "${run}"
_PRESETS = Shelf("pipeline", "presets", "preset", "caption.max_tokens=96")


class RaySection(Section):
    """Where the work runs."""

    address: str | None = runtime(
        None, description="`auto` or ray://host:port joins a cluster; null starts Ray on this machine"
    )
    cpus: float | None = runtime(None, ge=0, description="CPUs of a Ray started here; null takes the machine's")
    gpus: float | None = runtime(None, ge=0, description="GPUs of a Ray started here; null takes the machine's")
    groups: list[NodeGroup] = runtime(
        [], description="nodes that an autoscaler may add, so that a request for them is not refused at the start"
    )


class RunSection(Section):
    """How the runner goes about its work."""

    retries: int = runtime(2, ge=0, le=20, description="times a shard that raised is tried again before it is failed")
    worker_deaths: int = runtime(
        4, ge=2, le=50, description="times a shard is given to another worker when its worker died, before it is failed"
    )
    no_progress_hours: float = runtime(
        6.0, gt=0, description="hours without one finished shard after which the run stops instead of hanging"
    )
    gallery: int = runtime(
        24, ge=0, le=500, description="samples shown in the report, and half as many more that have findings"
    )


class WorldSection(Section):
    """The demo's own little web; null on real data."""

    scenes: int = Field(160, ge=8, le=100_000, description="distinct scenes to render and serve")
    seed: int = Field(7, ge=0, description="of the scenes and of the web around them")


class Config(Section):
    """Everything a run can be told."""

    name: str = runtime("run", pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$", description="shown in the report and the card")
    notes: list[str] = runtime([], description="known losses and caveats, printed in the report and the dataset card")
    world: WorldSection | None = Field(None, description="serve the demo's scene world during the run")
    ray: RaySection = runtime(RaySection(), description="where the work runs")
    run: RunSection = runtime(RunSection(), description="how the runner goes about its work")
    ingest: IngestSection = Field(description="the metadata to read, and the filters on what it states")
    download: DownloadSection = Field(
        default_factory=DownloadSection, description="how images are fetched, and what is refused"
    )
    embed: EmbedSection = Field(default_factory=EmbedSection, description="the image encoder")
    cluster: ClusterSection = Field(default_factory=ClusterSection, description="spherical k-means over the embeddings")
    dedup: DedupSection = Field(default_factory=DedupSection, description="which images count as copies")
    select: SelectSection = Field(default_factory=SelectSection, description="how many of each cluster are taken")
    perceive: PerceiveSection = Field(default_factory=PerceiveSection, description="the vision experts")
    caption: CaptionSection = Field(description="the fusion MLLM, its prompt and its limits")
    package: PackageSection = Field(PackageSection(), description="how samples are written")
    export: ExportSection = runtime(ExportSection(), description="the dataset's card, and how it is published")


def presets() -> list[str]:
    """Names of the presets that ship with the package."""
    return _PRESETS.names()


def load_config(source: str, overrides: list[str], run_dir: str) -> Config:
    """Configuration from a preset's name or a YAML file, with `key.path=value` overrides.

    Raises:
        RequestError: the file is missing or is not YAML, a key is unknown, a value is out of bounds.
    """
    return parse_config(_substitute(_PRESETS.read(source, overrides), run_dir), source)


def parse_config(values: dict[str, Any], source: str) -> Config:
    return validated(Config, values, source)


def override_config(config: Config, overrides: list[str], run_dir: str) -> Config:
    """The same configuration with `key.path=value` overrides."""
    values = config.model_dump(mode="json")
    for override in overrides:
        _PRESETS.override(values, override)
    return parse_config(_substitute(values, run_dir), "--set")


def save_run(location: str, config: Config) -> None:
    """Write RUN/run.yaml, the resolved configuration that workers read."""
    text = yaml.safe_dump(config.model_dump(mode="json"), sort_keys=False, allow_unicode=True)
    open_storage(location).write(RUN_FILE, text.encode())


def load_run(location: str) -> Config:
    """The resolved configuration of a run directory.

    Raises:
        RequestError: there is no run there.
    """
    try:
        text = open_storage(location).read(RUN_FILE)
    except (FileNotFoundError, NotADirectoryError):
        raise RequestError(
            f"{location} is not a run directory: it has no {RUN_FILE}. "
            "Start one with `densefusion run CONFIG --run-dir DIR`."
        ) from None
    return parse_config(yaml.safe_load(text), f"{location}/{RUN_FILE}")


def _substitute(value: Any, run_dir: str) -> Any:
    if isinstance(value, str) and RUN_VARIABLE in value:
        return value.replace(RUN_VARIABLE, open_storage(run_dir).location)
    if isinstance(value, dict):
        return {key: _substitute(item, run_dir) for key, item in value.items()}
    if isinstance(value, list):
        return [_substitute(item, run_dir) for item in value]
    return value

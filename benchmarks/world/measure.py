"""All figures of one set of scenes."""

import contextlib
import tempfile
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pyarrow as pa

from benchmarks.world.bench import Bench, Pictures, opened, uid_of
from benchmarks.world.curation import curation_figures
from benchmarks.world.perception import (
    Priors,
    closed_set_figures,
    depth_stage_figures,
    florence_figures,
    open_set_figures,
    signs_figures,
    tags_figures,
)
from benchmarks.world.shots import COPIES, Shot, shoot, validation_mean_map
from demo.shapes import CATEGORIES
from demo.weights import make_weights
from experts.base import ExpertSection
from experts.florence import FlorenceSection
from experts.registry import EXPERTS as EXPERT_CLASSES
from pipeline.config import Config, load_config
from pipeline.world import FOLDER
from stages.perceive import PerceiveStage

Say = Callable[[str], None]
_AT_ANY_SCORE = ("open_set", "closed_set")
EXPERTS = ("tags", "open_set", "closed_set", "ocr", "depth", "florence")
"""Those that the figures are of; the configuration may switch off any."""


@dataclass(frozen=True)
class Measured:
    """One set of scenes.

    Attributes:
        figures: by dotted name, as benchmarks.world.curation and .perception say.
        seconds: wall clock of each part.
        models: identity of what decides each stage's output, beside the configuration.
        priors: of the stages as configured, by expert, in the order of `shots`.
    """

    figures: dict[str, float]
    seconds: dict[str, float]
    models: dict[str, dict[str, str]]
    shots: list[Shot]
    priors: dict[str, Priors]

    def without_scenes(self) -> "Measured":
        """The figures alone; the scenes of a set take some 100 MB."""
        return replace(self, shots=[], priors={})


@contextlib.contextmanager
def demo_config(overrides: Sequence[str] = ()) -> Iterator[Config]:
    """The demo's preset with `key.path=value` overrides, its models in place while the context lasts.

    Raises:
        RequestError: an override is wrong.
    """
    with tempfile.TemporaryDirectory() as made:
        weights = Path(made) / FOLDER / "weights"
        config = load_config("demo", list(overrides), made)
        sections = [config.embed, *config.perceive.experts().values()]
        if any(Path(getattr(section, "model", "")).is_relative_to(weights) for section in sections):
            make_weights(weights)
        yield config


def measure(
    config: Config,
    sets: Sequence[Sequence[int]],
    kinds: Collection[str] = tuple(COPIES),
    say: Say = lambda text: None,
) -> Iterator[Measured]:
    """The figures of each set of scene seeds, by the stages as configured; models are loaded once.

    Args:
        sets: seeds, at least ten for every cluster that the configuration asks for.
        kinds: of copies that the first half of the scenes gets, keys of `COPIES`; none leaves out their figures.

    Raises:
        RequestError, SetupError: a model cannot be had.
        ContractError: a stage failed on a picture.
    """
    with opened(config) as bench:
        experts = {name: section for name, section in config.perceive.experts().items() if name in EXPERTS}
        mean = np.empty(0)
        if "depth" in experts:
            say("the mean depth map of validation scenes")
            mean = validation_mean_map()
        say("loading models")
        stages = {name: bench.open(PerceiveStage(name, section)) for name, section in experts.items()}
        for name in _AT_ANY_SCORE:
            if name in experts:
                stages[f"{name} at any score"] = bench.open(PerceiveStage(name, _everything(experts[name])))
        for seeds in sets:
            yield _measure_set(bench, stages, seeds, kinds, mean, say)


def _measure_set(
    bench: Bench,
    stages: dict[str, PerceiveStage],
    seeds: Sequence[int],
    kinds: Collection[str],
    mean: np.ndarray,
    say: Say,
) -> Measured:
    """Args: `mean` is the mean depth map, empty where depth is off."""
    clock = _Clock(say)
    with clock("rendering"):
        shots = [shoot(seed, kinds if i < (len(seeds) + 1) // 2 else ()) for i, seed in enumerate(seeds)]
    with clock("curation"):
        pictures = bench.download({uid_of(shot.truth.seed): shot.picture for shot in shots})
        figures = curation_figures(bench, shots, pictures)
    measured: dict[str, Priors] = {}
    priors: dict[str, Priors] = {}
    for name in EXPERTS:
        if name in stages:
            with clock(name):
                tables = {f"perceive.{one}": _table(one, pictures, rows) for one, rows in measured.items()}
                measured[name] = bench.perceive(stages[name], pictures, tables)
                priors[name] = _decided(stages[name], measured[name], priors)
    unfiltered: dict[str, Priors] = {}
    with clock("boxes at any score"):
        if "closed_set" in priors:
            unfiltered["closed_set"] = bench.perceive(stages["closed_set at any score"], pictures)
        if "open_set" in priors:
            stage = stages["open_set at any score"]
            every = [{"tag": name, "score": 1.0, "threshold": None} for name in CATEGORIES]
            named = [{"tags": every}] * len(shots)
            for name, asked, given in (("open_set", measured["tags"], priors["tags"]), ("named", named, named)):
                rows = bench.perceive(stage, pictures, {"perceive.tags": _table("tags", pictures, asked)})
                unfiltered[name] = _decided(stage, rows, {"tags": given})
    if "tags" in priors:
        figures |= tags_figures(shots, priors["tags"])
    if "closed_set" in priors:
        figures |= closed_set_figures(shots, priors["closed_set"], unfiltered["closed_set"])
    if "open_set" in priors:
        figures |= open_set_figures(shots, priors["open_set"], unfiltered["open_set"], unfiltered["named"])
    if "depth" in priors:
        figures |= depth_stage_figures(shots, priors["depth"], mean)
    if "ocr" in priors:
        figures |= signs_figures(shots, priors["ocr"])
    if "florence" in priors:
        section = bench.config.perceive.experts()["florence"]
        assert isinstance(section, FlorenceSection)
        figures |= florence_figures(shots, priors["florence"], section)
    return Measured(figures, clock.seconds, bench.models, shots, priors)


def _everything(section: ExpertSection) -> ExpertSection:
    """A detector's section that stores and shows boxes of any score."""
    return section.model_copy(update={"floor": 0.0, "keep": 10_000, "threshold": 0.0})


def _decided(stage: PerceiveStage, rows: Priors, before: Mapping[str, Priors]) -> Priors:
    """What a stage's rows say at its section's thresholds, given what the experts before it say."""
    expert = EXPERT_CLASSES[stage.name.removeprefix("perceive.")](stage.config)
    return [expert.decide(row, {name: said[i] for name, said in before.items()}) for i, row in enumerate(rows)]


def _table(expert: str, pictures: Pictures, priors: Priors) -> pa.Table:
    """What the expert's stage would have committed."""
    uids = pictures.rows["uid"].to_pylist()
    rows = [{**prior, "uid": uid, "error": None} for uid, prior in zip(uids, priors, strict=True)]
    return pa.Table.from_pylist(rows, schema=EXPERT_CLASSES[expert].schema)


class _Clock:
    """Says what begins, and keeps how long it took."""

    def __init__(self, say: Say) -> None:
        self.seconds: dict[str, float] = {}
        self._say = say

    @contextlib.contextmanager
    def __call__(self, part: str) -> Iterator[None]:
        self._say(part)
        start = time.perf_counter()
        yield
        self.seconds[part] = time.perf_counter() - start

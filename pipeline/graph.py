"""The graph: the stages a configuration asks for, in order. A new stage is one line here and one config section."""

from collections.abc import Iterator

from pipeline.config import Config
from stages.base import GatherStage, Stage
from stages.caption import CaptionStage
from stages.cluster import ClusterStage
from stages.dedup import DedupStage
from stages.download import DownloadStage
from stages.embed import EmbedStage
from stages.ingest import IngestStage
from stages.package import PackageStage
from stages.perceive import PerceiveStage
from stages.priors import DecidedPriors
from stages.select import SelectStage


def build_stages(config: Config) -> list[Stage]:
    """Every stage of a run, upstream first. Cheap: nothing is read."""
    experts = config.perceive.experts()
    priors = DecidedPriors(config.perceive)
    embed, caption = EmbedStage(config.embed), CaptionStage(config.caption, priors)
    perceive = [PerceiveStage(name, section) for name, section in experts.items()]
    scores = [stage for stage in perceive if stage.rows_from == "dedup"]

    def provenance() -> dict[str, str]:
        looked = {stage.name: ", ".join(sorted(stage.identity.values())) for stage in (embed, *perceive)}
        return looked | caption.identity

    return [
        IngestStage(config.ingest),
        DownloadStage(config.download),
        embed,
        ClusterStage(config.cluster),
        DedupStage(config.dedup),
        *scores,
        SelectStage(config.select, tuple(config.perceive.experts("dedup"))),
        *(stage for stage in perceive if stage not in scores),
        caption,
        PackageStage(config.package, priors, provenance),
    ]


def segments(stages: list[Stage]) -> Iterator[list[Stage]]:
    """Consecutive map stages together, because they stream; each gather alone: it needs everything before it."""
    run: list[Stage] = []
    for stage in stages:
        if isinstance(stage, GatherStage):
            if run:
                yield run
            yield [stage]
            run = []
        else:
            run.append(stage)
    if run:
        yield run


def shards_come_from(stages: list[Stage], stage: Stage) -> str | None:
    """The gather whose shards a map stage works on: `ingest` before `dedup`, then `dedup`, `select` after it."""
    by_name = {s.name: s for s in stages}
    while stage.rows_from is not None:
        stage = by_name[stage.rows_from]
        if isinstance(stage, GatherStage):
            return stage.name
    return None

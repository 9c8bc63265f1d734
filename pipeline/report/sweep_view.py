"""What other thresholds would remove, as a chart and a table."""

from collections.abc import Sequence
from dataclasses import dataclass

from pipeline.report.charts import Chart, chart
from pipeline.sample import Sample
from pipeline.sweep import Point, sweep
from stages.dedup import DedupSection


@dataclass(frozen=True)
class SweepView:
    """What each threshold would remove of the sample.

    Attributes:
        points: at each threshold, one for each rule.
        own: the run's threshold.
    """

    points: dict[float, list[Point]]
    own: float | None
    chart: Chart
    rows: int
    clusters: int
    too_large: int


def sweep_view(sample: Sample, config: DedupSection, epsilons: Sequence[float]) -> SweepView:
    points = sweep(sample, config, epsilons)
    lines: dict[str, list[float]] = {}
    for point in points:
        lines.setdefault(point.rule, []).append(point.share)
    by_epsilon = {e: [p for p in points if p.epsilon == e] for e in epsilons}
    own = config.epsilon or None
    return SweepView(by_epsilon, own, chart(lines, epsilons, own), points[0].rows, sample.clusters, sample.too_large)

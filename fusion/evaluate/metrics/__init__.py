"""Metrics of captions against truth: pure functions from the claims of one caption to tallies; one idea a file."""

from collections.abc import Callable

from fusion.evaluate.claims import Claims
from fusion.evaluate.metrics.attributes import attributes
from fusion.evaluate.metrics.counts import counts
from fusion.evaluate.metrics.objects import objects
from fusion.evaluate.metrics.relations import relations
from fusion.evaluate.metrics.repeated import false_boxes, false_claims
from fusion.evaluate.metrics.written import written
from fusion.evaluate.tally import Tally
from fusion.evaluate.truth import TruthRow

METRICS: tuple[Callable[[Claims, TruthRow], dict[str, Tally]], ...] = (
    objects,
    attributes,
    counts,
    relations,
    written,
    false_claims,
    false_boxes,
)
LESS_IS_BETTER = frozenset({"false_claims_repeated", "false_boxes_repeated"})


def measure(claims: Claims, truth: TruthRow) -> dict[str, Tally]:
    """Every metric of one caption, by name."""
    return {name: tally for metric in METRICS for name, tally in metric(claims, truth).items()}

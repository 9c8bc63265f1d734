"""What a rule of dedup removes for good."""

from benchmarks.curation.figure import Figure
from stages.curate.semantic.rules import Rule


def losses(rule: Rule, near: str, where: str, removed: int, alone: int, lost: int, distinct: int) -> list[Figure]:
    """Only `greedy` promises that there are none.

    Args:
        near: what a kept row beside a removed one is called.
        removed: rows that went.
        alone: of these, rows with no kept one above the threshold.
        lost: of these, planted distinct images.
        distinct: planted distinct images in all.
    """
    promised = rule == "greedy"
    target = 0 if promised else None
    return [
        Figure(
            f"removed rows without a kept {near}, rule {rule}, {where}",
            alone,
            target,
            at_most=True,
            exact=promised,
            note=f"{100 * alone / max(1, removed):.1f} % of {removed:,} removed",
        ),
        Figure(
            f"planted distinct images lost, rule {rule}, {where}",
            lost,
            target,
            at_most=True,
            exact=promised,
            note=f"of {distinct:,}",
        ),
    ]

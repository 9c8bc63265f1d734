"""What the checks found in a run's captions, by kind.

`caption` counts it, shard by shard, into its metrics; the report and the dataset card show what the sums come to.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from fusion.checks import FindingKind
from schemas.summary import RunSummary
from stages.caption_talk import Judged

_STEPS = ("first", "last", "kept")


@dataclass(frozen=True)
class FoundKind:
    """Captions that have a finding of one kind, or of any.

    Attributes:
        kind: None is any.
        first: of the first answers.
        last: of those that stand: where a row was asked again, the better one.
        kept: of these, what the policy did not reject.
    """

    kind: FindingKind | None
    first: int
    last: int
    kept: int

    @property
    def name(self) -> str:
        return str(self.kind or "any finding")

    @property
    def counts(self) -> tuple[int, int, int]:
        return self.first, self.last, self.kept


@dataclass(frozen=True)
class FindingsTable:
    """A run's findings.

    Attributes:
        any_kind: captions with any finding.
        kinds: those that were found at all, the most frequent first.
        checked: captions that were judged.
        kept: of these, what the policy did not reject.
        first, last: findings a caption, before the repairs and after.
        asked_again: rows whose findings were given back to the model.
    """

    any_kind: FoundKind
    kinds: tuple[FoundKind, ...]
    checked: int
    kept: int
    first: float
    last: float
    asked_again: int

    @property
    def rows(self) -> tuple[FoundKind, ...]:
        """As they are shown: kind by kind, then any."""
        return (*self.kinds, self.any_kind)


def findings_metrics(judged: Sequence[Judged], kept: Sequence[Judged]) -> dict[str, float]:
    """What `findings_table` needs of one shard: sums, so that those of shards add up.

    Args:
        kept: those of them that the policy did not reject.
    """
    first = [one.repair.first if one.repair is not None else one for one in judged]
    steps = dict(zip(_STEPS, (first, judged, kept), strict=True))
    counts = Counter({"captions_checked": len(judged), "captions_kept": len(kept)})
    for step, captions in steps.items():
        counts[f"findings_{step}"] = sum(len(one.findings) for one in captions)
        counts[f"faulty_{step}"] = sum(bool(one.findings) for one in captions)
        counts.update(f"{kind}_{step}" for one in captions for kind in one.kinds())
    return {name: float(count) for name, count in counts.items()}


def findings_table(run: RunSummary) -> FindingsTable | None:
    """None where no caption was checked."""
    metrics = run.metrics_of("caption")
    checked = int(metrics.get("captions_checked", 0))
    if not checked:
        return None

    def found(kind: FindingKind | None) -> FoundKind:
        return FoundKind(kind, *(int(metrics.get(f"{kind or 'faulty'}_{step}", 0)) for step in _STEPS))

    kinds = [one for one in map(found, FindingKind) if any(one.counts)]
    return FindingsTable(
        any_kind=found(None),
        kinds=tuple(sorted(kinds, key=lambda one: one.counts, reverse=True)),
        checked=checked,
        kept=int(metrics["captions_kept"]),
        first=metrics["findings_first"] / checked,
        last=metrics["findings_last"] / checked,
        asked_again=int(metrics["repairs_asked"]),
    )

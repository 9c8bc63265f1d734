"""The `dedup` section of a configuration."""

from typing import Literal

from pydantic import Field

from schemas.section import StageSection, runtime
from stages.curate.semantic.border import Border
from stages.curate.semantic.rules import Rule


class DedupSection(StageSection):
    """What counts as a duplicate, and which row of a group stays."""

    exact: bool = Field(True, description="drop images whose original bytes are equal (sha256)")
    hamming: int | None = Field(
        4,
        ge=0,
        le=16,
        description="drop images whose 64-bit perceptual hashes differ in at most this many bits; null does not look. "
        "The paper has no such step. Photographs re-encoded at quality 30 or scaled to a third mostly stay within 4 "
        "bits (tests/stages/test_dedup_photographs.py), where different ones lie 20 and more apart; faces in one pose "
        "and flat pictures can lie nearer. Cropped, framed and mirrored copies are not found",
    )
    epsilon: float | None = Field(
        0.4,
        ge=0,
        le=1,
        description="drop rows of cosine above 1 - epsilon; null does not look. 0.4 is the paper's (DenseFusion "
        "section 3.1); SemDeDup's own range is 0.001 to 0.03",
    )
    rule: Rule = Field(
        "greedy",
        description="greedy compares with kept rows only, so that whatever goes has a kept row that resembles it; "
        "semdedup compares with every earlier row, also with dropped ones, as SemDeDup's released code does, and of a "
        "series that drifts in small steps leaves the first; components leaves one row of all that hangs together",
    )
    keep: Literal["hard", "easy", "random", "resolution", "aesthetic"] = Field(
        "hard",
        description="which row of a group stays: hard is the farthest from its centroid (SemDeDup's default; the paper "
        "does not say), easy the closest, random a seeded draw, resolution the one of most pixels, aesthetic the one "
        "whose source states the best score, those without one last; ties go by uid",
    )
    seed: int = Field(1234, ge=0, lt=2**31, description="of keep: random, and of the sample for recall")
    border: Border = Field(
        "margin",
        description="compare rows in further clusters too: none stays inside clusters, as SemDeDup does; margin "
        "takes those of cluster.neighbours to whose border a row is nearer than border_margin; exact takes all in "
        "which a copy can lie, so that none is missed: an audit, which costs as much as comparing everything where "
        "clusters are small",
    )
    border_margin: float = Field(
        0.16,
        ge=0,
        le=1,
        description="of border: margin, in parts of the distance beyond which no copy can lie, sin(acos(1 - epsilon)); "
        "0.16 is 0.05 at a cosine of 0.95, where benchmarks/curation measures what it finds and costs",
    )
    centring: bool = Field(
        False,
        description="subtract the mean of all vectors before they are compared, so that what all images share does "
        "not count; epsilon then means something else, and distances to borders are still those of the clusters",
    )
    recall_sample: int = runtime(
        1000,
        ge=0,
        description="rows that are held against all others to estimate what the search missed; the result is in the "
        "metrics. 0 does not look",
    )
    memory_mb: int = runtime(
        100, ge=16, description="memory of one comparison beyond the vectors of its cluster, which stay on disk"
    )

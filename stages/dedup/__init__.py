"""`dedup`: exact, perceptual and semantic duplicates; what stays, what goes, and because of which row."""

from stages.dedup.section import DedupSection
from stages.dedup.stage import DedupStage

__all__ = ["DedupSection", "DedupStage"]

"""What a caption says against what the experts saw: pure functions from a caption to findings, one check a file.

A finding measures, it decides nothing: `caption.reject_on` and `caption.repair_on` say what follows from it.
docs/checks.md says what each check sees and what it cannot see.
"""

from fusion.checks.case import Caption
from fusion.checks.finding import Finding, FindingKind, faultiness
from fusion.checks.registry import CHECKS, check
from fusion.checks.section import ChecksSection

__all__ = ["CHECKS", "Caption", "ChecksSection", "Finding", "FindingKind", "check", "faultiness"]

"""Chosen experts switched on, with settings."""

from typing import Any

from experts.registry import EXPERTS
from stages.perceive import PerceiveSection
from stages.priors import DecidedPriors


def section_of(**settings: dict[str, Any]) -> PerceiveSection:
    """A section in which only the named experts look."""
    return PerceiveSection.model_validate(dict.fromkeys(EXPERTS) | settings)


def looking(*experts: str) -> DecidedPriors:
    """The named experts with their default settings."""
    return DecidedPriors(section_of(**{name: {} for name in experts}))

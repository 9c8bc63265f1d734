"""The experts by name. Adding one is its file and one line here, and a field in stages.perceive.PerceiveSection."""

from experts.base import Expert
from experts.closed_set import ClosedSet
from experts.depth import Depth
from experts.florence import Florence
from experts.ocr import Ocr
from experts.open_set import OpenSet
from experts.tags import Tags

# An expert comes after those it needs.
EXPERTS: dict[str, type[Expert]] = {expert.name: expert for expert in (Tags, OpenSet, ClosedSet, Ocr, Depth, Florence)}

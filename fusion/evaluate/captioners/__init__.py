"""Where captions come from, one source a file."""

from pathlib import Path

from fusion.evaluate.captioners.base import Captioned, Captioner
from fusion.evaluate.captioners.checkpoint import CaptionsOfCheckpoint
from fusion.evaluate.captioners.engine import CaptionsOfEngine
from fusion.evaluate.captioners.file import CaptionsOfFile
from fusion.evaluate.captioners.priors import CopiedNotes
from fusion.evaluate.section import CaptionerSection, CheckpointCaptioner, EngineCaptioner, FileCaptioner
from fusion.prompt import PromptSection


def captioner_of(section: CaptionerSection, prompt: PromptSection, images: Path) -> Captioner:
    """The captioner of a section. Raises RequestError for a prompt template that is none."""
    if isinstance(section, FileCaptioner):
        return CaptionsOfFile(section)
    if isinstance(section, EngineCaptioner):
        return CaptionsOfEngine(section, prompt, images)
    if isinstance(section, CheckpointCaptioner):
        return CaptionsOfCheckpoint(section, prompt, images)
    return CopiedNotes(section, prompt)


__all__ = ["Captioned", "Captioner", "captioner_of"]

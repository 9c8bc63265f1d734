"""Whether a picture bears a watermark."""

from experts.score import ScoreExpert
from experts.scorers.base import ScoreSection
from schemas.section import located


class WatermarkSection(ScoreSection):
    """Watermark score."""

    model: str = located("amrul-hzz/watermark_detector", description=ScoreSection.model_fields["model"].description)


class Watermark(ScoreExpert):
    """Probability of a watermark, 0 to 1. LAION's own detector is in experts.scorers.base."""

    name = "watermark"
    version = 1
    section = WatermarkSection
    about = "probability of a watermark: select can limit it"

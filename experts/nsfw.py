"""Whether a picture is unsafe for work."""

from experts.score import ScoreExpert
from experts.scorers.base import ScoreSection
from schemas.section import located


class NsfwSection(ScoreSection):
    """NSFW score."""

    model: str = located("Falconsai/nsfw_image_detection", description=ScoreSection.model_fields["model"].description)


class Nsfw(ScoreExpert):
    """Probability of the class `nsfw`, 0 to 1; 1 is unsafe. LAION's own head is in experts.scorers.base."""

    name = "nsfw"
    version = 1
    section = NsfwSection
    about = "probability of what is unsafe for work: select can limit it"

"""How much people like a picture on average."""

from typing import Literal

from pydantic import Field

from experts.score import ScoreExpert
from experts.scorers.base import ScoreSection
from schemas.section import located


class AestheticSection(ScoreSection):
    """Aesthetic score."""

    family: Literal["clip_head", "transformers", "timm"] = Field(
        "clip_head", description=ScoreSection.model_fields["family"].description
    )
    model: str = located("ViT-L-14-quickgelu", description=ScoreSection.model_fields["model"].description)
    pretrained: str | None = located("openai", description=ScoreSection.model_fields["pretrained"].description)
    weights: str | None = located(
        "trl-lib/ddpo-aesthetic-predictor/aesthetic-model.pth",
        description=f"{ScoreSection.model_fields['weights'].description}. The default is a copy on the hub of LAION's "
        "improved predictor, sac+logos+ava1-l14-linearMSE.pth",
    )


class Aesthetic(ScoreExpert):
    """LAION's improved aesthetic predictor by default, a regression of ratings from 1 to 10."""

    name = "aesthetic"
    version = 1
    section = AestheticSection
    about = "aesthetic score, about 1 to 10 by LAION's heads: select can limit and rank by it"
    probability = False

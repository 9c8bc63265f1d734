"""The rows of one shard as `caption` sees them: alt text, priors, image."""

from fusion.notes import Cut
from fusion.priors import Priors
from stages.base import ShardInput, align
from stages.priors import DecidedPriors


class CaptionRows:
    """The selected rows of one shard; measured priors and images are taken out one row at a time, a shard's worth is
    large.

    Attributes:
        cuts: what the budget took of the prompts that were made so far, by row.
    """

    def __init__(self, shard: ShardInput, priors: DecidedPriors) -> None:
        chosen = shard.tables["select"]
        self.shard = shard.shard
        self.uids: list[str] = chosen.column("uid").to_pylist()
        self.urls: list[str] = chosen.column("url").to_pylist()
        self.sha256: list[str] = chosen.column("sha256").to_pylist()
        self.alt_texts: list[str | None] = chosen.column("alt_text").to_pylist()
        self.priors = {expert: align(shard.tables[f"perceive.{expert}"], self.uids) for expert in priors.experts}
        self.cuts: dict[int, Cut] = {}
        self._decide = priors
        self._decided: dict[int, Priors] = {}
        self._images = shard.images
        self._places = chosen.select(["image_shard", "image_offset", "image_bytes"])

    def image(self, i: int) -> bytes:
        place = self._places.slice(i, 1).to_pylist()[0]
        return self._images.read(place["image_shard"], place["image_offset"], place["image_bytes"])

    def priors_of(self, i: int) -> Priors:
        if i not in self._decided:
            measured = {expert: table.slice(i, 1).to_pylist()[0] for expert, table in self.priors.items()}
            self._decided[i] = Priors.of(self._decide.of(measured))
        return self._decided[i]

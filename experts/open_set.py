"""Open-set boxes: a detector that is asked about the image's own tags.

The paper asks OWL-ViT v2 about the tagger's tags (DenseFusion, section 3.2.1) and states no threshold. Threshold,
prompt prefix, NMS and cap are those of MG-LLaVA's box generation (bbox_generation/image_offline_to_bbox.py,
module/chat_utils.py), the published pipeline of the same tagger and detector. Two things differ from it: boxes are cut
to the image before NMS, and corners stay fractions where MG-LLaVA rounds them down to whole pixels.
"""

import json
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from experts.base import Context, Expert, Pixels, Prior
from experts.boxes import best_of_each, best_per_label, boxes_of, measured_rows, scores_of, suppress
from experts.open_set_detectors.base import OpenDetector, OpenSetSection, Scored
from experts.open_set_detectors.grounding_dino import GroundingDinoDetector
from experts.open_set_detectors.owlv2 import Owlv2Detector
from schemas.errors import RequestError
from schemas.tables import BOXES_PRIOR

FAMILIES: dict[str, type[OpenDetector]] = {"owlv2": Owlv2Detector, "grounding_dino": GroundingDinoDetector}


class OpenSet(Expert):
    """Asks about every tag that was measured; which of them count is decided with the tags.

    OWLv2 scores each tag on its own, so that deciding over what many tags measured gives the boxes that asking about
    the decided tags alone would have given. Grounding DINO reads the tags together: there it is a filter.
    """

    name = "open_set"
    version = 2
    schema = BOXES_PRIOR
    section = OpenSetSection
    about = "boxes of the tags, by an open-set detector"
    on = True
    config: OpenSetSection

    def __init__(self, config: OpenSetSection) -> None:
        super().__init__(config)
        self._detector = FAMILIES[config.family](config)

    @property
    def needs(self) -> tuple[str, ...]:
        return ("tags",)

    def models(self) -> dict[str, str]:
        identity = super().models()
        self._check_family()
        return identity

    def _check_family(self) -> None:
        kind = _model_type(Path(self.config.model))
        for name, family in FAMILIES.items():
            if kind in family.model_types and name != self.config.family:
                raise RequestError(
                    f"perceive.open_set.model: {self.config.model} holds a model of type {kind}, which is of family "
                    f"{name}. Set perceive.open_set.family to {name}, or give a model of family {self.config.family}."
                )

    def open(self, device: str) -> None:
        self._detector.open(device)

    def least(self) -> tuple[int, int] | None:
        return self._detector.least()

    def prepare(self, image: Image.Image) -> Pixels:
        return self._detector.prepare(image)

    def bucket(self, prepared: Pixels) -> tuple[int, ...]:
        return tuple(prepared.values.shape)

    def look(self, prepared: list[Pixels], contexts: list[Context]) -> list[tuple[list[str], Scored]]:
        tags = [self._asked(context) for context in contexts]
        return list(zip(tags, self._detector.look(prepared, tags), strict=True))

    def finish(self, looked: tuple[list[str], Scored]) -> Prior:
        tags, found = looked
        return {"boxes": measured_rows(tags, found.tags, found.scores, found.boxes, found.anchors, self.config.keep)}

    def _asked(self, context: Context) -> list[str]:
        """The best tags, each once."""
        return list(dict.fromkeys(_tags(context)))[: self.config.max_queries]

    def decide(self, measured: Prior, context: Context) -> Prior:
        """Boxes of the decided tags: each box under its best tag, above the threshold, after NMS and the cap.

        Args:
            context: `tags` is the tags' decided row. Of equal scores the tag that comes first there wins.
        """
        places = {tag: place for place, tag in reversed(list(enumerate(_tags(context))))}
        rows = [row for row in measured["boxes"] if row["label"] in places]
        labels, scores = np.array([places[row["label"]] for row in rows], dtype=np.int64), scores_of(rows)
        best = best_of_each(np.array([row["anchor"] for row in rows], dtype=np.int64), scores, labels)
        chosen = np.flatnonzero(best & (scores > self.config.threshold))
        chosen = chosen[suppress(boxes_of(rows)[chosen], scores[chosen], labels[chosen], self.config.nms_iou)]
        if len(chosen) > self.config.cap_above:
            chosen = chosen[self._capped(labels[chosen])]
        return measured | {"boxes": [rows[i] for i in chosen.tolist()]}

    def _capped(self, labels: np.ndarray) -> np.ndarray:
        """Positions kept of boxes ordered best first."""
        if self.config.cap == "hard":
            return np.arange(self.config.cap_above)
        return best_per_label(labels, self.config.cap_per_label)

    def close(self) -> None:
        self._detector.close()


def _tags(context: Context) -> list[str]:
    return [tag["tag"] for tag in context["tags"]["tags"]]


def _model_type(folder: Path) -> Any:
    """What config.json of a local folder says it is; None where that is not to be had, which `open` reports."""
    try:
        return json.loads((folder / "config.json").read_text()).get("model_type")
    except (OSError, ValueError, AttributeError):
        return None

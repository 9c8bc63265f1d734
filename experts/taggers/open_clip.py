"""Zero-shot tags: an open_clip model's image embedding against those of a list of labels."""

import hashlib
from pathlib import Path
from typing import Any

from experts.base import compiled, loading
from experts.open_clip_model import CONFIG_FILE, load_open_clip, open_clip_name
from experts.taggers.base import Tagger
from schemas.errors import RequestError

DEFAULT_LABELS = Path(__file__).parents[1] / "data" / "labels.txt"


class OpenClipTagger(Tagger):
    """Image against label embeddings."""

    config_file = CONFIG_FILE
    threshold = 0.01

    def listed(self) -> list[str]:
        """The labels in order, stripped, each once. Raises RequestError."""
        given = self.config.labels
        if isinstance(given, tuple):
            lines = list(given)
        else:
            path = Path(given) if given else DEFAULT_LABELS
            try:
                lines = path.read_text(encoding="utf-8").splitlines()
            except (OSError, UnicodeDecodeError) as error:
                raise RequestError(
                    f"perceive.tags.labels: {path} cannot be read as UTF-8 text ({error}). "
                    "Give a text file with one label a line, or the labels themselves."
                ) from error
        labels = list(dict.fromkeys(line.strip() for line in lines if line.strip()))
        if not labels:
            raise RequestError("perceive.tags.labels holds no label. Give at least one, or null for our own list.")
        return labels

    def models(self) -> dict[str, str]:
        listed = "\n".join(self.listed()).encode()
        return {"labels": f"sha256:{hashlib.sha256(listed).hexdigest()}"}

    def open(self, device: str) -> None:
        import open_clip
        import torch

        self.labels = self.listed()
        with loading("tags", self.config):
            name = open_clip_name(self.config)
            self._model, self.transform = load_open_clip(name, device, self.config.precision)
            self._encode = compiled(self._model.encode_image, self.config)
            tokens = open_clip.get_tokenizer(name)([self.config.template.format(label) for label in self.labels])
            with torch.inference_mode():
                chunks = [self._model.encode_text(part.to(device), normalize=True) for part in tokens.split(256)]
        self._text = torch.cat(chunks).float()

    def scores(self, pixels: Any) -> Any:
        cosine = self._encode(pixels, normalize=True).float() @ self._text.T
        if self.config.score == "cosine":
            return cosine
        return (cosine * self._model.logit_scale.exp().float()).softmax(dim=-1)

    def close(self) -> None:
        self._model = self._text = None

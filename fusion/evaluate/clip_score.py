"""CLIP score: how near a caption is to its picture for a CLIP model. It needs no truth.

Source: Hessel et al., CLIPScore (arXiv 2104.08718), section 3: 2.5 * max(cos(image, caption), 0), the caption behind
the words "A photo depicts". CLIP reads a fixed number of tokens (77 in OpenAI's), so of a
longer caption only the beginning counts.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from fusion.evaluate.section import ClipSection
from schemas.errors import RequestError, SetupError
from schemas.pictures import decode_rgb

WEIGHT = 2.5
PREFIX = "A photo depicts "


class ClipScore:
    """An open_clip model, loaded. Raises SetupError where it does not load."""

    def __init__(self, section: ClipSection) -> None:
        import open_clip

        self._section = section
        name = section.model
        if Path(name).is_dir():
            name = f"local-dir:{name}"
        elif "/" in name:
            name = f"hf-hub:{name}"
        elif section.pretrained is None:
            raise RequestError(
                f"clip.model {name} is one of open_clip's own names, so clip.pretrained must name its weights (such as "
                "openai); or give a folder or a hub id."
            )
        try:
            self._model, self._transform = open_clip.create_model_from_pretrained(
                name, pretrained=section.pretrained, device=section.device
            )
            self._tokens = open_clip.get_tokenizer(name)
        except Exception as error:  # the libraries raise many kinds
            words = " ".join(str(error).split())[:400]
            raise SetupError(f"The CLIP model {section.model} does not load: {words}") from error
        self._model.eval()

    def scores(self, files: Sequence[Path], captions: Sequence[str]) -> list[float]:
        """One for each picture and its caption, 0 to 2.5; 0 where the caption is empty.

        Raises:
            RequestError: a picture does not decode.
        """
        out: list[float] = []
        size = self._section.batch_size
        for start in range(0, len(files), size):
            out += self._some(files[start : start + size], captions[start : start + size])
        return out

    def _some(self, files: Sequence[Path], captions: Sequence[str]) -> list[float]:
        import torch

        device = self._section.device
        pictures = torch.stack([self._transform(_picture(file)) for file in files]).to(device)
        tokens = self._tokens([PREFIX + caption for caption in captions]).to(device)
        with torch.inference_mode():
            images = self._model.encode_image(pictures, normalize=True)
            texts = self._model.encode_text(tokens, normalize=True)
            cosines = (images * texts).sum(dim=-1).clamp(min=0).tolist()
        return [WEIGHT * one if caption.strip() else 0.0 for one, caption in zip(cosines, captions, strict=True)]


def _picture(file: Path) -> Any:
    try:
        return decode_rgb(file.read_bytes())
    except ValueError as error:
        raise RequestError(f"The picture {file} does not decode: {error}.") from None

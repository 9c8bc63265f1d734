"""Tags of RAM++ (DenseFusion's tagger, section 3.2.1), or of any tags that a user describes in sentences.

The checkpoint is the authors' own; it does not hold the names of its tags nor their thresholds, which are two text
files of theirs. Tags that it was not trained on are described as `generate_tag_des_llm.py` of
github.com/xinyu1205/recognize-anything does, and embedded as its `ram/utils/openset_utils.py` does.
"""

import hashlib
import json
import textwrap
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from experts.base import compiled, loading, torch_dtype
from experts.open_clip_model import load_open_clip, open_clip_identity, open_clip_name
from experts.taggers.base import Tagger
from schemas.errors import RequestError, SetupError
from schemas.section import ModelRef

CHECKPOINT_FILE = "ram_plus_swin_large_14m.pth"
LABELS_FILE = "ram_tag_list.txt"
THRESHOLDS_FILE = "ram_tag_list_threshold.txt"
OPEN_SET_THRESHOLD = 0.5
"""Of tags that RAM++ was not trained on (`inference_ram_plus_openset.py`)."""
TEMPLATE = "a photo of a {}."
"""The first description of every tag (`generate_tag_des_llm.py`)."""
OPENAI = "openai"
"""Weights of CLIP models that go by a name of open_clip's."""
_MEAN, _STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
_TEXTS_AT_ONCE = 256
_SOURCE = "ram/data of github.com/xinyu1205/recognize-anything"


class RamPlusTagger(Tagger):
    """Sigmoid of every tag's logit."""

    config_file = CHECKPOINT_FILE
    # Of the constructor in ram/models/ram_plus.py; never the last word, as every tag has a threshold of its own.
    threshold = 0.68

    def models(self) -> dict[str, str]:
        """The tags, or the descriptions and what embeds them, and the thresholds."""
        self._local_checkpoint()
        described = self.described()
        if described is None:
            labels = self.listed()
            known = {"labels": _sha256(labels)}
        else:
            labels = list(described)
            known = {"descriptions": _sha256([json.dumps(described)]), "text_model": self._text_identity()}
        return known | {"thresholds": _sha256([repr(value) for value in self.lowest(labels).tolist()])}

    def open(self, device: str) -> None:
        from experts.taggers.ram_plus_model import load_ram_plus

        described = self.described()
        self.labels = self.listed() if described is None else list(described)
        embeddings = None if described is None else self._embed(list(described.values()), device)
        self.thresholds = self.lowest(self.labels)
        path = self._local_checkpoint()
        with loading("tags", self.config):
            model = load_ram_plus(path or self._fetched(), device, torch_dtype(self.config), embeddings)
        if (count := model.label_embed.shape[0]) != len(self.labels):
            raise RequestError(
                f"perceive.tags.labels: the list holds {len(self.labels)} tags, and {self.config.model} knows {count}. "
                f"Give the list that the checkpoint was trained with, one tag a line; RAM++'s own is {LABELS_FILE} in "
                f"{_SOURCE}."
            )
        self._model = compiled(model, self.config)

    def scores(self, pixels: Any) -> Any:
        return self._model(pixels).sigmoid()

    def close(self) -> None:
        self._model = None

    @staticmethod
    def transform(image: Image.Image) -> Any:
        """float32 tensor (3, 384, 384): squeezed, bilinear, ImageNet's mean and deviation (`ram/transform.py`)."""
        import torch

        from experts.taggers.ram_plus_model import IMAGE_SIZE

        small = image.resize((IMAGE_SIZE, IMAGE_SIZE), Image.Resampling.BILINEAR)
        values = torch.from_numpy(np.array(small)).permute(2, 0, 1).float() / 255
        return (values - torch.tensor(_MEAN)[:, None, None]) / torch.tensor(_STD)[:, None, None]

    def listed(self) -> list[str]:
        """The checkpoint's tags in the order of its scores. Raises RequestError."""
        given = self.config.labels
        if isinstance(given, tuple):
            lines: Sequence[str] = given
        else:
            path = self._list_file(given, LABELS_FILE, "labels", "the names of its tags")
            lines = _lines(path, "labels", "Give a text file with one tag a line.")
        return _each_once([line.strip() for line in lines], "labels")

    def described(self) -> dict[str, list[str]] | None:
        """The sentences of each tag to look for in place of the checkpoint's own. Raises RequestError."""
        if self.config.descriptions is None:
            return None
        return read_descriptions(Path(self.config.descriptions))

    def lowest(self, labels: list[str]) -> np.ndarray:
        """float32, the score above which each label is a tag.

        Raises:
            RequestError: there is no list of them, or it is not as long as the labels' or no list of numbers.
        """
        if self.config.descriptions is not None and self.config.thresholds is None:
            return np.full(len(labels), OPEN_SET_THRESHOLD, np.float32)
        path = self._list_file(self.config.thresholds, THRESHOLDS_FILE, "thresholds", "the thresholds of its tags")
        advice = "Give a text file with one number from 0 to 1 a line, in the order of the labels."
        values = [_number(path, line, advice) for line in _lines(path, "thresholds", advice)]
        if len(values) != len(labels):
            raise RequestError(
                f"perceive.tags.thresholds: {path} holds {len(values)} thresholds for {len(labels)} tags. {advice}"
            )
        return np.array(values, np.float32)

    def _list_file(self, given: str | None, name: str, field: str, what: str) -> Path:
        if given is not None:
            return Path(given)
        checkpoint = self._local_checkpoint()
        if checkpoint is not None and (path := checkpoint.parent / name).is_file():
            return path
        where = f", and {checkpoint.parent} has no {name}" if checkpoint is not None else ""
        raise RequestError(
            f"perceive.tags.{field}: RAM++'s checkpoint does not hold {what}{where}. Take {name} from {_SOURCE} and "
            f"name it in perceive.tags.{field}, or lay it beside a local checkpoint."
        )

    def _local_checkpoint(self) -> Path | None:
        """The file that `model` names or that lies in its folder; None for a hub id. Raises RequestError."""
        path = Path(self.config.model)
        if not path.is_dir():
            return path if path.is_file() else None
        if (path / CHECKPOINT_FILE).is_file():
            return path / CHECKPOINT_FILE
        found = [file for file in sorted(path.iterdir()) if file.suffix in (".pth", ".safetensors")]
        if len(found) != 1:
            raise RequestError(
                f"perceive.tags.model: {path} holds no {CHECKPOINT_FILE}, and {len(found) or 'no'} other .pth or "
                ".safetensors files. Give RAM++'s checkpoint itself, or a folder with one in it."
            )
        return found[0]

    def _fetched(self) -> Path:
        from huggingface_hub import hf_hub_download

        return Path(hf_hub_download(self.config.model, CHECKPOINT_FILE, revision=self.config.revision))

    def _text_model(self) -> ModelRef:
        return ModelRef(model=self.config.text_model, revision=None)

    def _text_identity(self) -> str:
        return open_clip_identity(self._text_model(), OPENAI)

    def _embed(self, described: list[list[str]], device: str) -> Any:
        """ram_plus_model.LabelEmbeddings on the CPU: each sentence's text features at length 1, in float32."""
        import open_clip
        import torch

        from experts.taggers.ram_plus_model import LabelEmbeddings

        ref = self._text_model()
        with _loading_text(ref):
            name = open_clip_name(ref)
            model, _ = load_open_clip(name, device, "float32", OPENAI)
            tokens = open_clip.get_tokenizer(name)([text for texts in described for text in texts])
            with torch.inference_mode():
                parts = [
                    model.encode_text(part.to(device), normalize=True).float().cpu()
                    for part in tokens.split(_TEXTS_AT_ONCE)
                ]
        counts = torch.tensor([len(texts) for texts in described])
        rows = torch.nn.utils.rnn.pad_sequence(torch.cat(parts).split(counts.tolist()), batch_first=True)
        given = torch.arange(rows.shape[1]) < counts[:, None]
        return LabelEmbeddings(rows, None if given.all() else given)


def read_descriptions(path: Path) -> dict[str, list[str]]:
    """The sentences of every tag in the file's order; the first is TEMPLATE's, where a tag's own do not have it.

    The file is the authors' form, a list of objects {tag: [sentence, ...]}, or one such object. A tag may have any
    number of sentences.

    Raises:
        RequestError: it is not such a file, describes nothing, or describes a tag twice.
    """
    try:
        loaded = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise _no_descriptions(path, f"cannot be read as JSON ({error})") from error
    objects = loaded if isinstance(loaded, list) else [loaded]
    if not all(isinstance(one, dict) for one in objects):
        raise _no_descriptions(path, "holds something else than objects")
    pairs = [(tag.strip(), texts) for one in objects for tag, texts in one.items()]
    for tag, texts in pairs:
        if not isinstance(texts, list) or not all(isinstance(text, str) for text in texts):
            raise _no_descriptions(path, f"gives {tag!r} something else than a list of sentences")
    _each_once([tag for tag, _ in pairs], "descriptions")
    return {tag: _sentences(tag, texts) for tag, texts in pairs}


def _sentences(tag: str, texts: list[str]) -> list[str]:
    plain, own = TEMPLATE.format(tag), [text.strip() for text in texts if text.strip()]
    return own if plain.lower() in (text.lower() for text in own) else [plain, *own]


def _no_descriptions(path: Path, why: str) -> RequestError:
    return RequestError(
        f"perceive.tags.descriptions: {path} {why}. Give a JSON file of the form [{{tag: [sentence, ...]}}, ...]."
    )


@contextmanager
def _loading_text(ref: ModelRef) -> Iterator[None]:
    try:
        yield
    except Exception as error:
        raise SetupError(
            f"perceive.tags could not embed the descriptions with {ref.model}: {type(error).__name__}: "
            f"{textwrap.shorten(str(error), 400, placeholder=' ...').rstrip('.')}. Set perceive.tags.text_model to a "
            "folder that holds an open_clip model, to a hub id that this machine can reach, or to a name of "
            "open_clip's that has OpenAI's weights."
        ) from error


def _lines(path: Path, field: str, advice: str) -> list[str]:
    """Those with something on them."""
    try:
        return [line for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
    except (OSError, UnicodeDecodeError) as error:
        raise RequestError(f"perceive.tags.{field}: {path} cannot be read as UTF-8 text ({error}). {advice}") from error


def _number(path: Path, line: str, advice: str) -> float:
    try:
        value = float(line)
    except ValueError:
        value = -1.0
    if not 0 <= value <= 1:
        raise RequestError(f"perceive.tags.thresholds: {path} holds {line.strip()[:40]!r}. {advice}")
    return value


def _each_once(labels: list[str], field: str) -> list[str]:
    if not labels or "" in labels:
        raise RequestError(f"perceive.tags.{field} holds {'an empty' if labels else 'no'} tag. Name every tag.")
    if twice := [label for label, count in Counter(labels).items() if count > 1]:
        raise RequestError(f"perceive.tags.{field} holds {twice[0]!r} twice. Name every tag once.")
    return labels


def _sha256(lines: list[str]) -> str:
    joined = "\n".join(lines).encode()
    return f"sha256:{hashlib.sha256(joined).hexdigest()}"

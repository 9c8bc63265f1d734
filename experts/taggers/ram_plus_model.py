"""RAM++, the open-set tagger of "Open-Set Image Tagging with Multi-Grained Text Supervision" (arXiv 2310.15200), from
the weights that its authors publish as `ram_plus_swin_large_14m.pth`.

A Swin transformer's cells and their mean are keys; a label is a query, mixed of its descriptions' text embeddings by
how well each suits the picture (section 3.3); two layers of cross-attention and one linear unit give its logit. The
graph follows `ram/models/ram_plus.py` (`generate_tag`) of github.com/xinyu1205/recognize-anything.
"""

import pickle
import re
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from timm.models.swin_transformer import SwinTransformer
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812  the name that everyone gives it

IMAGE_SIZE = 384
"""Pixels a side that the published weights take (`ram/configs/swin/config_swinL_384.json`)."""
HEADS = 4
"""Of each layer of the tagging head (`ram/configs/q2l_config.json`)."""
DESCRIPTIONS = 51
"""Rows of label_embed a label: one that names it, and ten answers to each of five questions (section 3.2)."""
_EPS = 1e-12
"""Of the tagging head's layer norms (`ram/configs/q2l_config.json`)."""
_NAMED = 5
"""Most keys that an error lists."""

_OFFICIAL_NAMES = {
    "query": "crossattention.self.query",
    "key": "crossattention.self.key",
    "value": "crossattention.self.value",
    "proj": "crossattention.output.dense",
    "norm1": "crossattention.output.LayerNorm",
    "fc1": "intermediate.dense",
    "fc2": "output.dense",
    "norm2": "output.LayerNorm",
}
_HEAD = "tagging_head.encoder.layer"


@dataclass(frozen=True)
class LabelEmbeddings:
    """What the labels look like, in words.

    Attributes:
        rows: float32 (labels, descriptions, text width), each of length 1; labels of fewer texts end in zeros.
        given: bool (labels, descriptions), which rows are there; None where all are.
    """

    rows: Tensor
    given: Tensor | None = None


@dataclass(frozen=True)
class Geometry:
    """Sizes of a checkpoint's parts.

    Attributes:
        swin: arguments of timm's SwinTransformer.
        text: width of label embeddings and image tokens.
        hidden, inner: width of the tagging head and of its feed-forward layers.
        layers: of the tagging head.
        labels, descriptions: rows of label_embed are labels times descriptions.
    """

    swin: dict[str, Any]
    text: int
    hidden: int
    inner: int
    layers: int
    labels: int
    descriptions: int


class CrossAttentionLayer(nn.Module):
    """A decoder layer without self-attention: cross-attention and a feed-forward pair, each with its norm behind it.

    BERT's layer as `ram/models/bert.py` runs it in mode `tagging`.
    """

    def __init__(self, hidden: int, text: int, inner: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.query = nn.Linear(hidden, hidden)
        self.key = nn.Linear(text, hidden)
        self.value = nn.Linear(text, hidden)
        self.proj = nn.Linear(hidden, hidden)
        self.norm1 = nn.LayerNorm(hidden, eps=_EPS)
        self.fc1 = nn.Linear(hidden, inner)
        self.fc2 = nn.Linear(inner, hidden)
        self.norm2 = nn.LayerNorm(hidden, eps=_EPS)

    def forward(self, labels: Tensor, tokens: Tensor) -> Tensor:
        """(n, labels, hidden), from `labels` of that shape and image tokens (n, tokens, text)."""
        query, key, value = (
            part.unflatten(-1, (self.heads, -1)).transpose(1, 2)
            for part in (self.query(labels), self.key(tokens), self.value(tokens))
        )
        seen = F.scaled_dot_product_attention(query, key, value).transpose(1, 2).flatten(2)
        labels = self.norm1(labels + self.proj(seen))
        return self.norm2(labels + self.fc2(F.gelu(self.fc1(labels))))


class RamPlus(nn.Module):
    """RAM++ for inference.

    Attributes:
        label_embed: (labels, descriptions, text), length 1 each.
        given: bool (labels, descriptions), or None where every row is there.
        reweight_scale: logarithm of the scale of the softmax over a label's descriptions; float32 in any precision.
    """

    def __init__(self, geometry: Geometry, heads: int = HEADS) -> None:
        super().__init__()
        g = geometry
        self.visual_encoder = SwinTransformer(**g.swin, num_classes=0, drop_path_rate=0.0, weight_init="skip")
        self.image_proj = nn.Linear(self.visual_encoder.num_features, g.text)
        self.label_embed = nn.Parameter(torch.empty(g.labels, g.descriptions, g.text), requires_grad=False)
        self.reweight_scale = nn.Parameter(torch.empty(()), requires_grad=False)
        self.wordvec_proj = nn.Linear(g.text, g.hidden)
        self.tagging_head = nn.ModuleList(
            CrossAttentionLayer(g.hidden, g.text, g.inner, heads) for _ in range(g.layers)
        )
        self.fc = nn.Linear(g.hidden, 1)
        self.register_buffer("given", None, persistent=False)

    def forward(self, pixels: Tensor) -> Tensor:
        """Logits, float32 (n, labels), from normalised RGB pixels (n, 3, side, side)."""
        tokens = self.encode(pixels)
        labels = F.relu(self.wordvec_proj(self.mix(tokens[:, 0])))
        for layer in self.tagging_head:
            labels = layer(labels, tokens)
        return self.fc(labels).squeeze(-1).float()

    def encode(self, pixels: Tensor) -> Tensor:
        """Image tokens (n, 1 + cells, text); the first is the mean of Swin's cells, the others the cells row by row."""
        cells = self.visual_encoder.forward_features(pixels).flatten(1, 2)
        return self.image_proj(torch.cat([cells.mean(1, keepdim=True), cells], dim=1))

    def mix(self, pooled: Tensor) -> Tensor:
        """Each label's embedding for each picture, (n, labels, text), from the pictures' first tokens (n, text).

        The softmax is taken in float32. label_embed is read twice a batch, and nothing of its size is made.
        """
        pooled = F.normalize(pooled.float(), dim=-1).to(self.label_embed.dtype)
        cosine = (pooled @ self.label_embed.flatten(0, 1).T).unflatten(1, self.label_embed.shape[:2])
        suits = cosine.float() * self.reweight_scale.exp()
        if self.given is not None:
            suits = suits.masked_fill(~self.given, -torch.inf)
        weights = suits.softmax(dim=-1).to(self.label_embed.dtype)
        return torch.bmm(weights.transpose(0, 1), self.label_embed).transpose(0, 1)


def load_ram_plus(
    path: Path,
    device: str = "cpu",
    dtype: torch.dtype = torch.float32,
    labels: LabelEmbeddings | None = None,
    image_size: int = IMAGE_SIZE,
    heads: int = HEADS,
    descriptions: int = DESCRIPTIONS,
) -> RamPlus:
    """The model of a checkpoint in the official layout, in eval mode; no weight is left random.

    All sizes but the last three arguments are read off the tensors' shapes, so checkpoints of other widths load too.

    Args:
        path: `.pth` (a state dict, or one under key `model`, as the authors publish it) or `.safetensors`.
        labels: take the place of the checkpoint's label_embed.
        image_size: pixels a side.
        heads: of the tagging head.
        descriptions: rows of label_embed a label.

    Raises:
        ValueError: a tensor that inference needs is missing or has another shape; what else lies there is passed over.
        OSError, RuntimeError: the file cannot be read.
    """
    state = _official_state(path)
    if labels is not None:
        state["label_embed"] = labels.rows
        descriptions = labels.rows.shape[1]
    geometry = geometry_of(state, image_size, descriptions)
    if geometry.hidden % heads:
        raise ValueError(f"the tagging head is {geometry.hidden} wide, which {heads} heads do not divide")
    if labels is not None and labels.rows.shape[-1] != geometry.text:
        raise ValueError(
            f"the descriptions' embeddings are {labels.rows.shape[-1]} wide, and the checkpoint takes {geometry.text}: "
            "it was trained with another text model"
        )
    with torch.device("meta"):
        model = RamPlus(geometry, heads)
    model.to(dtype)
    model.reweight_scale.data = model.reweight_scale.data.float()
    model.to_empty(device=device)
    state["label_embed"] = state["label_embed"].reshape(geometry.labels, descriptions, -1)
    _fill(model, state)
    if labels is not None and labels.given is not None:
        model.given = labels.given.to(device)
    return model.eval()


def _fill(model: RamPlus, state: Mapping[str, Tensor]) -> None:
    """Copy every parameter, and compute what timm keeps out of state dicts."""
    parameters = model.state_dict()
    _require(state, [_official_name(name) for name in parameters])
    for name, parameter in parameters.items():
        given = state[_official_name(name)]
        if given.shape != parameter.shape:
            raise ValueError(
                f"{_official_name(name)} has the shape {tuple(given.shape)}; beside the other tensors it must be "
                f"{tuple(parameter.shape)}"
            )
        parameter.copy_(given)
    for module in model.visual_encoder.modules():
        if hasattr(module, "init_non_persistent_buffers"):
            module.init_non_persistent_buffers()


def _official_state(path: Path) -> dict[str, Tensor]:
    """The tensors of a checkpoint by their official names; the file is mapped, not read, where its form allows it."""
    if path.suffix == ".safetensors":
        from safetensors.torch import load_file

        loaded: Any = load_file(path)
    else:
        try:
            loaded = torch.load(path, map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(path) or None)
        except pickle.UnpicklingError as error:
            raise ValueError(
                f"{path.name} is no torch file, or holds Python objects beside tensors, which could run code; save its "
                "state dict alone"
            ) from error
    if isinstance(loaded, Mapping) and isinstance(loaded.get("model"), Mapping):
        loaded = loaded["model"]
    if not isinstance(loaded, Mapping):
        raise ValueError(f"{path.name} holds a {type(loaded).__name__}, not a state dict")
    # Older checkpoints have another prefix, which the authors' loader (`ram/models/utils.py`) renames too.
    return {
        name.replace("vision_multi", "tagging_head"): value
        for name, value in loaded.items()
        if isinstance(value, Tensor)
    }


def _official_name(name: str) -> str:
    """The key that a checkpoint has for a parameter of RamPlus."""
    if name.startswith("tagging_head."):
        _, layer, part, kind = name.split(".")
        return f"{_HEAD}.{layer}.{_OFFICIAL_NAMES[part]}.{kind}"
    # timm merges patches where a stage begins, the official code where the one before ends.
    return re.sub(r"layers\.(\d+)\.downsample", lambda found: f"layers.{int(found[1]) - 1}.downsample", name)


def geometry_of(
    state: Mapping[str, Tensor], image_size: int = IMAGE_SIZE, descriptions: int = DESCRIPTIONS
) -> Geometry:
    """What the shapes of official weights say; arguments as of `load_ram_plus`. Raises ValueError."""
    stages = _count(state, r"visual_encoder\.layers\.(\d+)\.blocks\.")
    depths = tuple(_count(state, rf"visual_encoder\.layers\.{i}\.blocks\.(\d+)\.") for i in range(max(stages, 1)))
    layers = _count(state, rf"{re.escape(_HEAD)}\.(\d+)\.")
    first = [f"visual_encoder.layers.{i}.blocks.0" for i in range(len(depths))]
    tables = [f"{block}.attn.relative_position_bias_table" for block in first]
    hidden_layers = [f"{block}.mlp.fc1.weight" for block in first]
    stem = "visual_encoder.patch_embed.proj.weight"
    inner = f"{_HEAD}.0.intermediate.dense.weight"
    _require(state, [stem, *tables, *hidden_layers, "image_proj.weight", "wordvec_proj.weight", inner, "label_embed"])
    rows = state["label_embed"].shape[:-1].numel()
    if rows % descriptions:
        raise ValueError(
            f"label_embed has {rows} rows, which is no multiple of {descriptions} descriptions a label; RAM and "
            "Tag2Text are other models"
        )
    width, _, patch, _ = state[stem].shape
    return Geometry(
        swin={
            "img_size": image_size,
            "patch_size": patch,
            "embed_dim": width,
            "depths": depths,
            "num_heads": tuple(state[table].shape[1] for table in tables),
            "window_size": tuple((round(state[table].shape[0] ** 0.5) + 1) // 2 for table in tables),
            "mlp_ratio": tuple(state[name].shape[0] / state[name].shape[1] for name in hidden_layers),
        },
        text=state["image_proj.weight"].shape[0],
        hidden=state["wordvec_proj.weight"].shape[0],
        inner=state[inner].shape[0],
        layers=layers,
        labels=rows // descriptions,
        descriptions=descriptions,
    )


def _count(state: Mapping[str, Tensor], pattern: str) -> int:
    """One more than the highest number that `pattern` finds at the start of a key."""
    return max((int(found[1]) + 1 for name in state if (found := re.match(pattern, name))), default=0)


def _require(state: Mapping[str, Tensor], names: list[str]) -> None:
    missing = [name for name in names if name not in state]
    if missing:
        more = f" and {len(missing) - _NAMED} more" if len(missing) > _NAMED else ""
        raise ValueError(
            f"{len(missing)} of the {len(names)} tensors that RAM++ needs are missing: {', '.join(missing[:_NAMED])}"
            f"{more}"
        )

"""Depth Anything: a DINOv2 backbone that starts from the CLIP tower, under a small DPT head.

The loss is MiDaS's, with which Depth Anything was trained too (arXiv:1907.01341; arXiv:2401.10891): predictions and
truth are brought to one scale and offset per picture, so that only relative disparity is learnt.
"""

import tempfile
from pathlib import Path
from typing import ClassVar

import numpy as np
import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn.functional import adaptive_avg_pool2d
from transformers import (
    DepthAnythingConfig,
    DepthAnythingForDepthEstimation,
    Dinov2Config,
    DPTImageProcessor,
)
from transformers.image_utils import OPENAI_CLIP_MEAN, OPENAI_CLIP_STD

from demo.metrics.depth import DepthFigures, depth_figures, mean_map
from demo.scene import render
from demo.split import seeds
from demo.train import augment
from demo.train.base import Recipe, RecipeSection
from demo.train.half import save_half
from demo.train.pool import GRID, ScenePool
from demo.train.towers import NORM_EPS, dinov2_backbone, load_clip, patch_deviation

SIZE = 160
PATCH = 16
LEAST_DEVIATION = 1e-3
"""1/m; a flatter truth is not blown up to the scale of the others."""
SCALES = 4
"""Resolutions at which gradients are matched, each half of the one before; MiDaS's number."""
SOME_SCENES = 16
_KEPT = ("lambda1", "mask_token")


class DepthSection(RecipeSection):
    """Depth Anything."""

    start: Path | None = Field(None, description="folder of the CLIP model whose tower it starts from; null: none")
    tower_rate: float = Field(1.0, gt=0, le=1, description="the tower's learning rate, as a share of the head's")
    gradient_weight: float = Field(0.5, ge=0, description="of the gradients' loss; MiDaS's is 0.5")
    least_window: float = Field(0.7, gt=0, le=1, description="smallest side of the part of a scene that is shown")


class DepthRecipe(Recipe[DepthSection]):
    """Trains the demo's depth model."""

    name = "depth"
    section = DepthSection
    about: ClassVar[str] = (
        "Depth Anything (transformers, `DepthAnythingForDepthEstimation`) with a DINOv2 backbone of patches of 16 px,"
        " for pictures of 160 x 160 px (the whole picture, squashed to a square). It gives relative disparity: larger"
        " is nearer, at any scale and offset."
    )
    library = "transformers"
    task = "depth-estimation"

    def build(self) -> DepthAnythingForDepthEstimation:
        start = load_clip(self.config.start) if self.config.start else None
        width, layers = (start.vision["width"], start.vision["layers"]) if start else (192, 6)
        backbone = Dinov2Config(
            hidden_size=width,
            num_hidden_layers=layers,
            num_attention_heads=width // 64,
            image_size=SIZE,
            patch_size=PATCH,
            layerscale_value=1.0,
            layer_norm_eps=NORM_EPS,
            out_indices=[max(1, round(layers * share)) for share in (1 / 3, 2 / 3, 5 / 6, 1)],
            reshape_hidden_states=False,
            apply_layernorm=True,
        )
        model = DepthAnythingForDepthEstimation(
            DepthAnythingConfig(
                backbone_config=backbone,
                patch_size=PATCH,
                reassemble_hidden_size=width,
                neck_hidden_sizes=[24, 32, 48, 64],
                fusion_hidden_size=24,
                head_hidden_size=8,
            )
        )
        _start_head(model)
        if start:
            weights = dinov2_backbone(start.state, patch_deviation(start.state, _some_pixels()))
            # CLIP has no scales of layers, which stay 1, and no mask token, which nothing uses.
            kept = {name: weight for name, weight in model.backbone.state_dict().items() if name.endswith(_KEPT)}
            model.backbone.load_state_dict(kept | weights)
        # On a CPU twice as fast as fused attention and planes of channels.
        model.set_attn_implementation("eager")
        return model.to(memory_format=torch.channels_last).train()

    def groups(self, model: nn.Module) -> list[dict]:
        out = []
        for tower in (True, False):
            named = [p for name, p in model.named_parameters() if name.startswith("backbone.") == tower]
            rate = self.config.tower_rate if tower else 1.0
            decay = self.config.weight_decay
            out.append({"params": [p for p in named if p.ndim >= 2], "weight_decay": decay, "lr": rate})
            out.append({"params": [p for p in named if p.ndim < 2], "weight_decay": 0.0, "lr": rate})
        return out

    def loss(
        self, model: nn.Module, pool: ScenePool, rows: np.ndarray, rng: np.random.Generator, progress: float
    ) -> tuple[Tensor, dict[str, float]]:
        device = next(model.parameters()).device
        where = augment.windows(rng, len(rows), least=self.config.least_window)
        images = augment.spoil(augment.cut(pool.images[rows], where, SIZE, rng), rng, share=0.3)
        pixels = augment.light(images, rng, OPENAI_CLIP_MEAN, OPENAI_CLIP_STD)
        truth = torch.from_numpy(augment.cut_cells(pool.disparity[rows], where, GRID)).to(device).float()
        predicted = model(pixel_values=pixels.to(device)).predicted_depth
        with torch.autocast(device.type, enabled=False):
            predicted = adaptive_avg_pool2d(predicted.float(), GRID)
            error = aligned(predicted) - aligned(truth)
            absolute, gradient = error.abs().mean(), gradients(error)
            total = absolute + self.config.gradient_weight * gradient
        return total, {"absolute": float(absolute.detach()), "gradient": float(gradient.detach())}

    def evaluate(self, model: nn.Module, pool: ScenePool) -> dict[str, float]:
        """Of the depth expert itself, over the model as it is saved. The mean map is of the same scenes."""
        from PIL import Image

        from experts.depth import Depth, unpacked
        from experts.depth import DepthSection as ExpertSection

        with tempfile.TemporaryDirectory() as folder:
            self.save(model, Path(folder))
            expert = Depth(ExpertSection(model=folder, map_size=GRID))
            expert.open(next(model.parameters()).device.type)
            maps = []
            for start in range(0, len(pool), 64):
                pictures = [Image.fromarray(image) for image in pool.images[start : start + 64]]
                maps += [unpacked(prior) for prior in expert.measure(pictures)]
        true = np.asarray(pool.disparity, np.float32)
        mean = mean_map(true)

        def figures(predicted: np.ndarray) -> DepthFigures:
            distances = [[item.distance for item in truth.objects] for truth in pool.truths]
            return depth_figures(predicted, true, np.asarray(pool.owners), distances, mean)

        ours, baseline = figures(np.stack(maps)), figures(np.broadcast_to(mean, true.shape))
        return {
            "residual_correlation": ours.residual_correlation,
            "correlation": ours.correlation,
            "pair_order": ours.pair_order,
            "mean_map_correlation": baseline.correlation,
            "mean_map_pair_order": baseline.pair_order,
        }

    def save(self, model: nn.Module, folder: Path) -> None:
        assert isinstance(model, DepthAnythingForDepthEstimation)
        save_half(model, folder)
        DPTImageProcessor(
            size={"height": SIZE, "width": SIZE},
            keep_aspect_ratio=False,
            ensure_multiple_of=PATCH,
            image_mean=OPENAI_CLIP_MEAN,
            image_std=OPENAI_CLIP_STD,
        ).save_pretrained(folder)


def aligned(maps: Tensor) -> Tensor:
    """Maps (n, h, w) less their median, over their mean absolute deviation from it: MiDaS's scale and shift."""
    centred = maps - maps.flatten(1).median(dim=1).values[:, None, None]
    deviation = centred.abs().mean(dim=(1, 2), keepdim=True)
    return centred / deviation.clamp(min=LEAST_DEVIATION)


def gradients(error: Tensor) -> Tensor:
    """Mean absolute differences of neighbours in an error (n, h, w), summed over `SCALES` resolutions."""
    total = error.new_zeros(())
    for scale in range(SCALES):
        one = error[:, :: 2**scale, :: 2**scale]
        total = total + one.diff(dim=1).abs().mean() + one.diff(dim=2).abs().mean()
    return total


def _start_head(model: DepthAnythingForDepthEstimation) -> None:
    """First weights under which a signal passes: the library's deviation of 0.02 fades over this many convolutions."""
    with torch.no_grad():
        for part in (model.neck, model.head):
            for weight in part.parameters():
                if weight.ndim == 4:
                    nn.init.kaiming_normal_(weight)
        model.head.conv3.bias.fill_(1.0)  # away from the last ReLU's dead side


def _some_pixels() -> Tensor:
    """A few training scenes as the tower sees them, (n, 3, SIZE, SIZE)."""
    images = np.stack([np.asarray(render(seed, (SIZE, SIZE)).image) for seed in seeds("train", SOME_SCENES)])
    return augment.plain(images, OPENAI_CLIP_MEAN, OPENAI_CLIP_STD)

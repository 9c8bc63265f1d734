import io
import json
import shutil

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from PIL import Image
from transformers import AutoImageProcessor, AutoModelForDepthEstimation

from experts.depth import packed, unpacked
from tests.photographs import photograph

FINITE = st.floats(-1e4, 1e4, width=32)


@given(hnp.arrays(np.float32, hnp.array_shapes(min_dims=2, max_dims=2, max_side=12), elements=FINITE))
def test_a_map_comes_back_to_a_65535th_of_its_range(disparity):
    back = unpacked(packed(disparity))
    assert back.shape == disparity.shape
    assert np.abs(back - disparity).max() <= (disparity.max() - disparity.min()) / 65535 + 2e-3


def test_a_map_that_is_not_finite_is_refused():
    with pytest.raises(ValueError, match="not finite"):
        packed(np.array([[0.0, np.nan]], np.float32))


@pytest.mark.parametrize(("size", "stored"), [((600, 400), (96, 64)), ((101, 303), (32, 96)), ((400, 1), (96, 1))])
def test_the_map_is_sixteen_bit_and_has_the_shape_of_the_picture(opened, size, stored):
    (prior,) = opened("depth", map_size=96).look([photograph("coffee").resize(size)], [{}])
    with Image.open(io.BytesIO(prior["disparity_png"])) as image:
        assert (image.size, image.mode) == (stored, "I;16")
    assert np.ptp(unpacked(prior)) == pytest.approx(prior["disparity_max"] - prior["disparity_min"], rel=1e-4)


@pytest.mark.parametrize("kind", ["relative", "metric"])
def test_larger_is_nearer_for_both_kinds_of_checkpoint(opened, small_weights, tmp_path, kind):
    folder = shutil.copytree(small_weights["depth"], tmp_path / "depth")
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"depth_estimation_type": kind, "max_depth": 20}))
    image = photograph("astronaut")
    processor, model = AutoImageProcessor.from_pretrained(folder), AutoModelForDepthEstimation.from_pretrained(folder)
    with torch.inference_mode():
        predicted = model.eval()(**processor(images=image, return_tensors="pt")).predicted_depth[0].numpy()
    (prior,) = opened("depth", model=str(folder), map_size=predicted.shape[1]).look([image], [{}])
    near = 1 / predicted.clip(0.1) if kind == "metric" else predicted
    assert near.std() > 0
    assert np.allclose(unpacked(prior), near, atol=1e-3 * np.ptp(near))

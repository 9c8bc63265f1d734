import functools
import io
import json
import shutil

import numpy as np
import pyarrow as pa
import pytest
import torch
import transformers
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from PIL import Image
from pydantic import ValidationError
from transformers import AutoImageProcessor, AutoModelForDepthEstimation

from demo.split import seeds
from experts.depth import Depth, DepthSection, packed, unpacked
from schemas.tables import DEPTH_PRIOR, check_table
from tests.photographs import photograph
from tests.scenes import rendered

FINITE = st.floats(-1e4, 1e4, width=32)
ODD_SIZES = [(301, 77), (101, 303), (600, 399)]


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
    (prior,) = opened("depth", map_size=96).measure([photograph("coffee").resize(size)])
    with Image.open(io.BytesIO(prior["disparity_png"])) as image:
        assert (image.size, image.mode) == (stored, "I;16")
    assert np.ptp(unpacked(prior)) == pytest.approx(prior["disparity_max"] - prior["disparity_min"], rel=1e-4)


def changed(weights, folder, **files):
    """A copy of a model's folder with keys of its JSON files set anew, a file by its stem."""
    shutil.copytree(weights, folder)
    for stem, keys in files.items():
        path = folder / f"{stem}.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | keys))
    return folder


def as_trained(weights, folder):
    return changed(weights, folder)


def keeping_the_aspect(weights, folder):
    return changed(weights, folder, preprocessor_config={"keep_aspect_ratio": True})


def metric(weights, folder):
    return changed(weights, folder, config={"depth_estimation_type": "metric", "max_depth": 20})


def zoe(_, folder):
    """A small ZoeDepth, whose processor adds a margin; its weights are as large as it takes to see anything."""
    backbone = transformers.BeitConfig(
        image_size=64,
        num_hidden_layers=4,
        hidden_size=32,
        num_attention_heads=2,
        intermediate_size=64,
        out_features=["stage1", "stage2", "stage3", "stage4"],
        reshape_hidden_states=False,
    )
    config = transformers.ZoeDepthConfig(
        backbone_config=backbone,
        neck_hidden_sizes=[16] * 4,
        fusion_hidden_size=16,
        bottleneck_features=16,
        num_attractors=[4, 4, 4, 1],
        bin_embedding_dim=16,
        num_relative_features=8,
        bin_configurations=[{"n_bins": 8, "min_depth": 0.5, "max_depth": 10.0, "name": "nyu"}],
    )
    return drawn(transformers.ZoeDepthForDepthEstimation(config), transformers.ZoeDepthImageProcessor, folder)


def glpn(_, folder):
    """A small GLPN, which says metres without saying so, and whose processor knows no size."""
    widths = {"hidden_sizes": [8, 8, 16, 16], "num_attention_heads": [1, 1, 2, 2], "decoder_hidden_size": 16}
    config = transformers.GLPNConfig(**widths, depths=[1] * 4)
    return drawn(transformers.GLPNForDepthEstimation(config), transformers.GLPNImageProcessor, folder)


def drawn(model, processor, folder):
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for weights in model.parameters():
            weights.normal_(0, 0.15, generator=generator)
    model.save_pretrained(folder)
    processor(**({"size": {"height": 64, "width": 96}} if "Zoe" in processor.__name__ else {})).save_pretrained(folder)
    return folder


@pytest.mark.parametrize("size", ODD_SIZES)
@pytest.mark.parametrize("made", [as_trained, keeping_the_aspect, metric, zoe, glpn])
def test_the_map_is_that_of_the_librarys_own_pipeline(opened, small_weights, tmp_path, made, size):
    folder = made(small_weights["depth"], tmp_path / "model")
    image = photograph("astronaut").resize(size)
    (prior,) = opened("depth", model=str(folder), map_size=96).measure([image])
    processor, model = AutoImageProcessor.from_pretrained(folder), AutoModelForDepthEstimation.from_pretrained(folder)
    pipeline = transformers.pipeline("depth-estimation", model=model, image_processor=processor)
    if made is zoe:
        predicted = pipeline(image)["predicted_depth"]
    else:
        # Before the pipeline's own resize, to the size of the picture.
        predicted = pipeline.forward(pipeline.preprocess(image)).predicted_depth[0]
    near = 1 / predicted.clamp(min=0.1) if made in (metric, zoe, glpn) else predicted
    stored = unpacked(prior)
    assert max(stored.shape) == 96 and np.ptp(stored) > 1e-3
    expected = torch.nn.functional.interpolate(near[None, None], stored.shape, mode="bilinear", antialias=True)[0, 0]
    assert np.allclose(stored, expected.numpy(), atol=1e-4 * np.ptp(stored))


@pytest.mark.parametrize("output", ["auto", "disparity", "depth"])
@pytest.mark.parametrize("kind", ["relative", "metric"])
def test_larger_is_nearer_whatever_the_model_says_and_a_setting_overrules(
    opened, small_weights, tmp_path, kind, output
):
    folder = changed(small_weights["depth"], tmp_path / "model", config={"depth_estimation_type": kind})
    expert = opened("depth", model=str(folder), output=output)
    images = [rendered(seeds("validation", 1)[0]).image]
    (prior,) = expert.measure(images)
    (other,) = opened("depth", model=str(folder), output="disparity").measure(images)
    turned = output == "depth" or (output == "auto" and kind == "metric")
    order = np.corrcoef(unpacked(prior).ravel(), unpacked(other).ravel())[0, 1]
    assert order < -0.2 if turned else order > 0.99


def test_pictures_of_other_shapes_are_other_batches_and_give_the_same(opened, small_weights, tmp_path):
    folder = keeping_the_aspect(small_weights["depth"], tmp_path / "model")
    expert = opened("depth", model=str(folder))
    images = [photograph("coffee"), photograph("astronaut"), photograph("coffee").rotate(180)]
    assert len({expert.bucket(expert.prepare(image)) for image in images}) == 2
    together = expert.measure(images)
    for image, prior in zip(images, together, strict=True):
        (alone,) = expert.measure([image])
        assert np.allclose(unpacked(alone), unpacked(prior), atol=1e-4 * np.ptp(unpacked(alone)))


def test_what_scaled_decoding_must_leave(opened, small_weights, tmp_path):
    assert opened("depth").least() == (160, 160)
    assert opened("depth", model=str(glpn(None, tmp_path / "glpn"))).least() is None


def test_compiled_says_about_the_same(opened, monkeypatch):
    # The default backend takes minutes on a CPU, and is torch's to test.
    monkeypatch.setattr(torch, "compile", functools.partial(torch.compile, backend="eager"))
    image = photograph("coffee")
    (one,), (other,) = (opened("depth", anew=True, compile=compile).measure([image]) for compile in (False, True))
    assert np.allclose(unpacked(one), unpacked(other), atol=1e-3 * np.ptp(unpacked(one)))


def test_values_that_are_not_finite_are_an_error(opened):
    expert = opened("depth", anew=True)
    with torch.no_grad():
        expert._model.head.conv3.bias.fill_(float("nan"))
    with pytest.raises(FloatingPointError, match="depth model gave values that are not finite"):
        expert.measure([photograph("coffee")])


def rows(scene):
    """The true boxes of a scene's objects, each under two labels."""
    width, height = scene.image.size
    out = []
    for anchor, item in enumerate(scene.truth.objects):
        x1, y1, x2, y2 = item.visible_box
        box = {"score": 0.9, "x1": x1 / width, "y1": y1 / height, "x2": x2 / width, "y2": y2 / height}
        out += [{"label": label, "anchor": anchor, **box} for label in (item.category, "thing")]
    return out


def test_stored_depths_of_boxes_are_those_that_the_map_gives(opened):
    by_map = opened("depth")
    by_object = opened("depth", store="objects", boxes=("closed_set",))
    assert by_map.needs == () and by_object.needs == ("closed_set",)
    assert opened("depth", store="objects").needs == ("closed_set", "open_set")
    scenes = [rendered(seed) for seed in seeds("validation", 6)]
    contexts = [{"closed_set": {"boxes": rows(scene), "error": None}} for scene in scenes]
    images = [scene.image for scene in scenes]
    table = [{"uid": str(i), "error": None} | one for i, one in enumerate(by_object.measure(images, contexts))]
    stored = pa.Table.from_pylist(table, schema=DEPTH_PRIOR)
    check_table(stored, DEPTH_PRIOR, "depth")
    for scene, measured, mapped, context in zip(
        scenes, stored.to_pylist(), by_map.measure(images), contexts, strict=True
    ):
        assert measured["disparity_png"] is None and mapped["disparity_png"] and mapped["objects"] == []
        assert len(measured["objects"]) == len(scene.truth.objects)
        one, other = by_object.decide(measured, context), by_map.decide(mapped, context)
        near, also = ({(o["expert"], o["anchor"]): o["nearness"] for o in prior["objects"]} for prior in (one, other))
        assert near.keys() == also.keys()
        # A map is smoother than what it was made from, and so is its range.
        assert all(near[key] == pytest.approx(also[key], abs=0.05) for key in near)


def test_an_expert_that_failed_or_is_not_there_gives_no_objects(opened):
    box = {"label": "cup", "score": 0.9, "x1": 0, "y1": 0, "x2": 1, "y2": 1, "anchor": 0}
    contexts = [{"closed_set": {"boxes": [box], "error": "did not decode"}, "open_set": {"boxes": [], "error": None}}]
    (measured,) = opened("depth", store="objects").measure([photograph("coffee")], contexts)
    assert measured["objects"] == []
    (mapped,) = opened("depth").measure([photograph("coffee")])
    for context in ({}, *contexts):
        assert Depth(DepthSection()).decide(mapped, context)["objects"] == []


BOXES = {
    "closed_set": {"boxes": [{"x1": 0, "y1": 0, "x2": 0.2, "y2": 1, "anchor": 7}], "error": None},
    "open_set": {
        "boxes": [
            {"x1": 0.8, "y1": 0, "x2": 1, "y2": 1, "anchor": 7},
            {"x1": 0.4, "y1": 0, "x2": 0.6, "y2": 1, "anchor": 2},
            {"x1": 0.4, "y1": 0, "x2": 0.6, "y2": 1, "anchor": 2},
        ],
        "error": None,
    },
}


def test_decided_boxes_come_nearest_first_with_a_band():
    measured = packed(np.tile(np.linspace(2, 8, 100, dtype=np.float32), (10, 1))) | {"uid": "a", "error": None}
    decided = Depth(DepthSection()).decide(measured, BOXES)
    assert [(one["expert"], one["anchor"], one["band"]) for one in decided["objects"]] == [
        ("open_set", 7, "near"),
        ("open_set", 2, "middle"),
        ("closed_set", 7, "far"),
    ]
    assert [one["nearness"] for one in decided["objects"]] == pytest.approx([0.9, 0.5, 0.1], abs=0.011)
    assert decided["disparity_png"] == measured["disparity_png"] and measured["objects"] == []
    loose = Depth(DepthSection(far_below=0.05, near_above=0.45)).decide(measured, BOXES)
    assert [one["band"] for one in loose["objects"]] == ["near", "near", "middle"]


def test_of_stored_objects_only_the_decided_ones_are_left():
    stored = [
        {"expert": "open_set", "anchor": 2, "nearness": 0.2},
        {"expert": "open_set", "anchor": 7, "nearness": 0.9},
        {"expert": "open_set", "anchor": 8, "nearness": 1.0},
    ]
    measured = {"disparity_png": None, "disparity_min": 0.0, "disparity_max": 1.0, "objects": stored, "error": None}
    decided = Depth(DepthSection()).decide(measured, BOXES)["objects"]
    assert decided == [stored[1] | {"band": "near"}, stored[0] | {"band": "far"}]


def test_bands_are_applied_later_and_what_is_stored_is_not():
    section = DepthSection(far_below=0.2, near_above=0.3)
    assert section.decisions() == {"far_below": 0.2, "near_above": 0.3}
    assert section.decides() == DepthSection().decides()
    assert {"store", "boxes", "output", "map_size"} <= section.decides().keys()


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"far_below": 0.7, "near_above": 0.6}, r"far_below \(0.7\) must not be above near_above \(0.6\)"),
        ({"boxes": []}, "at least 1 item"),
        ({"boxes": ["ocr"]}, "closed_set"),
    ],
)
def test_settings_that_contradict_are_refused(settings, words):
    with pytest.raises(ValidationError, match=words):
        DepthSection.model_validate(settings)

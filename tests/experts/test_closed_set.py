"""Detectors of the DETR family against the library's own pipeline and post-processing."""

import functools
import io
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import transformers
from PIL import Image
from pydantic import ValidationError
from transformers import AutoImageProcessor, AutoModelForObjectDetection, pipeline

from experts.base import bounded
from experts.boxes import corners
from experts.closed_set import ClosedSet, ClosedSetSection
from experts.closed_set_detectors.detr import numbered
from experts.detr_pixels import LONGEST_ASPECT, LONGEST_SIDE, least_side, masked_pixels
from schemas.errors import SetupError
from schemas.pictures import decode_rgb
from tests.photographs import awkward_files
from tests.scenes import rendered

CORNERS = ("x1", "y1", "x2", "y2")
LOOSE = {"floor": 0.1, "threshold": 0.1}


def boxes_of(rows):
    return np.array([[row[name] for name in CORNERS] for row in rows]).reshape(-1, 4)


def decided(expert, image):
    (measured,) = expert.measure([image])
    return expert.decide(measured, {})["boxes"]


@functools.cache
def loaded(folder):
    return AutoImageProcessor.from_pretrained(folder), AutoModelForObjectDetection.from_pretrained(folder).eval()


def library_boxes(folder, image, threshold):
    """(label, score, corners as clipped fractions), best first, by the library's model and post-processing."""
    processor, model = loaded(folder)
    with torch.inference_mode():
        outputs = model(**processor(images=image, return_tensors="pt"))
    (found,) = processor.post_process_object_detection(
        outputs, threshold=threshold, target_sizes=[(image.height, image.width)]
    )
    boxes = np.clip(found["boxes"].numpy() / np.array([*image.size, *image.size]), 0, 1)
    alive = np.flatnonzero(np.all(boxes[:, 2:] > boxes[:, :2], axis=1))
    order = alive[np.argsort(-found["scores"].numpy()[alive], kind="stable")]
    labels = [model.config.id2label[int(i)] for i in found["labels"][order]]
    return labels, found["scores"][order].numpy(), boxes[order]


def assert_the_librarys(rows, expected):
    labels, scores, boxes = expected
    assert [row["label"] for row in rows] == labels
    assert np.allclose([row["score"] for row in rows], scores, atol=1e-5)
    assert np.allclose(boxes_of(rows), boxes, atol=1e-5)


@functools.cache
def pictures():
    shapes = {f"{wide} x {high}": rendered(13).image.resize((wide, high)) for wide, high in ((501, 260), (20_000, 60))}
    return {name: decode_rgb(data) for name, data in awkward_files().items()} | shapes


@pytest.mark.parametrize("name", pictures())
def test_boxes_are_the_librarys_own_normalised(opened, small_weights, name):
    image = pictures()[name]
    seen = bounded(image, LONGEST_SIDE, LONGEST_ASPECT)
    rows = decided(opened("closed_set", **LOOSE), image)
    assert rows
    assert_the_librarys(rows, library_boxes(small_weights["detector"], seen, 0.1))


@pytest.mark.parametrize("name", ["jpeg", "odd size", "cmyk", "palette", "grey", "on its side"])
def test_boxes_are_those_of_the_librarys_pipeline_from_the_file_on(opened, small_weights, name):
    data = awkward_files()[name]
    processor, model = loaded(small_weights["detector"])
    detector = pipeline("object-detection", model, image_processor=processor, device="cpu")
    found = detector(Image.open(io.BytesIO(data)), threshold=0.1)
    image = decode_rgb(data)
    rows = decided(opened("closed_set", **LOOSE), image)
    inside = [one for one in found if one["box"]["xmin"] < image.width and one["box"]["ymin"] < image.height]
    assert [(row["label"], pytest.approx(row["score"], abs=1e-5)) for row in rows] == [
        (one["label"], one["score"]) for one in inside
    ]
    scale = np.array([*image.size, *image.size])
    theirs = [[one["box"][k] for k in ("xmin", "ymin", "xmax", "ymax")] for one in inside]
    assert np.abs(boxes_of(rows) * scale - np.clip(theirs, 0, scale)).max() < 1.01


def test_thresholds_and_the_cap_are_applied_later(opened):
    image = rendered(13).image
    expert = opened("closed_set")
    (measured,) = expert.measure([image])
    scores = [row["score"] for row in measured["boxes"]]
    assert scores == sorted(scores, reverse=True)
    assert 0.05 < min(scores) < 0.3 < max(scores)
    for settings in ({}, {"threshold": 0.3}, {"threshold": 0.3, "max_boxes": 2}):
        section = expert.config.model_copy(update=settings)
        kept = ClosedSet(section).decide(measured | {"uid": "0"}, {})
        above = [row for row in measured["boxes"] if row["score"] > section.threshold]
        assert kept == {"uid": "0", "boxes": above[: section.max_boxes]}
        assert section.decides() == expert.config.decides()
    (few,) = opened("closed_set", keep=3).measure([image])
    assert few["boxes"] == measured["boxes"][:3]


RULES = [
    "DetrImageProcessor",
    "YolosImageProcessor",
    "RTDetrImageProcessor",
    "DeformableDetrImageProcessor",
    "ConditionalDetrImageProcessor",
    "RfDetrImageProcessor",
]


@pytest.mark.parametrize("rule", RULES)
def test_the_query_of_every_box_is_known_whatever_the_processors_rule(rule):
    processor = getattr(transformers, rule)()
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(2, 25, 7, generator=generator) * 3
    boxes = torch.rand(2, 25, 4, generator=generator)
    outputs = SimpleNamespace(logits=logits, pred_boxes=boxes)
    expected = processor.post_process_object_detection(outputs, threshold=0.4, target_sizes=[(1, 1)] * 2)
    found = numbered(processor, outputs, 0.4)
    for one, other, centred in zip(found, expected, boxes.numpy(), strict=True):
        labels, scores, queries = one
        assert len(labels) > 5
        assert labels.tolist() == other["labels"].tolist()
        assert scores.tolist() == other["scores"].tolist()
        assert np.allclose(corners(centred)[queries], other["boxes"].numpy(), atol=1e-6)


def small_model(kind):
    """Random weights of other models of the family, which keep the aspect ratio and mask what they pad."""
    backbone = transformers.ResNetConfig(
        embedding_size=8,
        hidden_sizes=[8, 16, 16, 16],
        depths=[1, 1, 1, 1],
        layer_type="basic",
        out_features=["stage2", "stage3", "stage4"] if kind == "deformable detr" else ["stage4"],
    )
    shared = {
        "backbone_config": backbone,
        "d_model": 32,
        "num_queries": 12,
        "num_labels": 5,
        "encoder_layers": 1,
        "decoder_layers": 2,
        "encoder_ffn_dim": 32,
        "decoder_ffn_dim": 32,
        "encoder_attention_heads": 4,
        "decoder_attention_heads": 4,
    }
    size = {"shortest_edge": 64, "longest_edge": 112}
    torch.manual_seed(0)
    if kind == "deformable detr":
        config = transformers.DeformableDetrConfig(**shared, num_feature_levels=3)
        model = transformers.DeformableDetrForObjectDetection(config)
        processor = transformers.DeformableDetrImageProcessor(size=size)
    else:
        model = transformers.DetrForObjectDetection(transformers.DetrConfig(**shared))
        pad = {"pad_size": {"height": 128, "width": 128}} if kind == "padded detr" else {}
        processor = transformers.DetrImageProcessor(size=size, **pad)
    with torch.no_grad():
        for weight in model.parameters():
            weight.add_(torch.randn(weight.shape) * 0.05)
    return model, processor


@pytest.mark.parametrize("kind", ["detr", "padded detr", "deformable detr"])
@pytest.mark.parametrize("size", [(300, 200), (97, 300)])
def test_other_models_of_the_family_follow_their_own_rules(opened, tmp_path, kind, size):
    model, processor = small_model(kind)
    model.save_pretrained(tmp_path)
    processor.save_pretrained(tmp_path)
    image = rendered(13).image.resize(size)
    expert = opened("closed_set", model=str(tmp_path), **LOOSE)
    masked = expert.prepare(image).mask.float().mean()
    assert masked < 1 if kind == "padded detr" else masked == 1
    rows = decided(expert, image)
    assert len(rows) > 5
    assert_the_librarys(rows, library_boxes(tmp_path, image, 0.1))
    assert expert.least() == (64, 64)
    pair = expert.measure([image, rendered(14).image.resize(size)])
    assert np.allclose(boxes_of(pair[0]["boxes"][:5]), boxes_of(rows[:5]), atol=1e-4)


def test_what_a_processor_shrinks_to_is_what_is_needed_of_a_picture(opened):
    assert opened("closed_set").least() == (160, 160)
    assert least_side(SimpleNamespace(size={"max_height": 9, "max_width": 9})) is None


@pytest.mark.parametrize("size", [(20_000, 40), (40, 20_000), (700, 400), (9, 1200)])
def test_a_bright_place_lies_where_it_is_however_the_picture_was_squeezed(opened, size):
    wide, high = size
    image = Image.new("RGB", size)
    image.paste((255, 255, 255), (wide // 4, high // 2, wide // 2, high))
    values = masked_pixels(opened("closed_set")._detector._processor, image).values
    bright = values.mean(dim=0) > 0.5
    x, y = bright.any(dim=0).nonzero(), bright.any(dim=1).nonzero()
    found = [x.min() / 160, y.min() / 160, (x.max() + 1) / 160, (y.max() + 1) / 160]
    true = [wide // 4 / wide, high // 2 / high, wide // 2 / wide, 1]
    assert [float(one) for one in found] == pytest.approx(true, abs=0.02)


def test_pictures_of_one_shape_share_a_batch(opened, tmp_path):
    model, processor = small_model("detr")
    model.save_pretrained(tmp_path)
    processor.save_pretrained(tmp_path)
    expert = opened("closed_set", model=str(tmp_path), **LOOSE)
    buckets = [expert.bucket(expert.prepare(Image.new("RGB", size))) for size in ((300, 200), (600, 400), (200, 300))]
    assert buckets[0] == buckets[1] != buckets[2]


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"threshold": 0.01}, "threshold 0.01 is below the lowest score that is stored, floor 0.05: set floor"),
        ({"boxes": "a.json"}, "boxes is for family file only, and the family is detr"),
        ({"family": "file"}, "family file needs boxes"),
        ({"family": "file", "boxes": "a.json", "model": "x"}, "model is for family detr only, and the family is file"),
        ({"precision": "float16"}, "Input should be"),
    ],
)
def test_settings_that_do_not_go_together_are_refused(settings, words):
    with pytest.raises(ValidationError, match=words):
        ClosedSetSection(**settings)


def test_a_model_that_detects_nothing_is_a_setup_error(small_weights):
    with pytest.raises(SetupError, match=r"perceive\.closed_set could not load"):
        ClosedSet(ClosedSetSection(model=str(small_weights["owlv2"]))).open("cpu")

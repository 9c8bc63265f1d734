"""OWLv2 against the library, and what is decided over its rows."""

import functools
import io
import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from pydantic import ValidationError
from torchvision.ops import box_iou
from transformers import Owlv2ForObjectDetection, Owlv2Processor, pipeline

from experts.base import bounded
from experts.boxes import corners, measured_rows
from experts.open_set import OpenSet, OpenSetSection
from experts.open_set_detectors.owlv2 import LONGEST_ASPECT, LONGEST_SIDE, in_picture
from schemas.errors import RequestError
from schemas.pictures import decode_rgb
from tests.photographs import awkward_files
from tests.scenes import rendered

LABELS = ["car", "tree", "cone", "sign", "robot", "ball"]
MORE = [*LABELS, "beach", "house", "cup", "a red kite", "teapot", "Dog"]
LEAST = 0.02
EVERYTHING = {"floor": LEAST, "threshold": LEAST, "nms_iou": 1.0, "cap_above": 10_000, "keep": 2000}
CORNERS = ("x1", "y1", "x2", "y2")


def context(labels):
    return {"tags": {"tags": [{"tag": label, "score": 0.5, "threshold": None} for label in labels]}}


def row(label, score, box, anchor):
    return {"label": label, "score": float(np.float32(score)), **dict(zip(CORNERS, box, strict=True)), "anchor": anchor}


def tuples(prior):
    return [tuple(box[name] for name in ("label", "score", *CORNERS)) for box in prior["boxes"]]


def assert_the_same(ours, theirs, least, tolerance):
    """Each (label, score, x1, y1, x2, y2) has its partner, but for those whose last bit decides whether they count."""
    for some, others in ((ours, theirs), (theirs, ours)):
        left = list(others)
        for one in (one for one in some if one[1] > least + 1e-4):
            place = min(range(len(left)), key=lambda i: (left[i][0] != one[0], distance(left[i], one)))
            assert left[place][0] == one[0] and distance(left[place], one) < tolerance, one
            left.pop(place)


def distance(one, other):
    return np.abs(np.subtract(one[1:], other[1:])).max()


@functools.cache
def loaded(folder):
    return Owlv2Processor.from_pretrained(folder), Owlv2ForObjectDetection.from_pretrained(folder).eval()


def library_boxes(folder, image, labels, threshold):
    """(label, score, corners as clipped fractions) by the library's model and post-processing: one label a box."""
    processor, model = loaded(folder)
    inputs = processor(text=[[f"a photo of {label}" for label in labels]], images=[image], return_tensors="pt")
    with torch.inference_mode():
        outputs = model(**inputs)
    (found,) = processor.post_process_grounded_object_detection(
        outputs, threshold=threshold, target_sizes=[(image.height, image.width)], text_labels=[labels]
    )
    boxes = np.clip(found["boxes"].numpy() / np.array([*image.size, *image.size]), 0, 1)
    rows = zip(found["text_labels"], found["scores"].tolist(), boxes.tolist(), strict=True)
    return [(label, score, *box) for label, score, box in rows if box[0] < box[2] and box[1] < box[3]]


def everything(opened, image, labels):
    expert = opened("open_set", **EVERYTHING)
    (measured,) = expert.measure([image], [context(labels)])
    return expert.decide(measured, context(labels))


@pytest.mark.parametrize("size", [(450, 300), (301, 450), (77, 399), (256, 256)])
def test_boxes_lie_where_the_library_puts_them_in_pictures_of_any_shape(opened, small_weights, size):
    image = rendered(20).image.resize(size)
    expected = library_boxes(small_weights["owlv2"], image, LABELS, LEAST)
    assert len(expected) > 3
    got = tuples(everything(opened, image, LABELS))
    scores = [one[1] for one in got]
    assert scores == sorted(scores, reverse=True)
    assert_the_same(got, expected, LEAST, 1e-4)


STRIPS = {"20000 x 60": (20_000, 60), "9 x 1500": (9, 1500)}


@functools.cache
def awkward_pictures():
    strips = {name: rendered(20).image.resize(size) for name, size in STRIPS.items()}
    return {name: decode_rgb(data) for name, data in awkward_files().items()} | strips


@pytest.mark.parametrize("name", awkward_pictures())
def test_boxes_are_the_librarys_whatever_the_file(opened, small_weights, name):
    image = awkward_pictures()[name]
    # The library pads a strip of 20,000 px to gigabytes; squeezed as the expert squeezes it, fractions stay.
    expected = library_boxes(small_weights["owlv2"], bounded(image, LONGEST_SIDE, LONGEST_ASPECT), LABELS, LEAST)
    assert_the_same(tuples(everything(opened, image, LABELS)), expected, LEAST, 1e-4)


@pytest.mark.parametrize("name", ["jpeg", "odd size", "cmyk", "palette", "grey", "on its side"])
def test_measured_rows_are_those_of_the_librarys_pipeline_from_the_file_on(opened, small_weights, name):
    data, floor = awkward_files()[name], 0.005
    processor, model = loaded(small_weights["owlv2"])
    parts = {"image_processor": processor.image_processor, "tokenizer": processor.tokenizer}
    detector = pipeline("zero-shot-object-detection", model, **parts, device="cpu")
    queries = [f"a photo of {label}" for label in LABELS]
    found = detector(Image.open(io.BytesIO(data)), candidate_labels=queries, threshold=floor)
    image = decode_rgb(data)
    expert = opened("open_set", **EVERYTHING | {"floor": floor})
    (measured,) = expert.measure([image], [context(LABELS)])
    assert len(measured["boxes"]) < 2000
    scale = np.array([*image.size, *image.size])
    expected = []
    for one in found:
        box = np.clip(np.array([one["box"][k] for k in ("xmin", "ymin", "xmax", "ymax")]), 0, scale) / scale
        expected.append((one["label"].removeprefix("a photo of "), one["score"], *box))
    # The pipeline cuts corners to whole pixels, and gives boxes that lie outside the picture.
    pixel = 1.01 / min(image.size)
    ours = tuples(measured)
    assert len(ours) > 20
    for one in ours:
        assert min(distance(other, one) for other in expected if other[0] == one[0]) < pixel
    for one in expected:
        if one[4] - one[2] > 2 * pixel and one[5] - one[3] > 2 * pixel:
            assert min(distance(other, one) for other in ours if other[0] == one[0]) < pixel
    scores = np.array([one[1] for one in ours])
    assert all(np.abs(np.array([one[1] for one in expected]) - score).min() < 1e-5 for score in scores)


@pytest.mark.parametrize("size", [(20_000, 40), (40, 20_000), (3000, 1000), (400, 700), (1200, 9)])
def test_a_bright_place_is_found_where_it_is_however_the_picture_was_squeezed(opened, size):
    wide, high = size
    image = Image.new("RGB", size)
    image.paste((255, 255, 255), (wide // 4, high // 3, wide // 2, math.ceil(high * 2 / 3)))
    prepared = opened("open_set", **EVERYTHING).prepare(image)
    _, rows, columns = prepared.values.shape
    bright = prepared.values.mean(dim=0) > 0.1
    x, y = bright.any(dim=0).nonzero(), bright.any(dim=1).nonzero()
    x1, x2, y1, y2 = x.min() / columns, (x.max() + 1) / columns, y.min() / rows, (y.max() + 1) / rows
    seen = np.array([[(x1 + x2) / 2, (y1 + y2) / 2, x2 - x1, y2 - y1]], dtype=np.float64)
    (box,) = in_picture(seen, prepared.size)
    true = [(wide // 4) / wide, (high // 3) / high, (wide // 2) / wide, math.ceil(high * 2 / 3) / high]
    across = max(prepared.size) / np.array([*prepared.size, *prepared.size])
    assert np.abs(box - true) == pytest.approx(np.zeros(4), abs=float(1.5 / columns * across.max()))
    assert max(prepared.size) / min(prepared.size) <= LONGEST_ASPECT + 0.1


def test_every_image_is_asked_for_its_own_tags_only(opened):
    images = [rendered(20).image] * 3
    expert = opened("open_set", **EVERYTHING)
    both, one, none = expert.measure(images, [context(LABELS), context(LABELS[:1]), context([])])
    assert len({box["label"] for box in both["boxes"]}) > 2
    assert {box["label"] for box in one["boxes"]} == {"car"}
    assert none == {"boxes": []}
    (alone,) = expert.measure(images[:1], [context(LABELS[:1])])
    assert_the_same(tuples(alone), tuples(one), LEAST, 1e-5)


def test_the_best_tags_are_asked_each_once(opened):
    expert = opened("open_set", **EVERYTHING | {"max_queries": 2})
    image = rendered(20).image
    (measured,) = expert.measure([image], [context(["car", "car", "tree", "ball"])])
    assert {box["label"] for box in measured["boxes"]} == {"car", "tree"}
    pairs = [(box["anchor"], box["label"]) for box in measured["boxes"]]
    assert len(pairs) == len(set(pairs))


@pytest.mark.parametrize("asked", [["sign", "car"], ["ball", "Dog", "tree"], ["teapot"], MORE[::-1]])
def test_measuring_many_tags_and_deciding_is_asking_for_the_few(opened, asked):
    image = rendered(20).image
    expert = opened("open_set", **EVERYTHING)
    (many,), (few,) = expert.measure([image], [context(MORE)]), expert.measure([image], [context(asked)])
    decided, direct = expert.decide(many, context(asked)), expert.decide(few, context(asked))
    assert direct["boxes"] or asked == ["teapot"]
    assert [(box["label"], box["anchor"]) for box in decided["boxes"]] == [
        (box["label"], box["anchor"]) for box in direct["boxes"]
    ]
    assert np.allclose([one[1:] for one in tuples(decided)], [one[1:] for one in tuples(direct)], atol=1e-6)


LEVELS = st.sampled_from([0.05, 0.1, 0.15, 0.3, 0.5, 0.9])


@st.composite
def scored(draw):
    anchors, tags = draw(st.integers(1, 6)), draw(st.integers(1, 5))
    values = draw(st.lists(LEVELS, min_size=anchors * tags, max_size=anchors * tags))
    asked = draw(st.permutations(range(tags)))[: draw(st.integers(0, tags))]
    return (
        np.array(values, dtype=np.float32).reshape(anchors, tags),
        list(asked),
        draw(st.sampled_from([0.1, 0.2, 0.3])),
    )


@given(scored())
def test_filtering_tags_later_is_never_having_asked_them(case):
    """Ties and thresholds included: the arg-max over the tags that remain, first of equals, strictly above."""
    scores, asked, threshold = case
    names = [f"tag {i}" for i in range(scores.shape[1])]
    anchors, tags = np.nonzero(scores > np.float32(0.1))
    boxes = np.random.default_rng(0).random((len(scores), 4)) * 0.4 + np.array([0, 0, 0.5, 0.5])
    rows = measured_rows(names, tags, scores[anchors, tags], boxes[anchors], anchors, 2000)
    expert = OpenSet(OpenSetSection(floor=0.1, threshold=threshold, nms_iou=1.0, cap_above=1000))
    decided = expert.decide({"boxes": rows}, context([names[i] for i in asked]))["boxes"]
    direct = set()
    if asked:
        best = torch.from_numpy(scores[:, asked]).max(dim=-1)
        for anchor in (best.values > threshold).nonzero().flatten().tolist():
            direct.add((anchor, names[asked[best.indices[anchor]]], best.values[anchor].item()))
    assert {(one["anchor"], one["label"], one["score"]) for one in decided} == direct
    assert len(decided) == len(direct)


def plain_decision(rows, tags, threshold, limit, cap_above, per_label):
    """MG-LLaVA's rules one after the other, box by box."""
    at_anchor = {}
    for one in rows:
        if one["label"] in tags:
            held = at_anchor.get(one["anchor"])
            key = (-one["score"], tags.index(one["label"]))
            if held is None or key < (-held["score"], tags.index(held["label"])):
                at_anchor[one["anchor"]] = one
    left = sorted((one for one in at_anchor.values() if one["score"] > threshold), key=lambda one: -one["score"])
    kept = []
    for one in left:
        rivals = [other for other in kept if other["label"] == one["label"]]
        corner = [torch.tensor([[other[k] for k in CORNERS] for other in group]) for group in ([one], rivals)]
        if not rivals or box_iou(*corner).max() <= limit:
            kept.append(one)
    if len(kept) > cap_above:
        kept = [one for i, one in enumerate(kept) if sum(o["label"] == one["label"] for o in kept[:i]) < per_label]
    return kept


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("settings", [{}, {"cap_above": 40, "cap_per_label": 3, "threshold": 0.3, "nms_iou": 0.5}])
def test_decisions_are_those_of_a_plain_reading_of_the_rules(seed, settings):
    rng = np.random.default_rng(seed)
    names = [f"tag {i}" for i in range(12)]
    low = rng.random((400, 2)) * 0.8
    boxes = np.concatenate([low, low + 0.01 + rng.random((400, 2)) * 0.2], axis=1)
    pairs = rng.permutation(400 * 12)[:900]
    scores = (0.1 + 0.9 * rng.random(900) ** 2).astype(np.float32)
    rows = measured_rows(names, pairs % 12, scores, boxes[pairs // 12], pairs // 12, 2000)
    tags = [names[i] for i in rng.permutation(12)[:8]]
    section = OpenSetSection(**settings)
    decided = OpenSet(section).decide({"boxes": rows}, context(tags))["boxes"]
    rules = section.threshold, section.nms_iou, section.cap_above, section.cap_per_label
    assert decided == plain_decision(rows, tags, *rules)
    assert len(decided) > 20


def spread(counts):
    """Boxes that do not overlap, `counts` of each label, best first."""
    labels = [label for label, count in counts.items() for _ in range(count)]
    return [
        row(label, 0.9 - i / 1000, ((i % 20) / 20, i // 20 / 20, (i % 20 + 1) / 20, (i // 20 + 1) / 20), i)
        for i, label in enumerate(labels)
    ]


def test_the_cap_applies_per_label_and_only_above_its_limit():
    tags = context(["car", "tree", "ball"])
    rows = spread({"car": 70, "tree": 28, "ball": 2})
    assert OpenSet(OpenSetSection()).decide({"boxes": rows}, tags)["boxes"] == rows
    rows = spread({"car": 70, "tree": 28, "ball": 3})
    capped = OpenSet(OpenSetSection()).decide({"boxes": rows}, tags)["boxes"]
    assert capped == [*rows[:20], *rows[70:90], *rows[98:]]
    hard = OpenSet(OpenSetSection(cap="hard")).decide({"boxes": rows}, tags)["boxes"]
    assert hard == rows[:100]


def test_a_hard_cap_holds_where_many_labels_pass_the_one_of_mg_llava():
    labels = [f"label {i}" for i in range(8)]
    rows = spread(dict.fromkeys(labels, 20))
    assert len(OpenSet(OpenSetSection()).decide({"boxes": rows}, context(labels))["boxes"]) == 160
    hard = OpenSet(OpenSetSection(cap="hard", cap_above=30)).decide({"boxes": rows}, context(labels))["boxes"]
    assert hard == rows[:30]


def test_deciding_keeps_what_else_the_row_says_and_takes_rows_without_tags():
    expert = OpenSet(OpenSetSection())
    measured = {"uid": "0", "boxes": spread({"car": 2}), "error": None}
    assert expert.decide(measured, context([])) == measured | {"boxes": []}
    assert expert.decide(measured | {"boxes": []}, context(["car"])) == measured | {"boxes": []}


def test_the_floor_and_the_number_kept_cut_from_below(opened):
    image = rendered(20).image
    (every,) = opened("open_set", **EVERYTHING).measure([image], [context(LABELS)])
    (few,) = opened("open_set", **EVERYTHING | {"keep": 7}).measure([image], [context(LABELS)])
    assert few["boxes"] == every["boxes"][:7]
    (high,) = opened("open_set", **EVERYTHING | {"floor": 0.3, "threshold": 0.3}).measure([image], [context(LABELS)])
    assert high["boxes"] == [box for box in every["boxes"] if box["score"] > 0.3] != []


def test_thresholds_re_run_no_model_and_floors_do():
    plain = OpenSetSection()
    loose = OpenSetSection(threshold=0.5, nms_iou=0.9, cap="hard", cap_above=3, cap_per_label=1)
    assert plain.decides() == loose.decides() and plain.decisions() != loose.decisions()
    assert plain.decides() != OpenSetSection(floor=0.05).decides()
    assert OpenSet(plain).needs == ("tags",)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"threshold": 0.05}, "threshold 0.05 is below the lowest score that is stored, floor 0.1: set floor"),
        ({"family": "grounding_dino"}, "family grounding_dino needs a model of its own, such as openmmlab"),
        ({"family": "grounding_dino", "model": "x", "prefix": "the "}, "prefix is for family owlv2 only"),
    ],
)
def test_settings_that_do_not_go_together_are_refused(settings, words):
    with pytest.raises(ValidationError, match=words):
        OpenSetSection(**settings)


def test_a_folder_of_the_other_family_is_found_before_anything_starts(small_weights, tmp_path):
    section = OpenSetSection(family="grounding_dino", model=str(small_weights["owlv2"]))
    with pytest.raises(RequestError, match=r"holds a model of type owlv2.*Set perceive\.open_set\.family to owlv2"):
        OpenSet(section).models()
    (tmp_path / "config.json").write_text('{"model_type": "mm-grounding-dino"}')
    with pytest.raises(RequestError, match=r"Set perceive\.open_set\.family to grounding_dino"):
        OpenSet(OpenSetSection(model=str(tmp_path))).models()


def test_boxes_of_the_square_lie_in_the_picture():
    box = np.array([[0.25, 0.25, 0.5, 0.5]])
    assert in_picture(box, (100, 50)).tolist() == [[0.0, 0.0, 0.5, 1.0]]
    assert in_picture(box, (50, 100)).tolist() == [[0.0, 0.0, 1.0, 0.5]]
    assert in_picture(box, (7, 7)).tolist() == corners(box).tolist()

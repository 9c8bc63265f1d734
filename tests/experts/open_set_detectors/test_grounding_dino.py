"""Grounding DINO and MM-Grounding-DINO against transformers' own processor, with random weights."""

import functools
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from transformers import AutoModelForZeroShotObjectDetection, GroundingDinoProcessor

from experts.base import bounded
from experts.detr_pixels import LONGEST_ASPECT, LONGEST_SIDE
from experts.open_set import OpenSet, OpenSetSection
from experts.open_set_detectors.grounding_dino import token_owners
from schemas.errors import RequestError, SetupError
from schemas.pictures import decode_rgb
from tests.fakes import grounding_dino
from tests.photographs import awkward_files
from tests.scenes import rendered

TAGS = ["car", "traffic light", "a red kite", "dog", "tree"]
SEPARATORS = (0, 101, 102, 1012)
LOOSE = {"floor": 0.0, "threshold": 0.0, "keep": 2000, "nms_iou": 1.0, "cap_above": 10_000}
CORNERS = ("x1", "y1", "x2", "y2")


@pytest.fixture(scope="module", params=["mm", "plain"])
def folder(request, tmp_path_factory):
    return grounding_dino.make(tmp_path_factory.mktemp(request.param), mm=request.param == "mm")


@pytest.fixture(scope="module")
def opened(folder):
    experts = {}

    def build(**settings):
        section = OpenSetSection(family="grounding_dino", model=str(folder), **LOOSE | settings)
        key = section.model_dump_json()
        if key not in experts:
            experts[key] = OpenSet(section)
            experts[key].open("cpu")
        return experts[key]

    yield build
    for expert in experts.values():
        expert.close()


def context(tags):
    return {"tags": {"tags": [{"tag": tag, "score": 0.5, "threshold": None} for tag in tags]}}


def picture(size=(300, 200)):
    return rendered(20).image.resize(size)


@functools.cache
def loaded(folder):
    processor = GroundingDinoProcessor.from_pretrained(folder)
    return processor, AutoModelForZeroShotObjectDetection.from_pretrained(folder).eval()


def library(folder, image, tags):
    """(processor, inputs, outputs) as a user of transformers runs the model."""
    processor, model = loaded(folder)
    inputs = processor(images=image, text=[tags], return_tensors="pt")
    with torch.no_grad():
        return processor, inputs, model(**inputs)


def boxes_of(rows):
    return np.array([[row[name] for name in CORNERS] for row in rows])


def in_fractions(found, size):
    return np.clip(found["boxes"].numpy() / np.array([*size, *size]), 0, 1)


@functools.cache
def pictures():
    strip = {"20000 x 60": picture((20_000, 60))}
    return {name: decode_rgb(data) for name, data in awkward_files().items()} | strip


@pytest.mark.parametrize("name", pictures())
def test_boxes_and_scores_are_the_librarys(opened, folder, name):
    image = pictures()[name]
    seen = bounded(image, LONGEST_SIDE, LONGEST_ASPECT)
    processor, inputs, outputs = library(folder, seen, TAGS)
    # The library counts stops and special tokens among the words, for which nobody asked.
    separators = torch.isin(inputs.input_ids[0], torch.tensor(SEPARATORS))
    outputs.logits[..., : len(separators)][..., separators] = -torch.inf
    (found,) = processor.post_process_grounded_object_detection(
        outputs, threshold=0.3, target_sizes=[(seen.height, seen.width)]
    )
    corners, scores = in_fractions(found, seen.size), found["scores"].numpy()
    alive = np.all(corners[:, 2:] > corners[:, :2], axis=1)
    order = np.argsort(-scores[alive], kind="stable")

    expert = opened(threshold=0.3)
    (measured,) = expert.measure([image], [context(TAGS)])
    rows = expert.decide(measured, context(TAGS))["boxes"]
    assert len(rows) > 5
    assert np.array([row["score"] for row in rows]) == pytest.approx(scores[alive][order], abs=1e-6)
    assert np.allclose(boxes_of(rows), corners[alive][order], atol=1e-5)


def test_the_librarys_words_are_of_the_tag_that_we_name(opened, folder):
    image = picture()
    processor, _, outputs = library(folder, image, TAGS)
    expert = opened()
    (measured,) = expert.measure([image], [context(TAGS)])
    best = {row["anchor"]: row for row in expert.decide(measured, context(TAGS))["boxes"]}
    told = 0
    for query in range(grounding_dino.QUERIES):
        score = best[query]["score"]
        one = SimpleNamespace(
            logits=outputs.logits[:, query : query + 1],
            pred_boxes=outputs.pred_boxes[:, query : query + 1],
            input_ids=outputs.input_ids,
        )
        (found,) = processor.post_process_grounded_object_detection(one, threshold=0.0, text_threshold=score - 1e-5)
        words = [word for word in found["text_labels"][0].replace(".", " ").split() if not word.startswith("[")]
        if found["scores"].item() == pytest.approx(score, abs=1e-5) and len(words) == 1:
            assert words[0] in best[query]["label"].split()
            told += 1
    assert told > 5


def test_labels_scores_and_boxes_are_the_librarys_where_it_names_whole_tags(opened, folder, monkeypatch):
    """Over a model that is sure: each query's words are those of one tag."""
    expert, image, rng = opened(threshold=0.3), picture((90, 64)), np.random.default_rng(0)
    processor, inputs, _ = library(folder, image, TAGS)
    ids, count = inputs.input_ids[0], 40
    owner = np.cumsum(np.isin(ids, SEPARATORS)) - 1
    words = ~np.isin(ids, SEPARATORS)
    logits = torch.full((1, count, grounding_dino.MOST_TOKENS), -torch.inf)
    logits[..., : len(ids)] = -8
    for query in range(count):
        chosen = torch.from_numpy(words & (owner == rng.integers(len(TAGS))))
        logits[0, query, : len(ids)][chosen] = torch.from_numpy(rng.normal(1, 0.6, int(chosen.sum()))).float()
    centred = torch.from_numpy(rng.random((1, count, 4)) * 0.4 + 0.2).float()
    outputs = SimpleNamespace(logits=logits, pred_boxes=centred, input_ids=inputs.input_ids)
    (found,) = processor.post_process_grounded_object_detection(
        outputs, threshold=0.3, text_threshold=0.01, target_sizes=[(image.height, image.width)]
    )
    assert set(found["text_labels"]) == set(TAGS)

    monkeypatch.setattr(expert._detector, "_forward", lambda **_: outputs)
    (measured,) = expert.measure([image], [context(TAGS)])
    rows = expert.decide(measured, context(TAGS))["boxes"]
    order = found["scores"].argsort(descending=True, stable=True).tolist()
    assert [row["label"] for row in rows] == [found["text_labels"][i] for i in order]
    assert [row["score"] for row in rows] == found["scores"][order].tolist()
    assert np.allclose(boxes_of(rows), in_fractions(found, image.size)[order], atol=1e-6)


def test_every_box_has_a_score_for_every_tag_and_a_tag_left_out_is_left_out_only(opened):
    expert = opened()
    (measured,) = expert.measure([picture()], [context(TAGS)])
    assert len(measured["boxes"]) == grounding_dino.QUERIES * len(TAGS)
    few = expert.decide(measured, context(["dog", "tree"]))["boxes"]
    for anchor in range(grounding_dino.QUERIES):
        (kept,) = [row for row in few if row["anchor"] == anchor]
        both = [row for row in measured["boxes"] if row["anchor"] == anchor and row["label"] in ("dog", "tree")]
        assert kept == max(both, key=lambda row: row["score"])


def test_tags_beyond_one_sentence_are_asked_in_the_next(opened):
    expert = opened()
    tags = [f"{word} {other}" for word in grounding_dino.WORDS for other in ("car", "tree")]
    sentences = expert._detector.sentences(tags)
    assert [place for one in sentences for place in one.tags] == list(range(len(tags)))
    for one in sentences:
        assert len(expert._detector._processor.tokenizer(one.text).input_ids) <= grounding_dino.MOST_TOKENS
        assert [one.text[start:end] for start, end in one.spans] == [tags[i] for i in one.tags]
        assert one.text == ". ".join(tags[i] for i in one.tags) + "."
    assert len(sentences) == 2
    (both,) = expert.measure([picture()], [context(tags)])
    parts = [expert.measure([picture()], [context([tags[i] for i in one.tags])])[0]["boxes"] for one in sentences]
    shifted = [row | {"anchor": row["anchor"] + grounding_dino.QUERIES} for row in parts[1]]

    def ordered(rows):
        return sorted(rows, key=lambda row: (row["anchor"], row["label"]))

    assert ordered(both["boxes"]) == ordered([*parts[0], *shifted])


def test_pictures_of_one_batch_are_asked_for_their_own_tags(opened):
    expert = opened()
    tags = [f"{word} {other}" for word in grounding_dino.WORDS for other in ("car", "tree")]
    asked = [TAGS, [], ["dog"], tags]
    image = picture()
    together = expert.measure([image] * 4, [context(one) for one in asked])
    for one, prior in zip(asked, together, strict=True):
        (alone,) = expert.measure([image], [context(one)])
        assert {row["label"] for row in prior["boxes"]} == set(one)
        values = [{(row["anchor"], row["label"]): row["score"] for row in rows["boxes"]} for rows in (prior, alone)]
        assert values[0] == pytest.approx(values[1], abs=1e-4)


def test_stops_in_tags_part_no_class_and_empty_or_endless_tags_do_no_harm(opened):
    expert = opened()
    tags = ["St. Bernard?", "...", "", "x" * 90, "Dog"]
    sentences = expert._detector.sentences(tags)
    assert [one.text for one in sentences] == ["st bernard.", "x" * 37 + ".", "dog."]
    (measured,) = expert.measure([picture()], [context(tags)])
    assert {row["label"] for row in measured["boxes"]} == {"St. Bernard?", "x" * 90, "Dog"}
    assert expert.measure([picture()], [context(["...", "?"])]) == [{"boxes": []}]


def test_tokens_belong_to_the_tag_that_they_begin_in():
    offsets = np.array([[0, 0], [0, 3], [3, 4], [5, 12], [13, 18], [18, 19], [0, 0]])
    assert token_owners([(0, 3), (5, 18)], offsets).tolist() == [-1, 0, -1, 1, 1, -1, -1]


@pytest.mark.parametrize("precision", ["bfloat16", "float16"])
def test_half_precision_runs_and_gives_boxes(opened, precision):
    expert = opened(precision=precision)
    (measured,) = expert.measure([picture()], [context(TAGS)])
    assert len(measured["boxes"]) == grounding_dino.QUERIES * len(TAGS)


def test_values_that_are_not_finite_are_an_error(opened, monkeypatch):
    expert = opened()
    forward = expert._detector._forward

    def broken(**inputs):
        outputs = forward(**inputs)
        outputs.logits[0, 0, 1] = torch.nan
        return outputs

    monkeypatch.setattr(expert._detector, "_forward", broken)
    with pytest.raises(FloatingPointError, match="open_set model gave values that are not finite"):
        expert.measure([picture()], [context(TAGS)])


def test_a_model_of_another_kind_is_refused(folder, small_weights):
    with pytest.raises(RequestError, match=r"Set perceive\.open_set\.family to grounding_dino"):
        OpenSet(OpenSetSection(model=str(folder))).models()
    with pytest.raises(SetupError, match=r"perceive\.open_set"):
        OpenSet(OpenSetSection(family="grounding_dino", model=str(small_weights["owlv2"]))).open("cpu")

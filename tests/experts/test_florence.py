import functools
import json
import shutil

import pyarrow as pa
import pytest
import torch
from pydantic import ValidationError
from transformers import AutoProcessor

from demo.split import seeds
from experts.base import stacked
from experts.florence import (
    CAPTION,
    CAPTIONS,
    PHRASES,
    REGIONS,
    TEXT,
    Florence,
    FlorenceSection,
    _Ask,
    plain,
    region_boxes,
    text_lines,
)
from schemas.errors import SetupError
from schemas.tables import FLORENCE_PRIOR, check_table
from tests.scenes import rendered

TAGS = {"tags": {"tags": [{"tag": tag, "score": 0.5} for tag in ("red cup", "ball", "table", "tree")], "error": None}}


@pytest.fixture(scope="module")
def processor(small_weights):
    return AutoProcessor.from_pretrained(small_weights["florence"])


@pytest.fixture(scope="module")
def weights(small_weights, tmp_path_factory):
    """The small model with rules for phrases, which it was not trained for: what it says of them is any text."""
    folder = shutil.copytree(small_weights["florence"], tmp_path_factory.mktemp("florence") / "model")
    config = json.loads((folder / "processor_config.json").read_text())
    config["post_processor_config"]["phrase_grounding"] = {"banned_grounding_tokens": ["it"]}
    (folder / "processor_config.json").write_text(json.dumps(config))
    return str(folder)


@pytest.fixture(scope="module")
def scenes():
    return [rendered(seed).image for seed in seeds("validation", 5)]


def parsed(processor, answer, task):
    return processor.post_process_generation(text=answer, task=task, image_size=(1000, 1000))[task]


def test_regions_are_bin_centres(processor):
    answer = "</s><s>a red cup<loc_0><loc_250><loc_499><loc_999>spoon<loc_10><loc_10><loc_10><loc_20>"
    answer += "<loc_7>" * 5 + "fork<loc_1><loc_1><loc_2><loc_2></s>"
    box, other = region_boxes(parsed(processor, answer, REGIONS))
    place = {"x1": 0.0005, "y1": 0.2505, "x2": 0.4995, "y2": 0.9995}
    assert box == {"label": "a red cup", "score": 1.0, **place, "anchor": 0}
    assert (other["label"], other["anchor"]) == ("fork", 1)


def test_text_is_verbatim_with_its_quad_and_without_stray_locations(processor):
    quad = "".join(f"<loc_{n}>" for n in (10, 20, 500, 20, 500, 60, 10, 60))
    answer = f"</s><s>Café 7{quad}<loc_3>{quad}</s>"
    (line,) = text_lines(parsed(processor, answer, TEXT))
    assert line["text"] == "Café 7"
    assert line["polygon"] == pytest.approx([0.0105, 0.0205, 0.5005, 0.0205, 0.5005, 0.0605, 0.0105, 0.0605])


def test_captions_lose_stray_locations_only():
    assert plain(" a cup <loc_12>on a table\n") == "a cup on a table"


@pytest.mark.parametrize(
    ("settings", "tasks"),
    [
        ({}, {CAPTION, TEXT, REGIONS}),
        ({"caption": "short", "text": False}, {"<CAPTION>", REGIONS}),
        ({"caption": "detailed", "text": False, "regions": False}, {"<DETAILED_CAPTION>"}),
        ({"text": False, "regions": False}, {CAPTION}),
        ({"text": False, "regions": False, "phrases": "caption"}, {CAPTION, PHRASES}),
        ({"caption": "none", "text": False, "regions": False, "phrases": "tags"}, {PHRASES}),
        ({"caption": "none", "text": False, "regions": False}, set()),
    ],
)
def test_only_what_is_asked_for_is_generated_and_the_tower_looks_once(
    opened, monkeypatch, weights, scenes, settings, tasks
):
    expert = opened("florence", model=weights, **settings)
    looks = []
    see = expert._see
    monkeypatch.setattr(expert, "_see", lambda **kwargs: looks.append(1) or see(**kwargs))
    prepared = [expert.prepare(image) for image in scenes[:2]]
    answers = expert.look(prepared, [TAGS] * 2)
    assert [set(one) for one in answers] == [tasks] * 2
    assert looks == [1]
    prior = expert.finish(answers[0])
    assert (prior["caption"] is not None) == bool(tasks & set(CAPTIONS.values()))
    assert not prior["lines"] or TEXT in tasks
    assert bool(prior["regions"]) == (REGIONS in tasks)
    assert not prior["phrases"] or PHRASES in tasks
    if CAPTION in tasks:
        assert prior["caption"].startswith("The image shows ") and "<" not in prior["caption"]


def test_the_prompts_are_tasks_that_the_library_knows(processor):
    assert {*CAPTIONS.values(), TEXT, REGIONS} <= processor.task_prompts_without_inputs.keys()
    assert PHRASES in processor.task_prompts_with_input


EVERY_TASK = [*CAPTIONS.values(), TEXT, REGIONS, PHRASES]
EDGES = ("x1", "y1", "x2", "y2")
PHRASE_LISTS = ["a purple ball and a green ball", "cup", "The image shows a red robot on the left.", "a, b", "sign"]


def asks():
    return [_Ask(i, task, PHRASE_LISTS[i] if task == PHRASES else "") for i in range(5) for task in EVERY_TASK]


@pytest.mark.parametrize("beams", [1, 3])
def test_every_answer_is_that_of_the_librarys_own_generate(opened, weights, scenes, beams):
    expert = opened("florence", model=weights, beams=beams)
    prepared = [expert.prepare(image) for image in scenes]
    with torch.inference_mode():
        seen = expert._see(pixel_values=stacked(prepared, "cpu", torch.float32)).pooler_output
        ours = expert._answers(asks(), seen)
    inputs = expert._processor(
        text=[ask.task + ask.about for ask in asks()],
        images=[scenes[ask.picture] for ask in asks()],
        padding=True,
        return_tensors="pt",
    )
    ids = expert._model.generate(**inputs, max_new_tokens=96, num_beams=beams, do_sample=False)
    theirs = expert._processor.batch_decode(ids, skip_special_tokens=False)
    assert [ours[ask.picture][ask.task] for ask in asks()] == theirs
    assert len(set(theirs)) > 20


@pytest.mark.parametrize("beams", [1, 3])
def test_answers_do_not_hang_on_what_else_is_asked(opened, weights, scenes, beams):
    expert = opened("florence", model=weights, beams=beams)
    among = expert.measure(scenes)
    for image, prior in zip(scenes[:2], among, strict=False):
        answers = {}
        for task in (CAPTION, TEXT, REGIONS):
            inputs = expert._processor(text=task, images=image, return_tensors="pt")
            ids = expert._model.generate(**inputs, max_new_tokens=96, num_beams=beams, do_sample=False)
            (answers[task],) = expert._processor.batch_decode(ids, skip_special_tokens=False)
        alone = expert.finish(answers)
        assert prior["caption"] == alone["caption"]
        assert [box["label"] for box in prior["regions"]] == [box["label"] for box in alone["regions"]]
        for box, other in zip(prior["regions"], alone["regions"], strict=True):
            # Of two bins that are as good, a batch may take the other.
            assert [box[edge] for edge in EDGES] == pytest.approx([other[edge] for edge in EDGES], abs=0.003)


def test_prompts_are_the_processors_own_and_too_long_ones_keep_their_end(opened, weights, scenes):
    expert = opened("florence", model=weights)
    ids, mask = expert._ids(asks(), 100)
    for row, kept, ask in zip(ids, mask, asks(), strict=True):
        own = expert._processor(text=ask.task + ask.about, images=scenes[0], return_tensors="pt").input_ids[0]
        assert row[: kept.sum()].tolist() == own[own != expert._processor.image_token_id].tolist()
        assert (row[kept.sum() :] == expert._processor.tokenizer.pad_token_id).all()
    ids, mask = expert._ids([_Ask(0, PHRASES, "ball " * 500), _Ask(0, CAPTION)], 40)
    assert ids.shape == (2, 40) and ids[0, -1] == expert._processor.tokenizer.eos_token_id
    assert mask.sum(dim=1).tolist() == [40, (ids[1] != expert._processor.tokenizer.pad_token_id).sum()]


def test_tags_that_are_too_many_for_the_model_do_no_harm(opened, weights, scenes):
    tags = {"tags": {"tags": [{"tag": f"very long tag number {i}", "score": 0.5} for i in range(300)]}}
    expert = opened("florence", model=weights, phrases="tags", max_phrases=200, caption="none", text=False)
    (prior,) = expert.measure(scenes[:1], [tags])
    assert prior["regions"]


def test_the_best_tags_are_asked_for_and_pictures_without_any_are_left_out(opened, weights, scenes):
    expert = opened("florence", model=weights, phrases="tags", max_phrases=3, regions=False, text=False)
    assert expert.needs == ("tags",)
    nothing = {"tags": {"tags": [], "error": "did not decode"}}
    assert expert._phrases([TAGS, nothing, TAGS], [{}] * 3) == [
        _Ask(0, PHRASES, "red cup, ball, table"),
        _Ask(2, PHRASES, "red cup, ball, table"),
    ]
    answers = expert.look([expert.prepare(image) for image in scenes[:2]], [nothing, TAGS])
    assert [PHRASES in one for one in answers] == [False, True]


def test_phrases_are_boxes_with_the_phrase_as_label(opened, weights):
    expert = opened("florence", model=weights, phrases="caption", text=False)
    assert expert.needs == ()
    answer = (
        "</s><s>a red cup<loc_0><loc_250><loc_499><loc_999><loc_1><loc_1><loc_9><loc_9>it<loc_1><loc_1><loc_2><loc_2>"
    )
    prior = expert.finish({CAPTION: "</s><s>A red cup.</s>", REGIONS: "</s>", PHRASES: answer + "</s><pad>"})
    assert [(box["label"], box["anchor"]) for box in prior["phrases"]] == [("a red cup", 0), ("a red cup", 1)]
    assert prior["caption"] == "A red cup." and prior["regions"] == []
    row = {"uid": "a", "error": None} | prior
    check_table(pa.Table.from_pylist([row], schema=FLORENCE_PRIOR), FLORENCE_PRIOR, "florence")


@pytest.mark.parametrize("beams", [1, 2])
@pytest.mark.parametrize("longest", [1, 2, 5, 6, 7, 9, 13])
def test_answers_that_are_cut_short_are_read_as_far_as_they_go(opened, weights, scenes, longest, beams):
    expert = opened("florence", model=weights, max_new_tokens=longest, beams=beams, phrases="caption")
    for prior in expert.measure(scenes[:2]):
        assert "<" not in prior["caption"] and "loc_" not in prior["caption"]
        assert len(prior["regions"]) <= longest // 5


def test_answers_end_at_the_models_own_positions(opened, weights, scenes):
    expert = opened("florence", anew=True, model=weights, max_new_tokens=4096, caption="none", text=False)
    most = expert._model.config.text_config.max_position_embeddings
    expert._model.generation_config.min_new_tokens = most
    (answer,) = expert.look([expert.prepare(scenes[0])], [{}])
    assert len(expert._processor.tokenizer(answer[REGIONS], add_special_tokens=False).input_ids) >= most - 1
    assert expert.finish(answer)["regions"]


def test_halves_answer_every_prompt(opened, weights, scenes):
    for precision in ("bfloat16", "float16"):
        expert = opened("florence", model=weights, precision=precision, phrases="caption", text=False)
        (prior,) = expert.measure(scenes[:1])
        assert prior["caption"].startswith("The image shows ") and prior["regions"]


def test_compiled_says_the_same(opened, monkeypatch, scenes):
    # The default backend takes minutes on a CPU, and is torch's to test.
    monkeypatch.setattr(torch, "compile", functools.partial(torch.compile, backend="eager"))
    one, other = (
        opened("florence", anew=True, text=False, compile=compile).measure(scenes[:1]) for compile in (False, True)
    )
    assert one == other


def test_what_scaled_decoding_must_leave(opened):
    assert opened("florence").least() == (160, 160)


def test_a_task_that_the_model_was_not_made_for_is_found_when_it_is_loaded(opened):
    with pytest.raises(SetupError, match=r"for <CAPTION_TO_PHRASE_GROUNDING>.*lacks phrase_grounding"):
        opened("florence", phrases="caption")


def test_values_that_are_not_finite_are_an_error(opened, scenes):
    expert = opened("florence", anew=True)
    with torch.no_grad():
        expert._model.model.multi_modal_projector.image_proj_norm.bias.fill_(float("nan"))
    with pytest.raises(FloatingPointError, match="florence model gave values that are not finite"):
        expert.measure(scenes[:1])


def test_phrases_of_a_caption_need_one():
    with pytest.raises(ValidationError, match="needs a caption"):
        FlorenceSection(phrases="caption", caption="none")
    assert Florence(FlorenceSection(phrases="tags", caption="none")).needs == ("tags",)

import pytest
from transformers import AutoProcessor

from demo.scene import render
from demo.split import seeds
from experts.florence import CAPTION, REGIONS, TEXT, Florence, plain, region_boxes, text_lines


@pytest.fixture(scope="module")
def processor(small_weights):
    return AutoProcessor.from_pretrained(small_weights["florence"])


def parsed(processor, answer, task):
    return processor.post_process_generation(text=answer, task=task, image_size=(1000, 1000))[task]


def test_regions_are_bin_centres(processor):
    answer = "</s><s>a red cup<loc_0><loc_250><loc_499><loc_999>spoon<loc_10><loc_10><loc_10><loc_20>"
    answer += "<loc_7>" * 5 + "</s>"
    (box,) = region_boxes(parsed(processor, answer, REGIONS))
    assert box == {"label": "a red cup", "score": 1.0, "x1": 0.0005, "y1": 0.2505, "x2": 0.4995, "y2": 0.9995}


def test_text_is_verbatim_with_its_quad_and_without_stray_locations(processor):
    quad = "".join(f"<loc_{n}>" for n in (10, 20, 500, 20, 500, 60, 10, 60))
    answer = f"</s><s>Café 7{quad}<loc_3>{quad}</s>"
    (line,) = text_lines(parsed(processor, answer, TEXT))
    assert line["text"] == "Café 7"
    assert line["polygon"] == pytest.approx([0.0105, 0.0205, 0.5005, 0.0205, 0.5005, 0.0605, 0.0105, 0.0605])


def test_captions_lose_stray_locations_only():
    assert plain(" a cup <loc_12>on a table\n") == "a cup on a table"


def test_only_what_is_asked_for_is_generated(opened, monkeypatch):
    answer, asked = Florence._answers, []
    monkeypatch.setattr(Florence, "_answers", lambda self, task, seen: asked.append(task) or answer(self, task, seen))
    scene = render(*seeds("validation", 1))
    (every,) = opened("florence").look([scene.image], [{}])
    assert asked == [CAPTION, TEXT, REGIONS]
    assert every["caption"].startswith("The image shows ") and "<" not in every["caption"]
    assert every["regions"]
    asked.clear()
    (some,) = opened("florence", text=False, regions=False).look([scene.image], [{}])
    (none,) = opened("florence", caption=False, text=False, regions=False).look([scene.image], [{}])
    assert asked == [CAPTION]
    assert some == {"caption": every["caption"], "lines": [], "regions": []}
    assert none == {"caption": None, "lines": [], "regions": []}


def test_the_prompts_are_tasks_that_the_library_knows(processor):
    assert {CAPTION, TEXT, REGIONS} <= processor.task_prompts_without_inputs.keys()

"""Captions say what is true and nothing else."""

import re

from hypothesis import given
from hypothesis import strategies as st

from demo.backgrounds import SETTINGS
from demo.captions import dense_caption
from demo.palette import OBJECT_COLOURS
from demo.shapes import CATEGORIES
from demo.truth import ObjectTruth, SceneTruth

boxes = st.tuples(st.integers(0, 500), st.integers(200, 400)).map(lambda p: (p[0], p[1], p[0] + 60, p[1] + 80))


@st.composite
def truths(draw: st.DrawFn) -> SceneTruth:
    def one(distance: float) -> ObjectTruth:
        category, box = draw(st.sampled_from(CATEGORIES)), draw(boxes)
        text = draw(st.sampled_from(["OPEN 24", "Amber Lake"])) if category == "sign" else None
        colour, size = draw(st.sampled_from(list(OBJECT_COLOURS))), draw(st.sampled_from(["small", "medium", "large"]))
        return ObjectTruth(category, colour, size, box, box, draw(st.sampled_from([0.0, 0.3])), distance, text)

    objects = tuple(one(2.0 + i) for i in range(draw(st.integers(0, 8))))
    return SceneTruth(draw(st.integers(0, 99)), draw(st.sampled_from(list(SETTINGS))), 640, 512, 190, objects)


@given(truths())
def test_dense_caption_names_every_object_and_every_text(truth: SceneTruth) -> None:
    caption = dense_caption(truth)
    assert SETTINGS[truth.setting].phrase in caption
    for item in truth.objects:
        assert f"{item.colour} {item.category}" in caption
    assert re.findall(r'"([^"]*)"', caption) == [o.text for o in truth.objects if o.text]
    assert caption.count("partly hidden") == sum(o.occlusion > 0.05 for o in truth.objects)

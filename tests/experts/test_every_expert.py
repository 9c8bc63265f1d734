"""What holds for every expert, on real photographs and on the forms of file that break image code."""

import io
import json
import re
import shutil

import numpy as np
import pyarrow as pa
import pytest
from PIL import Image
from safetensors.torch import load_file, save_file

from demo.split import seeds
from experts.base import loading
from experts.depth import unpacked
from experts.registry import EXPERTS
from experts.taggers.base import TagsSection
from experts.taggers.open_clip import DEFAULT_LABELS
from schemas.errors import RequestError, SetupError
from schemas.pictures import decode_rgb
from schemas.section import ModelRef
from schemas.tables import check_table
from tests.photographs import awkward_files, photograph
from tests.scenes import rendered

TAGS = {"tags": {"tags": [{"tag": tag, "score": 0.5} for tag in ("cup", "cat", "table", "face", "rocket")]}}
LOOKERS = [name for name, expert in EXPERTS.items() if expert.rows_from == "select"]
"""Those whose weights ship with the demo; the scores' heads have tests of their own."""


def pictures():
    awkward = [decode_rgb(data) for data in awkward_files().values()]
    return [photograph("astronaut"), *awkward, photograph("page")]


def familiar(name, count):
    """Photographs, but scenes for Florence-2: what it says of others hangs on last bits, word by word."""
    if name == "florence":
        return [rendered(seed).image for seed in seeds("validation", count)]
    return [photograph("coffee"), photograph("astronaut"), photograph("page").crop((0, 0, 300, 100))][:count]


def numbers(value):
    if isinstance(value, dict):
        return [n for k in value for n in numbers(value[k])]
    if isinstance(value, list):
        return [n for item in value for n in numbers(item)]
    return [value] if isinstance(value, float) else []


@pytest.mark.parametrize("name", LOOKERS)
def test_one_prior_an_image_in_the_schema_and_in_the_frame(opened, name):
    images = pictures()
    expert = opened(name)
    priors = expert.measure(images, [TAGS] * len(images))
    rows = [{"uid": str(i), "error": None} | prior for i, prior in enumerate(priors)]
    table = pa.Table.from_pylist(rows, schema=expert.schema)
    check_table(table, expert.schema, name)
    assert len(rows) == len(images)
    said = [prior for prior in priors if any(isinstance(v, list | str | bytes) and v for v in prior.values())]
    assert said, "the expert said nothing about any picture"
    for prior in priors:
        lists = [value for value in prior.values() if isinstance(value, list)]
        assert all(0.0 <= n <= 1.0 for n in numbers(lists))
        for box in [*prior.get("boxes", []), *prior.get("regions", [])]:
            assert box["x1"] < box["x2"] and box["y1"] < box["y2"]


@pytest.mark.parametrize("name", LOOKERS)
def test_priors_stay_with_their_images_whatever_the_order(opened, name):
    images = familiar(name, 3)
    expert = opened(name)
    forward = expert.measure(images, [TAGS] * 3)
    backward = expert.measure(images[::-1], [TAGS] * 3)[::-1]
    # Florence-2's corners are bins of 0.001, of which the best two may be as good.
    assert about_the_same(forward, backward, 0.003 if name == "florence" else 1e-5)
    assert len({str(prior) for prior in forward}) > 1


def about_the_same(one, other, tolerance):
    """Equal but for what an image's place in its batch may decide: a float's last bits."""
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(about_the_same(one[key], other[key], tolerance) for key in one)
    if isinstance(one, list):
        return len(one) == len(other) and all(about_the_same(*pair, tolerance) for pair in zip(one, other, strict=True))
    return one == (pytest.approx(other, abs=tolerance) if isinstance(one, float) else other)


@pytest.mark.parametrize("name", [name for name in LOOKERS if name != "ocr"])
def test_a_folder_without_a_model_is_a_setup_error_that_says_what_to_do(opened, tmp_path, name):
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(SetupError, match=rf"perceive\.{name} could not load {tmp_path}.*hub id"):
        opened(name, model=str(tmp_path))


def test_what_a_library_says_at_length_is_cut_short():
    with pytest.raises(SetupError) as caught, loading("tags", TagsSection(model="x")):
        raise RuntimeError("no such model, but: " + "another, " * 500)
    assert "no such model" in str(caught.value) and len(str(caught.value)) < 900


@pytest.mark.parametrize("name", [name for name in LOOKERS if name != "ocr"])
def test_a_missing_folder_is_found_before_anything_starts(name):
    config = EXPERTS[name].section(model="/nowhere/at/all")
    assert isinstance(config, ModelRef)
    with pytest.raises(RequestError, match="/nowhere/at/all does not exist"):
        EXPERTS[name](config).models()


HALVES = [(name, half) for name in ("tags", "open_set", "depth", "florence") for half in ("bfloat16", "float16")]


@pytest.mark.parametrize(("name", "precision"), [*HALVES, ("closed_set", "bfloat16")])
def test_half_precision_says_about_the_same(opened, name, precision):
    images = familiar(name, 2)
    # Processors without instructions for halves take long over hundreds of labels.
    settings = {"labels": tuple(DEFAULT_LABELS.read_text().split("\n")[:60])} if name == "tags" else {}
    full = opened(name, **settings).measure(images, [TAGS] * 2)
    half = opened(name, precision=precision, **settings).measure(images, [TAGS] * 2)
    for one, other in zip(full, half, strict=True):
        if name in ("tags", "open_set", "closed_set"):
            (some,), (others,) = one.values(), other.values()
            assert some
            assert abs(len(some) - len(others)) <= max(3, len(some) // 2)
        elif name == "depth":
            assert np.corrcoef(unpacked(one).ravel(), unpacked(other).ravel())[0, 1] > 0.99
        else:
            assert one["regions"]
            # bfloat16 moves corners by up to 0.015 on scenes.
            assert about_the_same(one, other, 0.03)


def test_values_that_are_not_finite_are_an_error_and_not_an_empty_prior(opened):
    import torch

    expert = opened("closed_set", anew=True)
    with torch.no_grad():
        expert._detector._model.model.decoder.class_embed[-1].bias.fill_(float("nan"))
    with pytest.raises(FloatingPointError, match="closed_set model gave values that are not finite"):
        expert.measure([photograph("coffee")])


@pytest.mark.parametrize("name", LOOKERS)
def test_deciding_gives_a_row_of_the_same_columns_and_needs_no_open_expert(opened, name):
    expert = opened(name)
    [measured] = expert.measure([photograph("coffee")], [TAGS])
    closed = EXPERTS[name](expert.config)
    decided = closed.decide({"uid": "0", **measured, "error": None}, TAGS)
    assert decided.keys() == {"uid", "error", *measured}
    assert str(closed.decide({"uid": "0", **measured, "error": None}, TAGS)) == str(decided)


@pytest.mark.parametrize("name", [name for name in LOOKERS if name != "ocr"])
def test_a_large_jpeg_read_at_scale_measures_about_the_same(opened, name):
    expert = opened(name)
    width, height = expert.least()
    large = familiar(name, 1)[0].resize((9 * max(width, height), 7 * max(width, height)))
    jpeg = io.BytesIO()
    large.save(jpeg, "JPEG", quality=95)
    scaled = decode_rgb(jpeg.getvalue(), expert.least())
    assert width <= scaled.width < large.width and height <= scaled.height < large.height
    whole, other = (expert.measure([image], [TAGS])[0] for image in (decode_rgb(jpeg.getvalue()), scaled))
    if name == "depth":
        assert np.corrcoef(unpacked(whole).ravel(), unpacked(other).ravel())[0, 1] > 0.99
    elif name != "florence":
        (some,), (others,) = whole.values(), other.values()
        assert some[0]["score"] == pytest.approx(others[0]["score"], abs=0.1)


def test_an_expert_opened_for_speed_says_the_same(opened, small_weights, tmp_path):
    model = first_blocks(small_weights["clip"], tmp_path / "clip")
    image = Image.new("RGB", (64, 64), (200, 30, 30))
    plain, fast = (opened("tags", model=model, compile=switch).measure([image])[0] for switch in (False, True))
    assert plain["tags"]
    assert about_the_same(plain, fast, 1e-4)


def first_blocks(clip, folder):
    """A CLIP with the first block of each tower: the compiler takes long over each."""
    shutil.copytree(clip, folder)
    path = folder / "open_clip_config.json"
    config = json.loads(path.read_text())
    for tower in ("vision_cfg", "text_cfg"):
        config["model_cfg"][tower]["layers"] = 1
    path.write_text(json.dumps(config))
    weights = load_file(clip / "open_clip_model.safetensors")
    kept = {name: value for name, value in weights.items() if not re.search(r"resblocks\.[1-9]", name)}
    save_file(kept, folder / "open_clip_model.safetensors")
    return str(folder)

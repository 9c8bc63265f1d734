"""Multi-label timm classifiers, saved by timm itself, with random weights."""

import json
import shutil

import numpy as np
import pytest
import timm
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

from experts.tags import Tags, TagsSection
from schemas.errors import RequestError, SetupError
from tests.photographs import photograph

LABELS = ["cup", "a cat", "rocket", "Straße", "face"]


def edit_config(folder, **changes):
    path = folder / "config.json"
    kept = json.loads(path.read_text()) | changes
    path.write_text(json.dumps({key: value for key, value in kept.items() if value is not None}))


def edit_weights(folder, change):
    path = folder / "model.safetensors"
    weights = load_file(path)
    change(weights)
    save_file(weights, path)


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """A tagger whose scores lie well apart, in a form of its own: 80 pixels, squashed, its own mean."""
    torch.manual_seed(0)
    model = timm.create_model("test_resnet", num_classes=len(LABELS))
    torch.nn.init.normal_(model.get_classifier().weight, std=2.0)
    folder = tmp_path_factory.mktemp("timm") / "tagger"
    form = {"input_size": (3, 80, 80), "crop_mode": "squash", "crop_pct": 1.0, "mean": (0.1, 0.2, 0.3)}
    named = {"label_names": LABELS}
    timm.models.save_for_hf(model, folder, model_config=named, data_config=form, safe_serialization=True)
    return folder


@pytest.fixture
def folder(saved, tmp_path):
    return shutil.copytree(saved, tmp_path / "tagger")


def library_scores(folder, image):
    """Without timm's own loader and transform."""
    model = timm.create_model("test_resnet", num_classes=len(LABELS)).eval()
    model.load_state_dict(load_file(folder / "model.safetensors"), strict=True)
    form = json.loads((folder / "config.json").read_text())["pretrained_cfg"]
    pixels = np.asarray(image.resize((80, 80), Image.Resampling.BILINEAR), np.float32) / 255
    pixels = ((pixels - np.float32(form["mean"])) / np.float32(form["std"])).transpose(2, 0, 1)
    with torch.inference_mode():
        return model(torch.from_numpy(pixels)[None])[0].sigmoid().numpy()


def tags(opened, folder, images, **settings):
    expert = opened("tags", family="timm", model=str(folder), **settings)
    return [expert.decide(prior, {})["tags"] for prior in expert.measure(images)]


def test_tags_are_the_classes_by_their_sigmoid_best_first(opened, folder):
    image = photograph("coffee")
    scores = library_scores(folder, image)
    (found,) = tags(opened, folder, [image], floor=0.0, threshold=0.0)
    assert [tag["tag"] for tag in found] == [LABELS[i] for i in np.argsort(-scores)]
    assert [tag["score"] for tag in found] == pytest.approx(sorted(scores.tolist(), reverse=True), abs=1e-5)
    assert np.ptp(scores) > 0.2
    (two,) = tags(opened, folder, [image], floor=0.0, threshold=0.0, top_k=2)
    assert two == found[:2]
    (above,) = tags(opened, folder, [image], floor=0.0, threshold=found[1]["score"])
    assert above == found[:1]
    (default,) = tags(opened, folder, [image])
    assert default == [tag for tag in found if tag["score"] > 0.35]


def test_names_come_from_the_csv_where_the_config_has_none_and_ratings_tag_nothing(opened, folder):
    image = photograph("coffee")
    named = {tag["tag"]: tag["score"] for tag in tags(opened, folder, [image], floor=0.0, threshold=0.0)[0]}
    edit_config(folder, label_names=None)
    rows = ["id,name,category,count", "9,safe,9,1", '1,"cat, black",0,7', "2,rocket,0,3", "3,Straße,4,2", "4,face,0,1"]
    (folder / "selected_tags.csv").write_text("\n".join(rows), encoding="utf-8")
    found = {tag["tag"]: tag["score"] for tag in tags(opened, folder, [image], floor=0.0, threshold=0.0)[0]}
    assert found == {"cat, black": named["a cat"]} | {name: named[name] for name in ("rocket", "Straße", "face")}


def test_bgr_gives_the_model_the_other_order_of_colours(opened, folder):
    form = json.loads((folder / "config.json").read_text())["pretrained_cfg"]
    edit_config(folder, pretrained_cfg=form | {"mean": [0.5, 0.5, 0.5]})
    image = photograph("astronaut")
    (found,) = tags(opened, folder, [Image.merge("RGB", image.split()[::-1])], floor=0.0, threshold=0.0, channels="bgr")
    (plain,) = tags(opened, folder, [image], floor=0.0, threshold=0.0)
    assert found == plain
    assert found != tags(opened, folder, [image], floor=0.0, threshold=0.0, channels="bgr")[0]


def test_a_batch_says_what_each_image_says_alone(opened, folder):
    images = [photograph("coffee"), photograph("page").crop((0, 0, 300, 40)), photograph("astronaut")]
    together = tags(opened, folder, images, floor=0.0, threshold=0.0)
    alone = [tags(opened, folder, [image], floor=0.0, threshold=0.0)[0] for image in images]
    assert [[tag["tag"] for tag in one] for one in together] == [[tag["tag"] for tag in one] for one in alone]
    for one, other in zip(together, alone, strict=True):
        assert [tag["score"] for tag in one] == pytest.approx([tag["score"] for tag in other], abs=1e-6)
    assert together[0] != together[2]


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_weights_kept_in_half_are_computed_in_the_sections_precision(opened, folder, precision):
    image = photograph("coffee")
    full = {tag["tag"]: tag["score"] for tag in tags(opened, folder, [image], floor=0.0, threshold=0.0)[0]}
    edit_weights(
        folder, lambda weights: weights.update({k: v.half() for k, v in weights.items() if v.is_floating_point()})
    )
    expert = opened("tags", family="timm", model=str(folder), floor=0.0, threshold=0.0, precision=precision)
    half = {tag["tag"]: tag["score"] for tag in expert.measure([image])[0]["tags"]}
    assert half == pytest.approx(full, abs=0.1 if precision == "bfloat16" else 0.01)


def test_scores_that_are_not_finite_are_an_error(opened, folder):
    edit_weights(folder, lambda weights: weights["fc.bias"].fill_(float("nan")))
    with pytest.raises(FloatingPointError, match="tags model gave values that are not finite"):
        tags(opened, folder, [photograph("coffee")])


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"label_names": None}, "has no label_names, and there is no selected_tags.csv"),
        ({"label_names": LABELS[:4]}, "names 4 labels, and config.json has num_classes 5"),
        ({"label_names": {"0": "cup", "4": "face"}}, "leave out a class"),
        ({"architecture": None}, "names no timm architecture"),
    ],
)
def test_a_folder_whose_labels_do_not_do_is_refused_before_anything_starts(folder, changes, words):
    edit_config(folder, **changes)
    with pytest.raises(RequestError, match=rf"perceive.tags.model: {folder} .*{words}"):
        Tags(TagsSection(family="timm", model=str(folder))).models()


def test_a_csv_without_names_is_refused(folder):
    edit_config(folder, label_names=None)
    (folder / "selected_tags.csv").write_text("id,tag\n1,cup\n")
    with pytest.raises(RequestError, match=r"no.* CSV with a column name"):
        Tags(TagsSection(family="timm", model=str(folder))).models()


def lose_a_layer(folder):
    edit_weights(folder, lambda weights: weights.pop("layer1.0.conv1.weight"))


def count_otherwise(folder):
    """timm would then leave the head random."""
    edit_config(folder, num_classes=4, label_names=LABELS[:4])


@pytest.mark.parametrize("damage", [lose_a_layer, count_otherwise])
def test_weights_that_do_not_fit_are_an_error_and_never_random(opened, folder, damage):
    damage(folder)
    with pytest.raises(SetupError, match=f"perceive.tags could not load {folder}"):
        tags(opened, folder, [photograph("coffee")])


def test_a_model_of_the_other_family_is_told_apart(folder, small_weights):
    with pytest.raises(RequestError, match=r"Set perceive.tags.family to timm"):
        Tags(TagsSection(model=str(folder))).models()
    with pytest.raises(RequestError, match=r"Set perceive.tags.family to open_clip"):
        Tags(TagsSection(family="timm", model=str(small_weights["clip"]))).models()


def test_the_hubs_files_are_of_the_revision_asked_for(folder, monkeypatch):
    asked = {}

    def snapshot(repo, revision, allow_patterns):
        asked.update(repo=repo, revision=revision, files=allow_patterns)
        return str(folder)

    monkeypatch.setattr("huggingface_hub.snapshot_download", snapshot)
    expert = Tags(TagsSection(family="timm", model="hf-hub:org/tagger", revision="abc", floor=0.0, threshold=0.0))
    assert expert.models() == {"model": "org/tagger@abc"}
    expert.open("cpu")
    assert len(expert.measure([photograph("coffee")])[0]["tags"]) == len(LABELS)
    assert asked["repo"] == "org/tagger" and asked["revision"] == "abc"
    assert {path.name for path in folder.iterdir()} <= set(asked["files"])


def test_labels_and_weights_are_the_identity(folder):
    expert = Tags(TagsSection(family="timm", model=str(folder)))
    before = expert.models()
    edit_config(folder, label_names=LABELS[::-1])
    after = expert.models()
    edit_weights(folder, lambda weights: weights["fc.bias"].add_(1))
    assert len({before["model"], after["model"], expert.models()["model"]}) == 3

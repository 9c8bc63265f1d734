"""Tags of RAM++: the authors' scores (test_ram_plus.py says how they were made), lists and descriptions.

OPEN and FEATURES are what `generate_tag_openset` has as logits and `build_openset_llm_label_embedding` as the first
number of every sentence's vector, with the fake text encoder in the place of CLIP ViT-B/16.
"""

import json

import numpy as np
import open_clip
import pytest
import torch
from pydantic import ValidationError
from torchvision import transforms

from experts.taggers.ram_plus import RamPlusTagger, read_descriptions
from experts.tags import Tags, TagsSection
from schemas.errors import RequestError, SetupError
from schemas.identity import model_identity
from schemas.section import ModelRef
from tests.experts.taggers.test_ram_plus import CLOSED
from tests.fakes import ram_plus as fake
from tests.photographs import photograph

OPEN = torch.tensor([[0.59897113, 0.59295261, 0.62007868], [0.92823154, 0.92639661, 0.94344342]])
FEATURES = [
    *(0.0078896657, 0.00486277, 0.0047782906, 0.0054510385, 0.0085248202, 0.0085274093),
    *(0.0051848707, 0.0047910013, 0.0076093236, 0.0063478458, 0.005926121, 0.0092513179),
]
EVERYTHING = {"floor": 0.0, "keep": 5000, "top_k": 1000}


@pytest.fixture(scope="module")
def published(tmp_path_factory):
    return fake.save_ram_plus(tmp_path_factory.mktemp("ram") / "published", lists=False)


@pytest.fixture
def folder(published, tmp_path):
    """A folder with a checkpoint, its tags and its thresholds."""
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "ram_plus_swin_large_14m.pth").hardlink_to(published / "ram_plus_swin_large_14m.pth")
    fake.save_lists(tmp_path / "model")
    return tmp_path / "model"


@pytest.fixture(scope="module")
def text_model(tmp_path_factory):
    return str(fake.save_text_encoder(tmp_path_factory.mktemp("ram-text") / "clip"))


def section(folder, **settings):
    return TagsSection(family="ram_plus", model=str(folder), **settings)


def scores(opened, folder, **settings):
    """By tag, of each of the two pictures."""
    expert = opened("tags", family="ram_plus", model=str(folder), **EVERYTHING, **settings)
    found = expert.measure(fake.pictures())
    return [{tag["tag"]: tag["score"] for tag in one["tags"]} for one in found]


def described(tmp_path, objects, name="described.json"):
    (tmp_path / name).write_text(json.dumps(objects), encoding="utf-8")
    return str(tmp_path / name)


def test_pictures_are_prepared_as_the_authors_prepare_them():
    theirs = transforms.Compose(
        [
            transforms.Resize((384, 384)),
            transforms.ToTensor(),
            transforms.Normalize(mean=[0.485, 0.456, 0.406], std=[0.229, 0.224, 0.225]),
        ]
    )
    for picture in (*fake.pictures(), photograph("coffee"), photograph("astronaut").crop((3, 5, 4, 90))):
        assert torch.equal(RamPlusTagger.transform(picture), theirs(picture))


def test_every_tag_has_the_authors_score_and_its_own_threshold(opened, folder):
    expert = opened("tags", family="ram_plus", model=str(folder), **EVERYTHING)
    for measured, logits in zip(expert.measure(fake.pictures()), CLOSED, strict=True):
        found = {tag["tag"]: tag for tag in measured["tags"]}
        assert [found[name]["score"] for name in fake.TAGS] == pytest.approx(logits.sigmoid().tolist(), abs=1e-5)
        assert [found[name]["threshold"] for name in fake.TAGS] == pytest.approx(fake.THRESHOLDS)
        above = [name for name, low, x in zip(fake.TAGS, fake.THRESHOLDS, logits.sigmoid(), strict=True) if x > low]
        decided = [tag["tag"] for tag in expert.decide(measured, {})["tags"]]
        assert sorted(decided) == sorted(above)
        assert 0 < len(above) < len(fake.TAGS)


def test_a_checkpoint_alone_takes_lists_from_anywhere(opened, published, folder, tmp_path):
    lists = {
        "labels": str(folder / "ram_tag_list.txt"),
        "thresholds": str(folder / "ram_tag_list_threshold.txt"),
    }
    assert scores(opened, published / "ram_plus_swin_large_14m.pth", **lists) == scores(opened, folder)
    renamed = scores(opened, folder, labels=tuple(f"new {name}" for name in fake.TAGS))
    assert renamed[0]["new tag 3"] == scores(opened, folder)[0]["tag 3"]


def test_described_tags_have_the_authors_scores(opened, folder, text_model, tmp_path):
    descriptions = described(tmp_path, fake.descriptions())
    found = scores(opened, folder, descriptions=descriptions, text_model=text_model)
    assert [list(one) for one in found] == [["Zeppelin", "Traffic cone", "Ale"]] * 2
    for one, logits in zip(found, OPEN, strict=True):
        assert [one[tag] for tag in ("Traffic cone", "Ale", "Zeppelin")] == pytest.approx(
            logits.sigmoid().tolist(), abs=1e-5
        )


def test_sentences_are_embedded_as_the_authors_do(text_model, folder):
    sentences = [texts for one in fake.descriptions() for texts in one.values()]
    embedded = RamPlusTagger(section(folder, text_model=text_model))._embed(sentences, "cpu")
    assert embedded.given is None
    assert embedded.rows[..., 0].flatten().tolist() == pytest.approx(FEATURES, abs=1e-6)


def test_described_tags_have_a_threshold_of_their_own(opened, folder, text_model, tmp_path):
    settings = {"descriptions": described(tmp_path, fake.descriptions()), "text_model": text_model}
    expert = opened("tags", family="ram_plus", model=str(folder), **settings)
    assert {tag["threshold"] for tag in expert.measure(fake.pictures())[0]["tags"]} == {0.5}
    (tmp_path / "own.txt").write_text("0.1\n0.2\n0.3\n")
    expert = opened("tags", family="ram_plus", model=str(folder), thresholds=str(tmp_path / "own.txt"), **settings)
    found = {tag["tag"]: tag["threshold"] for tag in expert.measure(fake.pictures())[0]["tags"]}
    assert found == pytest.approx({"Traffic cone": 0.1, "Ale": 0.2, "Zeppelin": 0.3})


def test_tags_of_few_sentences_score_as_they_do_alone(opened, folder, text_model, tmp_path):
    uneven = {"Ale": ["A brown drink.", "It foams.", "A glass of it."], "Zeppelin": [], "Traffic cone": ["Orange."]}
    together = scores(opened, folder, descriptions=described(tmp_path, uneven), text_model=text_model)
    for tag, texts in uneven.items():
        alone = scores(opened, folder, descriptions=described(tmp_path, {tag: texts}, tag), text_model=text_model)
        assert [one[tag] for one in alone] == pytest.approx([one[tag] for one in together], abs=1e-6)


def test_descriptions_come_in_the_authors_form_or_as_one_object_and_begin_with_the_tag_itself(tmp_path):
    listed = read_descriptions(tmp_path / described(tmp_path, [{"Ale": ["Brown."]}, {"Go-kart": []}]))
    assert listed == {"Ale": ["a photo of a Ale.", "Brown."], "Go-kart": ["a photo of a Go-kart."]}
    assert list(listed) == ["Ale", "Go-kart"]
    official = [{"Ale": ["a photo of a ale.", " Brown. ", " "]}]
    assert read_descriptions(tmp_path / described(tmp_path, official)) == {"Ale": ["a photo of a ale.", "Brown."]}
    assert read_descriptions(tmp_path / described(tmp_path, {"Ale": ["Brown."], "Go-kart": []})) == listed


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("{", "cannot be read as JSON"),
        ('["ale"]', "holds something else than objects"),
        ('{"ale": "brown"}', "gives 'ale' something else than a list of sentences"),
        ("[]", "holds no tag"),
        ('{" ": []}', "holds an empty tag"),
        ('[{"ale": []}, {"ale": ["brown"]}]', "holds 'ale' twice"),
    ],
)
def test_descriptions_that_do_not_do_are_refused(folder, tmp_path, content, words):
    (tmp_path / "described.json").write_text(content)
    with pytest.raises(RequestError, match=rf"perceive\.tags\.descriptions.*{words}"):
        Tags(section(folder, descriptions=str(tmp_path / "described.json"))).models()


def test_labels_and_descriptions_exclude_each_other(folder, tmp_path):
    with pytest.raises(ValidationError, match="leave one of them out"):
        section(folder, labels=("ale",), descriptions=described(tmp_path, {"ale": []}))


@pytest.mark.parametrize("gone", ["ram_tag_list.txt", "ram_tag_list_threshold.txt"])
def test_without_its_lists_a_checkpoint_is_refused_and_where_they_come_from_is_said(folder, gone):
    (folder / gone).unlink()
    source = rf"{folder} has no {gone}\. Take {gone} from ram/data of github\.com/xinyu1205/recognize-anything"
    for model in (folder, folder / "ram_plus_swin_large_14m.pth"):
        with pytest.raises(RequestError, match=source):
            Tags(section(model)).models()


def test_the_hubs_checkpoint_needs_the_lists_in_the_section():
    with pytest.raises(RequestError, match=r"perceive\.tags\.labels: RAM\+\+'s checkpoint does not hold the names"):
        Tags(section("xinyu1205/recognize-anything-plus-model")).models()
    with pytest.raises(
        RequestError, match=r"perceive\.tags\.thresholds: RAM\+\+'s checkpoint does not hold the thresh"
    ):
        Tags(section("xinyu1205/recognize-anything-plus-model", labels=("ale",))).models()


def test_a_list_of_another_length_than_the_checkpoint_is_refused(folder):
    fake.save_lists(folder, fake.TAGS[:-1], fake.THRESHOLDS[:-1])
    expert = Tags(section(folder))
    expert.models()
    with pytest.raises(RequestError, match=rf"perceive\.tags\.labels: the list holds 23 tags, and {folder} knows 24"):
        expert.open("cpu")


@pytest.mark.parametrize(
    ("thresholds", "words"),
    [
        (fake.THRESHOLDS[:-1], "holds 23 thresholds for 24 tags"),
        (["much", *fake.THRESHOLDS[1:]], "holds 'much'"),
        ([1.5, *fake.THRESHOLDS[1:]], "holds '1.5'"),
        (["nan", *fake.THRESHOLDS[1:]], "holds 'nan'"),
    ],
)
def test_thresholds_that_do_not_do_are_refused(folder, thresholds, words):
    fake.save_lists(folder, thresholds=thresholds)
    with pytest.raises(RequestError, match=rf"perceive\.tags\.thresholds: .*{words}"):
        Tags(section(folder)).models()


def test_a_tag_listed_twice_or_a_list_that_is_not_there_is_refused(folder):
    fake.save_lists(folder, ["ale", *fake.TAGS[1:-1], "ale"])
    with pytest.raises(RequestError, match=r"perceive\.tags\.labels holds 'ale' twice"):
        Tags(section(folder)).models()
    with pytest.raises(RequestError, match=r"perceive\.tags\.labels: .*gone\.txt cannot be read"):
        Tags(section(folder, labels=str(folder / "gone.txt"))).models()


def test_a_folder_of_no_or_of_several_checkpoints_is_refused(folder):
    (folder / "ram_plus_swin_large_14m.pth").rename(folder / "mine.pth")
    Tags(section(folder)).models()
    (folder / "other.safetensors").write_bytes(b"")
    with pytest.raises(RequestError, match=r"no ram_plus_swin_large_14m\.pth, and 2 other"):
        Tags(section(folder)).models()


def test_a_checkpoint_that_lacks_a_tensor_is_an_error_and_never_random(folder):
    weights = fake.official_weights()
    del weights["image_proj.bias"]
    (folder / "ram_plus_swin_large_14m.pth").unlink()
    torch.save({"model": weights}, folder / "ram_plus_swin_large_14m.pth")
    with pytest.raises(SetupError, match=rf"perceive\.tags could not load {folder}: .* missing: image_proj\.bias"):
        Tags(section(folder)).open("cpu")


def test_a_text_model_that_is_not_there_is_an_error_of_its_own(folder, tmp_path):
    settings = {"descriptions": described(tmp_path, fake.descriptions()), "text_model": str(tmp_path)}
    with pytest.raises(SetupError, match=r"could not embed the descriptions with .* Set perceive\.tags\.text_model"):
        Tags(section(folder, **settings)).open("cpu")


def test_a_name_of_open_clips_takes_openais_weights_with_their_own_activation(folder, text_model, monkeypatch):
    """open_clip only warns where ViT-B-16, whose configuration has the plain GELU, is given OpenAI's weights."""
    asked = {}
    small, _ = open_clip.create_model_from_pretrained(f"local-dir:{text_model}")

    def create(name, **options):
        asked.update(options, name=name)
        return small, None

    monkeypatch.setattr(open_clip, "create_model_from_pretrained", create)
    tagger = RamPlusTagger(section(folder, text_model="ViT-B-16"))
    embedded = tagger._embed([["a photo of a Traffic cone."]], "cpu")
    assert embedded.rows[0, 0, 0].item() == pytest.approx(FEATURES[0], abs=1e-6)
    assert (asked["name"], asked["pretrained"], asked["force_quick_gelu"]) == ("ViT-B-16", "openai", True)


def test_the_hubs_checkpoint_is_of_the_revision_asked_for(folder, monkeypatch):
    asked = []

    def download(*args, **options):
        asked.append((*args, options))
        return str(folder / "ram_plus_swin_large_14m.pth")

    monkeypatch.setattr("huggingface_hub.hf_hub_download", download)
    lists = {"labels": tuple(fake.TAGS), "thresholds": str(folder / "ram_tag_list_threshold.txt")}
    expert = Tags(section("org/ram", revision="abc", **lists, **EVERYTHING))
    assert expert.models()["model"] == "org/ram@abc"
    expert.open("cpu")
    assert len(expert.measure(fake.pictures()[:1])[0]["tags"]) == len(fake.TAGS)
    assert asked == [("org/ram", "ram_plus_swin_large_14m.pth", {"revision": "abc"})]


def test_weights_lists_and_descriptions_are_the_identity(published, folder, text_model, tmp_path):
    checkpoint = published / "ram_plus_swin_large_14m.pth"
    lists = {"labels": str(folder / "ram_tag_list.txt"), "thresholds": str(folder / "ram_tag_list_threshold.txt")}
    before = Tags(section(checkpoint, **lists)).models()
    assert set(before) == {"model", "labels", "thresholds"}
    fake.save_lists(folder, fake.TAGS[::-1])
    assert changed(before, Tags(section(checkpoint, **lists)).models()) == {"labels"}
    fake.save_lists(folder, thresholds=[0.9, *fake.THRESHOLDS[1:]])
    assert changed(before, Tags(section(checkpoint, **lists)).models()) == {"thresholds"}

    def open_set(objects, name):
        return Tags(
            section(checkpoint, descriptions=described(tmp_path, objects, name), text_model=text_model)
        ).models()

    first = open_set([{"ale": ["brown"]}], "first.json")
    assert set(first) == {"model", "descriptions", "text_model", "thresholds"}
    assert open_set({"ale": ["brown"]}, "same.json") == first
    assert changed(first, open_set({"ale": ["red"]}, "other.json")) == {"descriptions"}


def changed(before, after):
    return {name for name in before if before[name] != after[name]}


def test_a_local_file_is_identified_by_its_bytes(tmp_path):
    for name, content in (("here.pth", b"same"), ("there.pth", b"same"), ("other.pth", b"other")):
        (tmp_path / name).write_bytes(content)
    here, there, other = (
        model_identity(ModelRef(model=str(tmp_path / f"{n}.pth"))) for n in ("here", "there", "other")
    )
    assert here == there != other
    assert here == "file:0967115f2813a3541eaef77de9d9d5773f1c0c04314b0bbfe4ff3b3b1c55b5d5"
    with pytest.raises(RequestError, match="does not exist"):
        model_identity(ModelRef(model=str(tmp_path / "gone.pth")))


def test_a_models_memory_is_given_back_and_scores_are_float32(folder):
    tagger = RamPlusTagger(section(folder, precision="bfloat16"))
    tagger.open("cpu")
    with torch.inference_mode():
        found = tagger.scores(torch.stack([tagger.transform(p) for p in fake.pictures()]).bfloat16())
    assert found.dtype == torch.float32 and found.shape == (2, len(fake.TAGS))
    assert tagger.thresholds.dtype == np.float32 and tagger.thresholds.shape == (len(fake.TAGS),)
    tagger.close()
    assert tagger._model is None

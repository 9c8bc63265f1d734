import numpy as np
import open_clip
import pytest
import torch
from pydantic import ValidationError

from experts.taggers.open_clip import DEFAULT_LABELS, OpenClipTagger
from experts.tags import Tags, TagsSection
from schemas.errors import RequestError
from tests.photographs import photograph


def library_scores(folder, image, labels, template):
    model, _, transform = open_clip.create_model_and_transforms(f"local-dir:{folder}")
    tokens = open_clip.get_tokenizer(f"local-dir:{folder}")([template.format(label) for label in labels])
    with torch.inference_mode():
        seen = model.eval().encode_image(transform(image)[None], normalize=True)
        cosine = seen @ model.encode_text(tokens, normalize=True).T
        return cosine[0].numpy(), (cosine * model.logit_scale.exp()).softmax(dim=-1)[0].numpy()


@pytest.mark.parametrize("score", ["cosine", "probability"])
def test_tags_are_the_best_labels_by_the_librarys_own_scores(opened, small_weights, score):
    labels = ("cup", "cat", "rocket", "a long way from home", "Straße")
    image = photograph("coffee")
    expert = opened("tags", labels=labels, score=score, floor=0.0, threshold=0.0, top_k=3, template="this is {}")
    cosine, probability = library_scores(small_weights["clip"], image, labels, "this is {}")
    scores = cosine if score == "cosine" else probability
    (measured,) = expert.measure([image])
    every = [i for i in np.argsort(-scores) if scores[i] >= 0]
    for prior, best in ((measured, every), (expert.decide(measured, {}), every[:3])):
        assert [tag["tag"] for tag in prior["tags"]] == [labels[i] for i in best]
        assert [tag["score"] for tag in prior["tags"]] == pytest.approx(scores[best].tolist(), abs=1e-5)
        assert {tag["threshold"] for tag in prior["tags"]} <= {None}


def tags_at(rows, **settings):
    """What settings make of measured (tag, score, the checkpoint's own threshold)."""
    measured = {"tags": [dict(zip(("tag", "score", "threshold"), row, strict=True)) for row in rows]}
    return [tag["tag"] for tag in Tags(TagsSection(**settings)).decide(measured, {})["tags"]]


def test_a_tag_needs_more_than_the_threshold_that_goes_before_the_others():
    rows = [("cat", 0.9, 0.9), ("dog", 0.8, 0.7), ("cup", 0.5, None), ("car", 0.01, None), ("sky", 0.005, 0.001)]
    assert tags_at(rows) == ["dog", "cup", "sky"]
    assert tags_at(rows, threshold=0.5) == ["cat", "dog"]
    assert tags_at(rows, threshold=0.5, tag_thresholds={"cup": 0.4, "cat": 0.95}) == ["dog", "cup"]
    assert tags_at(rows, threshold=0.001, top_k=2) == ["cat", "dog"]


def test_only_the_best_labels_down_to_the_floor_are_stored(opened):
    image = photograph("coffee")
    everything = opened("tags", floor=0.0, keep=5000).measure([image])[0]["tags"]
    scores = [tag["score"] for tag in everything]
    assert scores == sorted(scores, reverse=True) and len(scores) == len(OpenClipTagger(TagsSection()).listed())
    assert opened("tags", floor=0.0, keep=7).measure([image])[0]["tags"] == everything[:7]
    floor = scores[4]
    assert opened("tags", floor=floor).measure([image])[0]["tags"] == everything[:5]


def test_a_label_file_is_the_same_as_its_lines_and_its_content_is_the_identity(tmp_path):
    path = tmp_path / "labels.txt"
    path.write_text("cup\n\n cat \ncup\n")
    from_file = Tags(TagsSection(labels=str(path)))
    inline = Tags(TagsSection(labels=("cup", "cat")))
    assert OpenClipTagger(from_file.config).listed() == ["cup", "cat"]
    assert from_file.models() == inline.models()
    path.write_text("cup\ndog\n")
    assert from_file.models() != inline.models()


def test_our_own_labels_are_plain_unique_words():
    lines = DEFAULT_LABELS.read_text().splitlines()
    assert OpenClipTagger(TagsSection()).listed() == lines
    assert len(lines) > 300
    assert all(line == line.strip().lower() for line in lines)


@pytest.mark.parametrize("labels", ["/nowhere/labels.txt", ()])
def test_labels_that_are_not_there_are_a_bad_request(labels):
    with pytest.raises(RequestError, match="labels"):
        Tags(TagsSection(labels=labels)).models()


def test_settings_of_another_family_are_refused_and_say_whose_they_are():
    for settings, words in {
        ("labels", ("cup",)): "labels is for family open_clip and ram_plus only",
        ("template", "{}"): "template is for family open_clip only",
        ("score", "cosine"): "score is for family open_clip only",
    }.items():
        with pytest.raises(ValidationError, match=words):
            TagsSection(family="timm", model="org/name", **dict([settings]))
    with pytest.raises(ValidationError, match="channels is for family timm only"):
        TagsSection(channels="bgr")
    with pytest.raises(ValidationError, match="family timm needs a model of its own"):
        TagsSection(family="timm")


def test_a_saved_section_is_read_again_as_it_was():
    for section in (TagsSection(), TagsSection(family="timm", model="org/name", channels="bgr")):
        assert TagsSection.model_validate(section.model_dump(mode="json")) == section


def test_family_and_floor_decide_what_is_measured_and_thresholds_what_is_read():
    one = TagsSection(family="timm", model="org/name", threshold=0.3)
    other = one.model_copy(update={"threshold": 0.4, "top_k": 3, "tag_thresholds": {"cat": 0.9}})
    assert one.decides() == other.decides()
    assert {name for name, value in other.decisions().items() if value != one.decisions()[name]} == {
        "threshold",
        "top_k",
        "tag_thresholds",
    }
    assert one.decides()["family"] == "timm"
    assert one.decides() != one.model_copy(update={"floor": 0.01}).decides()


@pytest.mark.parametrize("settings", [{"threshold": 0.0001}, {"tag_thresholds": {"cat": 0.0001}}])
def test_no_threshold_may_ask_for_what_is_not_stored(settings):
    with pytest.raises(ValidationError, match=r"below the lowest score that is stored, 0\.001: set floor as low"):
        TagsSection(**settings)

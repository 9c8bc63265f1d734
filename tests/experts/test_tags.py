import numpy as np
import open_clip
import pytest
import torch
from pydantic import ValidationError

from experts.tags import Tags, TagsSection
from experts.tags_open_clip import DEFAULT_LABELS, OpenClipTagger
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
    expert = opened("tags", labels=labels, score=score, threshold=0.0, top_k=3, template="this is {}")
    cosine, probability = library_scores(small_weights["clip"], image, labels, "this is {}")
    scores = cosine if score == "cosine" else probability
    (prior,) = expert.look([image], [{}])
    best = [i for i in np.argsort(-scores)[:3] if scores[i] >= 0]
    assert [tag["tag"] for tag in prior["tags"]] == [labels[i] for i in best]
    assert [tag["score"] for tag in prior["tags"]] == pytest.approx(scores[best].tolist(), abs=1e-5)


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
        ("labels", ("cup",)): "labels is for family open_clip only",
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


def test_threshold_and_family_decide():
    one = TagsSection(family="timm", model="org/name", threshold=0.3)
    assert one.decides() != one.model_copy(update={"threshold": 0.4}).decides()
    assert one.decides()["family"] == "timm"

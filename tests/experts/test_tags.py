import numpy as np
import open_clip
import pytest
import torch

from experts.tags import DEFAULT_LABELS, Tags, TagsSection
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
    assert from_file.labels() == ["cup", "cat"]
    assert from_file.models() == inline.models()
    path.write_text("cup\ndog\n")
    assert from_file.models() != inline.models()


def test_our_own_labels_are_plain_unique_words():
    lines = DEFAULT_LABELS.read_text().splitlines()
    assert Tags(TagsSection()).labels() == lines
    assert len(lines) > 300
    assert all(line == line.strip().lower() for line in lines)


@pytest.mark.parametrize("labels", ["/nowhere/labels.txt", ()])
def test_labels_that_are_not_there_are_a_bad_request(labels):
    with pytest.raises(RequestError, match="labels"):
        Tags(TagsSection(labels=labels)).models()

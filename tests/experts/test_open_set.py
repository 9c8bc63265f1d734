import numpy as np
import pytest
import torch
from transformers import Owlv2ForObjectDetection, Owlv2Processor

from demo.scene import render

LABELS = ["car", "tree", "cone", "sign", "robot", "ball"]
LEAST = 0.02
EVERYTHING = {"threshold": LEAST, "nms_iou": 1.0, "cap_above": 10_000}


def context(labels):
    return {"tags": {"tags": [{"tag": label, "score": 0.5} for label in labels]}}


def library_boxes(folder, image, labels, threshold):
    """(label, score, x1, y1, x2, y2 in pixels), best first, from the library's model and post-processing."""
    processor, model = Owlv2Processor.from_pretrained(folder), Owlv2ForObjectDetection.from_pretrained(folder).eval()
    inputs = processor(text=[[f"a photo of {label}" for label in labels]], images=[image], return_tensors="pt")
    with torch.inference_mode():
        outputs = model(**inputs)
    (found,) = processor.post_process_grounded_object_detection(
        outputs, threshold=threshold, target_sizes=[(image.height, image.width)], text_labels=[labels]
    )
    order = found["scores"].argsort(descending=True, stable=True)
    return [(found["text_labels"][i], found["scores"][i].item(), *found["boxes"][i].tolist()) for i in order]


@pytest.mark.parametrize("size", [(450, 300), (301, 450), (77, 399), (256, 256)])
def test_boxes_lie_where_the_library_puts_them_in_pictures_of_any_shape(opened, small_weights, size):
    image = render(20).image.resize(size)
    wide, high = size
    expected = []
    for label, score, x1, y1, x2, y2 in library_boxes(small_weights["owlv2"], image, LABELS, LEAST):
        box = np.clip(np.array([x1 / wide, y1 / high, x2 / wide, y2 / high]), 0, 1)
        if box[0] < box[2] and box[1] < box[3]:
            expected.append((label, score, *box))
    assert len(expected) > 3
    (prior,) = opened("open_set", **EVERYTHING).look([image], [context(LABELS)])
    got = [tuple(box[k] for k in ("label", "score", "x1", "y1", "x2", "y2")) for box in prior["boxes"]]
    scores = [row[1] for row in got]
    assert scores == sorted(scores, reverse=True)

    def placed(rows):
        """In an order that a last bit of the score does not decide."""
        return sorted(rows, key=lambda row: (row[0], *(round(float(value), 3) for value in row[2:])))

    assert [row[0] for row in placed(got)] == [row[0] for row in placed(expected)]
    assert np.allclose([row[1:] for row in placed(got)], [row[1:] for row in placed(expected)], atol=1e-4)


def test_every_image_is_asked_for_its_own_tags_only(opened):
    images = [render(20).image] * 3
    expert = opened("open_set", **EVERYTHING)
    both, one, none = expert.look(images, [context(LABELS), context(LABELS[:1]), context([])])
    assert len({box["label"] for box in both["boxes"]}) > 2
    assert {box["label"] for box in one["boxes"]} == {"car"}
    assert none == {"boxes": []}
    assert expert.look(images[:1], [context(LABELS[:1])]) == [one]


def test_the_cap_applies_per_label_and_only_above_its_limit(opened):
    image, tags = [render(20).image], [context(LABELS)]
    (every,) = opened("open_set", **EVERYTHING).look(image, tags)
    count = len(every["boxes"])
    (uncapped,) = opened("open_set", **EVERYTHING | {"cap_above": count, "cap_per_label": 1}).look(image, tags)
    assert uncapped == every
    (capped,) = opened("open_set", **EVERYTHING | {"cap_above": count - 1, "cap_per_label": 1}).look(image, tags)
    labels = [box["label"] for box in every["boxes"]]
    assert capped["boxes"] == [box for i, box in enumerate(every["boxes"]) if box["label"] not in labels[:i]]

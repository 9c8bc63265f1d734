import numpy as np
import torch
from transformers import AutoImageProcessor, AutoModelForObjectDetection

from demo.scene import render


def test_boxes_are_the_librarys_own_normalised(opened, small_weights):
    image = render(13).image.resize((501, 260))
    folder = small_weights["detector"]
    processor = AutoImageProcessor.from_pretrained(folder)
    model = AutoModelForObjectDetection.from_pretrained(folder)
    with torch.inference_mode():
        outputs = model.eval()(**processor(images=image, return_tensors="pt"))
    (found,) = processor.post_process_object_detection(outputs, threshold=0.3, target_sizes=[(260, 501)])
    scale = np.array([501, 260, 501, 260])
    expected = np.clip(found["boxes"].numpy() / scale, 0, 1)
    assert len(expected) > 2

    (prior,) = opened("closed_set", threshold=0.3).look([image], [{}])
    boxes = prior["boxes"]
    assert np.allclose([[b["x1"], b["y1"], b["x2"], b["y2"]] for b in boxes], expected, atol=1e-5)
    assert [b["label"] for b in boxes] == [model.config.id2label[int(i)] for i in found["labels"]]

    (few,) = opened("closed_set", threshold=0.3, max_boxes=2).look([image], [{}])
    assert few["boxes"] == boxes[:2]

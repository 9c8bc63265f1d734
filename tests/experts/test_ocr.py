import random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageDraw, ImageFont

from experts.ocr import Ocr, OcrSection, on_canvas, reading_order
from stages.images import decode_rgb
from tests.photographs import photograph, turned


@pytest.fixture(scope="module")
def ocr(opened):
    return opened("ocr", side=736)


def signboard(size, *lines):
    """A photograph with a white board; `lines` are (text, x, y). Returns it and each text's exact box in pixels."""
    image = photograph("coffee").resize(size)
    pen = ImageDraw.Draw(image)
    font = ImageFont.load_default(36)
    boxes = [pen.textbbox((x, y), text, font) for text, x, y in lines]
    for x1, y1, x2, y2 in boxes:
        pen.rectangle((x1 - 12, y1 - 10, x2 + 12, y2 + 10), fill="white")
    for text, x, y in lines:
        pen.text((x, y), text, fill="black", font=font)
    return image, boxes


def lies_on(polygon, box, size):
    """The polygon covers the ink of the text, has its centre and is not much larger; detectors leave a margin."""
    points = np.array(polygon).reshape(4, 2) * size
    (left, top), (right, bottom) = points.min(axis=0), points.max(axis=0)
    x1, y1, x2, y2 = box
    covers = left <= x1 and top <= y1 and right >= x2 and bottom >= y2
    centred = np.abs(points.mean(axis=0) - ((x1 + x2) / 2, (y1 + y2) / 2)).max() < (y2 - y1) / 2
    return covers and centred and right - left < 1.5 * (x2 - x1)


def texts(prior):
    return [line["text"] for line in prior["lines"]]


@pytest.mark.parametrize("size", [(640, 360), (333, 777), (1500, 400)])
def test_a_sign_is_read_exactly_where_it_stands(ocr, size):
    image, (box,) = signboard(size, ("OPEN 4729", 60, 150))
    (prior,) = ocr.look([image], [{}])
    (line,) = [line for line in prior["lines"] if line["text"].replace(" ", "") == "OPEN4729"]
    assert line["score"] > 0.8
    assert lies_on(line["polygon"], box, size)


@pytest.mark.parametrize("orientation", [3, 6, 8])
def test_a_picture_on_its_side_reads_as_a_person_sees_it(ocr, orientation):
    image, (box,) = signboard((640, 360), ("HARBOUR", 300, 40))
    (prior,) = ocr.look([decode_rgb(turned(image, orientation))], [{}])
    (line,) = [line for line in prior["lines"] if line["text"] == "HARBOUR"]
    assert lies_on(line["polygon"], box, image.size)


@pytest.mark.parametrize("angle", [0, 180, 270])
def test_the_polygon_begins_where_the_text_begins(ocr, angle):
    """Angles are counter-clockwise; 270 makes text that runs downwards."""
    image, (box,) = signboard((640, 640), ("LIGHTHOUSE", 200, 100))
    (prior,) = ocr.look([image.rotate(angle)], [{}])
    (line,) = [line for line in prior["lines"] if line["text"] == "LIGHTHOUSE"]
    corner = np.array(line["polygon"][:2]) * 640
    x, y = box[0], box[1]
    expected = {0: (x, y), 180: (640 - x, 640 - y), 270: (640 - y, x)}[angle]
    assert np.abs(corner - expected).max() < 20


def test_lines_come_in_reading_order(ocr):
    image, _ = signboard((700, 400), ("fish", 420, 236), ("fresh", 60, 60), ("bread", 60, 240), ("daily", 400, 66))
    (prior,) = ocr.look([image], [{}])
    said = [text for text in texts(prior) if text in ("fresh", "daily", "bread", "fish")]
    assert said == ["fresh", "daily", "bread", "fish"]


@given(st.integers(1, 5), st.integers(1, 4), st.floats(0.01, 100), st.randoms())
def test_reading_order_of_a_grid_does_not_depend_on_scale_or_detection_order(rows, columns, scale, shuffle):
    jitter = random.Random(rows * columns)
    grid = []
    for row in range(rows):
        for column in range(columns):
            x, y = column * 3.0, row * 2.0 + jitter.uniform(-0.2, 0.2)
            grid.append(np.array([[x, y], [x + 2, y], [x + 2, y + 1], [x, y + 1]]) * scale)
    places = list(range(len(grid)))
    shuffle.shuffle(places)
    order = reading_order([grid[i] for i in places])
    assert [places[i] for i in order] == list(range(len(grid)))


@settings(max_examples=30)
@given(st.integers(1, 6000), st.integers(1, 6000))
def test_the_canvas_is_bounded_for_any_strip(width, height):
    canvas, wide, high = on_canvas(Image.new("RGB", (width, height)))
    assert canvas.shape[0] >= high >= 1 and canvas.shape[1] >= wide >= 1
    assert max(canvas.shape) <= 2000
    assert max(canvas.shape[:2]) <= 8 * min(canvas.shape[:2])
    assert min(canvas.shape[:2]) >= 32


def test_identity_names_the_package_and_its_weights():
    models = Ocr(OcrSection()).models()
    assert models["weights"].startswith("folder:")
    assert models["rapidocr"][0].isdigit()

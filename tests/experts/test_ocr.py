"""The expert, over RapidOCR's own weights."""

import functools

import numpy as np
import pyarrow as pa
import pytest
from PIL import Image, ImageDraw, ImageFont
from pydantic import ValidationError

from experts.ocr import Ocr, OcrSection, _Read
from experts.readers.base import Line
from schemas.errors import SetupError
from schemas.pictures import decode_rgb
from schemas.tables import OCR_PRIOR
from tests.photographs import awkward_files, encoded, photograph, turned


@pytest.fixture(scope="module")
def ocr(opened):
    return opened("ocr", side=736)


@pytest.fixture(scope="module")
def quick(opened):
    """Reads the same signs on a smaller canvas."""
    return opened("ocr", side=320)


@pytest.fixture(scope="module")
def read_together(ocr):
    """Pictures, and what is read of them when they share a batch."""
    images = pictures()
    return list(zip(images, ocr.measure(images), strict=True))


def signboard(size, *lines, size_of_text=36):
    """A photograph with a white board; `lines` are (text, x, y). Returns it and each text's exact box in pixels."""
    image = photograph("coffee").resize(size)
    pen = ImageDraw.Draw(image)
    font = ImageFont.load_default(size_of_text)
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
    (prior,) = ocr.measure([image])
    (line,) = [line for line in prior["lines"] if line["text"].replace(" ", "") == "OPEN4729"]
    assert line["score"] > 0.8
    assert lies_on(line["polygon"], box, size)


@pytest.mark.parametrize("orientation", [3, 6, 8])
def test_a_picture_on_its_side_reads_as_a_person_sees_it(ocr, orientation):
    image, (box,) = signboard((640, 360), ("HARBOUR", 300, 40))
    (prior,) = ocr.measure([decode_rgb(turned(image, orientation))])
    (line,) = [line for line in prior["lines"] if line["text"] == "HARBOUR"]
    assert lies_on(line["polygon"], box, image.size)


@pytest.mark.parametrize("angle", [0, 90, 180, 270])
def test_the_polygon_begins_where_the_text_begins(ocr, angle):
    """Angles are counter-clockwise; 270 makes text that runs downwards."""
    image, (box,) = signboard((640, 640), ("LIGHTHOUSE", 200, 100))
    (prior,) = ocr.measure([image.rotate(angle)])
    (line,) = [line for line in prior["lines"] if line["text"] == "LIGHTHOUSE"]
    corner = np.array(line["polygon"][:2]) * 640
    x, y = box[0], box[1]
    expected = {0: (x, y), 90: (y, 640 - x), 180: (640 - x, 640 - y), 270: (640 - y, x)}[angle]
    assert np.abs(corner - expected).max() < 20


def test_lines_come_in_reading_order(ocr):
    image, _ = signboard((700, 400), ("fish", 420, 236), ("fresh", 60, 60), ("bread", 60, 240), ("daily", 400, 66))
    (prior,) = ocr.measure([image])
    said = [text for text in texts(prior) if text in ("fresh", "daily", "bread", "fish")]
    assert said == ["fresh", "daily", "bread", "fish"]


def library(**params):
    """(text, confidence, corners in pixels) of every line, by the library's own call."""
    from rapidocr import RapidOCR

    threads = {f"EngineConfig.onnxruntime.{kind}_op_num_threads": 1 for kind in ("intra", "inter")}
    engine = RapidOCR(params={"Global.log_level": "error", "Global.text_score": 0.0} | threads | params)

    def read(image):
        said = engine(np.ascontiguousarray(np.asarray(image)[:, :, ::-1]))
        return list(zip(said.txts or (), said.scores or (), said.boxes if said.txts else (), strict=True))

    return read


def pictures():
    sign, _ = signboard((600, 400), ("OPEN 4729", 60, 150), ("HARBOUR", 300, 40), ("mind the gap", 250, 290))
    return [photograph("page"), sign, sign.rotate(8, expand=True), sign.rotate(90, expand=True)]


def corners(line, image):
    return np.array(line["polygon"]).reshape(4, 2) * image.size


def same_place(corners, others):
    """Of one quad, whichever corner comes first."""
    return min(np.abs(corners - np.roll(others, turn, axis=0)).max() for turn in range(4)) <= 1


def test_it_says_what_the_library_says_of_lines_read_one_by_one(read_together):
    """But for lines that the library takes to be upside down: of these, what is surer."""
    reads = library(**{"Rec.rec_batch_num": 1})
    for image, prior in read_together:
        expected = reads(image)
        assert len(prior["lines"]) == len(expected) > 0
        for text, score, quad in expected:
            (line,) = [line for line in prior["lines"] if same_place(corners(line, image), quad)]
            assert (line["text"], line["score"]) == (text.strip(), pytest.approx(score)) or line["score"] > score + 0.1


def test_a_long_line_is_not_taken_to_be_upside_down(ocr, read_together):
    """The library's classifier takes it so, and then reads 'the o sr e  t te  re s the'."""
    _, page = read_together[0]
    (line,) = [line for line in page["lines"] if line["text"].startswith("the markers")]
    assert line["score"] > 0.8
    assert line["polygon"][0] < 0.1 and line["polygon"][2] > 0.9


def test_it_says_what_the_library_says_out_of_the_box(read_together):
    """Which pads six lines to the widest of them, and that moves what is hardly readable."""
    reads = library()
    for image, prior in read_together:
        sure = {line["text"]: line for line in prior["lines"] if line["score"] > 0.8}
        expected = {text: quad for text, score, quad in reads(image) if score > 0.8}
        assert sure.keys() >= expected.keys() != set()
        assert all(same_place(corners(sure[text], image), quad) for text, quad in expected.items())


def test_what_a_line_says_does_not_hang_on_the_pictures_beside_it(ocr, read_together):
    assert [prior for _, prior in read_together] == [
        prior for image, _ in read_together for prior in ocr.measure([image])
    ]


def test_a_page_is_read_from_top_to_bottom(ocr):
    (prior,) = ocr.measure([photograph("page").resize((1152, 573))])
    said = " ".join(line["text"] for line in prior["lines"])
    parts = ["Region-based segmentation", "Let us first determine markers", "background. These", "histogram of grey"]
    assert sorted(parts, key=said.index) == parts


def test_columns_of_a_page_are_read_one_after_another(quick):
    image = Image.new("RGB", (1000, 400), "white")
    pen, font = ImageDraw.Draw(image), ImageFont.load_default(28)
    left = ["harbour seals sleep", "on the warm stones", "all afternoon long"]
    right = ["a ferry comes in", "from the far islands", "before the evening"]
    for x, column in ((60, left), (560, right)):
        for row, text in enumerate(column):
            pen.text((x, 80 + 36 * row), text, fill="black", font=font)
    (prior,) = quick.measure([image])
    assert texts(prior) == left + right


STROKES = {
    "中": [
        (0.1, 0.25, 0.9, 0.25),
        (0.9, 0.25, 0.9, 0.65),
        (0.1, 0.65, 0.9, 0.65),
        (0.1, 0.25, 0.1, 0.65),
        (0.5, 0, 0.5, 1),
    ],
    "山": [(0.5, 0.05, 0.5, 0.9), (0.1, 0.4, 0.1, 0.9), (0.9, 0.4, 0.9, 0.9), (0.1, 0.9, 0.9, 0.9)],
    "王": [(0.1, 0.1, 0.9, 0.1), (0.15, 0.5, 0.85, 0.5), (0.05, 0.9, 0.95, 0.9), (0.5, 0.1, 0.5, 0.9)],
}


def test_chinese_is_given_in_its_own_script(quick):
    """Drawn stroke by stroke: no font with these letters comes with the packages."""
    image = Image.new("RGB", (640, 360), "white")
    pen = ImageDraw.Draw(image)
    for place, letter in enumerate("中山王"):
        for stroke in STROKES[letter]:
            ends = [100 + 70 * place + 60 * stroke[0], 150 + 60 * stroke[1]]
            pen.line([*ends, 100 + 70 * place + 60 * stroke[2], 150 + 60 * stroke[3]], fill="black", width=5)
    assert texts(*quick.measure([image])) == ["中山王"]


def line_at(text, score, row):
    return Line(text, score, np.array([[0, 20 * row], [50, 20 * row], [50, 20 * row + 10], [0, 20 * row + 10]]))


def test_text_goes_through_the_table_as_it_was_read(ocr):
    said = ['"Größe" — l’été', "Ωμέγα ﬁ ①", "🛄 مرحبا", "e\u0301 \u3000 x"]
    read = [line_at(f"  {text}\n", 0.9, i) for i, text in enumerate(said)] + [line_at(" \u3000\t", 0.9, 9)]
    prior = ocr.finish(_Read(read, (100, 200)))
    table = pa.Table.from_pylist([{"uid": "a", "error": None} | prior], schema=OCR_PRIOR)
    assert texts(table.to_pylist()[0]) == said


def test_lines_below_the_threshold_are_measured_and_dropped_when_the_row_is_read(ocr):
    image, _ = signboard((640, 360), ("HARBOUR", 300, 40), ("OPEN 4729", 60, 150))
    (prior,) = ocr.measure([image])
    low, high = sorted(line["score"] for line in prior["lines"])
    assert low < high
    for threshold, kept in ((0, [low, high]), (low, [high]), ((low + high) / 2, [high]), (high, [])):
        decided = Ocr(OcrSection(threshold=threshold)).decide(prior | {"error": None}, {})
        assert sorted(line["score"] for line in decided["lines"]) == kept
        assert decided["error"] is None
    assert len(prior["lines"]) == 2


def test_the_threshold_is_applied_later_and_the_rest_is_measured():
    section = OcrSection(threshold=0.7, box_threshold=0.6, threads=3)
    assert section.decisions() == {"threshold": 0.7}
    assert section.decides().keys() == {"decode", "family", "precision", "box_threshold", "side"}
    assert OcrSection().decides()["family"] == "rapidocr"


def test_a_lower_box_threshold_reads_more(opened):
    (prior,) = opened("ocr", box_threshold=0.95).measure([photograph("page")])
    (more,) = opened("ocr", box_threshold=0.1).measure([photograph("page")])
    assert len(prior["lines"]) < len(more["lines"])


@functools.cache
def forms():
    page = photograph("page")
    files = awkward_files() | {
        "page in cmyk": encoded(page.convert("CMYK"), "JPEG", quality=95),
        "page in a palette": encoded(page.convert("P")),
        "page of odd size": encoded(page.crop((0, 0, 383, 187)).resize((1149, 561))),
        "page on its side": turned(page.resize((768, 382)), 6),
        "20,000 pixels wide": encoded(Image.new("RGB", (20_000, 12), "white")),
        "20,000 pixels high": encoded(Image.new("RGB", (1, 20_000), "white")),
    }
    return {name: decode_rgb(data) for name, data in files.items()}


@pytest.mark.parametrize("form", forms())
def test_every_form_of_file_has_its_lines_inside_its_frame(quick, form):
    image = forms()[form]
    (prior,) = quick.measure([image])
    for line in prior["lines"]:
        assert line["text"] == line["text"].strip() != ""
        assert len(line["polygon"]) == 8 and all(0 <= n <= 1 for n in line["polygon"])
        assert 0 <= line["score"] <= 1
    if form.startswith("page"):
        (title,) = [line for line in prior["lines"] if line["text"] == "Region-based segmentation"]
        # Where it stands in skimage's page, 384 x 191.
        assert lies_on(title["polygon"], np.array([16, 15, 289, 31]) * image.width / 384, image.size)


def test_a_strip_of_text_is_read_where_it_stands(quick):
    """7,000 pixels wide: shrunk to 2,000 and laid on a canvas of 250."""
    image = Image.new("RGB", (7000, 140), "white")
    ImageDraw.Draw(image).text((5200, 20), "HARBOUR", fill="black", font=ImageFont.load_default(100))
    box = ImageDraw.Draw(image).textbbox((5200, 20), "HARBOUR", ImageFont.load_default(100))
    (prior,) = quick.measure([image])
    (line,) = prior["lines"]
    assert line["text"] == "HARBOUR"
    assert lies_on(line["polygon"], box, image.size)


def test_a_large_jpeg_may_be_decoded_at_a_smaller_scale(quick):
    image, (box,) = signboard((6000, 3000), ("HARBOUR", 600, 400), size_of_text=400)
    (prior,) = quick.measure([decode_rgb(encoded(image, "JPEG"), quick.least())])
    (line,) = [line for line in prior["lines"] if line["text"] == "HARBOUR"]
    assert lies_on(line["polygon"], box, image.size)


def test_threads_are_those_of_the_session(opened):
    options = opened("ocr", threads=1)._reader._engine.text_det.session.session.get_session_options()
    assert options.intra_op_num_threads == 1


def test_a_broken_installation_is_a_setup_error_that_says_what_to_do(monkeypatch):
    def broken(params):
        raise OSError("no model file")

    monkeypatch.setattr("rapidocr.RapidOCR", broken)
    with pytest.raises(SetupError, match=r"perceive\.ocr could not start RapidOCR: OSError: no model file.*reinstall"):
        Ocr(OcrSection()).open("cpu")


def test_settings_of_the_other_family_are_refused():
    with pytest.raises(ValidationError, match=r"rec_model is for family ppocr only.*leave it out"):
        OcrSection(rec_model="somebody/else")
    with pytest.raises(
        ValidationError, match=r"family rapidocr runs on the CPU.*set perceive.ocr.resources.gpus=0, or"
    ):
        OcrSection(resources={"gpus": 0.25})
    assert OcrSection(family="ppocr", resources={"gpus": 0.25}, rec_model="somebody/else").family == "ppocr"


def test_identity_names_the_package_and_its_weights():
    models = Ocr(OcrSection()).models()
    assert models["weights"].startswith("folder:")
    assert models["rapidocr"][0].isdigit()

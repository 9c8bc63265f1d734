"""The family ppocr. Nobody can download weights here, so it is held in two ways: small models of random weights, in the
form in which transformers saves them; and the networks that RapidOCR ships, in the seats of those models."""

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from experts.ocr import Ocr, OcrSection
from experts.readers.layout import crop_line
from schemas.errors import RequestError, SetupError
from schemas.pictures import decode_rgb
from tests.experts.test_ocr import lies_on, signboard, texts
from tests.photographs import awkward_files, photograph

MIDDLE = [0.5, 0.5, 0.5]


@pytest.fixture(scope="module")
def shipped():
    """RapidOCR's detector and recogniser (PP-OCRv6 small), which are named as PaddlePaddle publishes them."""
    from rapidocr import RapidOCR

    engine = RapidOCR(params={"Global.log_level": "error", "EngineConfig.onnxruntime.intra_op_num_threads": 1})
    engine.run_ocr_steps(np.full((64, 64, 3), 255, np.uint8), {})
    return engine._load_det_model(), engine._load_rec_model()


@pytest.fixture(scope="module")
def folders(tmp_path_factory, shipped):
    """A detector and a recogniser of random weights, with the alphabet and the pixels that RapidOCR's networks take."""
    import torch
    import transformers as t

    torch.manual_seed(0)
    letters = shipped[1].postprocess_op.character
    detector = t.PPOCRV5MobileDetForObjectDetection(t.PPOCRV5MobileDetConfig())
    recogniser = t.PPOCRV6SmallRecForTextRecognition(t.PPOCRV6SmallRecConfig(head_out_channels=len(letters)))
    recogniser.head.head.bias.data[0] = -100  # else random weights say no letter at all
    det_processor = t.PPOCRV5ServerDetImageProcessor(image_mean=MIDDLE, image_std=MIDDLE)
    rec_processor = t.PPOCRV6SmallRecImageProcessor(character_list=letters)
    folder = tmp_path_factory.mktemp("ppocr")
    for name, parts in (("det", (detector, det_processor)), ("rec", (recogniser, rec_processor))):
        for part in parts:
            part.save_pretrained(folder / name)
    return {"det_model": str(folder / "det"), "rec_model": str(folder / "rec")}


def build(folders, **settings):
    expert = Ocr(OcrSection(**{"family": "ppocr", "side": 320} | folders | settings))
    expert.open("cpu")
    return expert


@pytest.fixture(scope="module")
def random(folders):
    """Sees text all over a picture, and reads nonsense."""
    return build(folders, box_threshold=0.1, side=96)


class Seat:
    """An ONNX network where a transformers model sits; `shapes` are those of the pixels it was given."""

    def __init__(self, session):
        self._session, self.shapes = session, []

    def __call__(self, pixel_values):
        import torch

        self.shapes.append(tuple(pixel_values.shape))
        return SimpleNamespace(last_hidden_state=torch.from_numpy(self._session(pixel_values.numpy())))


@pytest.fixture(scope="module")
def untrained(folders):
    return build(folders)


@pytest.fixture
def trained(untrained, shipped):
    return seated(untrained, shipped)


def seated(expert, shipped):
    expert._reader._detector, expert._reader._recogniser = (Seat(network.session) for network in shipped)
    return expert


@pytest.mark.parametrize("size", [(640, 360), (333, 577)])
def test_a_sign_is_read_exactly_where_it_stands(trained, size):
    image, (box,) = signboard(size, ("OPEN 4729", 60, 150))
    (prior,) = trained.measure([image])
    (line,) = [line for line in prior["lines"] if line["text"] == "OPEN 4729"]
    assert line["score"] > 0.8
    assert lies_on(line["polygon"], box, size)


@pytest.mark.parametrize("angle", [20, -35])
def test_a_slanted_sign_is_read_and_its_polygon_is_as_slanted(trained, angle):
    image, (box,) = signboard((640, 640), ("LIGHTHOUSE", 200, 300))
    (prior,) = trained.measure([image.rotate(angle)])
    (line,) = [line for line in prior["lines"] if line["text"] == "LIGHTHOUSE"]
    polygon = np.array(line["polygon"]).reshape(4, 2) * 640
    along = polygon[1] - polygon[0]
    assert np.rad2deg(np.arctan2(-along[1], along[0])) == pytest.approx(angle, abs=2)
    turned = np.deg2rad(angle)
    back = np.array([[np.cos(turned), np.sin(turned)], [-np.sin(turned), np.cos(turned)]])
    assert lies_on((((polygon - 320) @ back + 320) / 640).flatten(), box, (640, 640))


@pytest.mark.parametrize("angle", [90, 180, 270])
def test_the_polygon_begins_where_the_text_begins(trained, angle):
    image, (box,) = signboard((640, 640), ("LIGHTHOUSE", 200, 100))
    (prior,) = trained.measure([image.rotate(angle)])
    (line,) = [line for line in prior["lines"] if line["text"] == "LIGHTHOUSE"]
    x, y = box[0], box[1]
    expected = {90: (y, 640 - x), 180: (640 - x, 640 - y), 270: (640 - y, x)}[angle]
    assert np.abs(np.array(line["polygon"][:2]) * 640 - expected).max() < 20


def test_it_reads_what_rapidocr_reads_with_the_same_networks(trained, opened):
    images = [
        photograph("page").crop((0, 0, 384, 110)).resize((1152, 330)),
        signboard((640, 480), ("OPEN 4729", 60, 150), ("HARBOUR", 300, 40))[0],
    ]
    ours, theirs = trained.measure(images), opened("ocr", side=320).measure(images)
    for image, one, other in zip(images, ours, theirs, strict=True):
        sure = {line["text"]: line["polygon"] for line in one["lines"] if line["score"] > 0.9}
        expected = {line["text"]: line["polygon"] for line in other["lines"] if line["score"] > 0.9}
        assert sure.keys() == expected.keys() != set()
        # transformers widens a detector's boxes by 1.5, RapidOCR by 1.6 and after dilating; lines are 70 pixels high.
        apart = [np.subtract(sure[text], expected[text]).reshape(4, 2) * image.size for text in sure]
        assert np.abs(apart).max() <= 8


def test_lines_of_all_pictures_share_batches_and_do_not_feel_it(trained, folders, shipped):
    page = photograph("page")
    signs = [signboard((384, 191), (word, 40, 60))[0] for word in ("OPEN", "HARBOUR", "EXIT 9")]
    images = [page, *signs]
    together = trained.measure(images)
    detector, recogniser = trained._reader._detector.shapes, trained._reader._recogniser.shapes
    assert detector == [(4, 3, 320, 640)]
    assert max(shape[0] for shape in recogniser) >= len(signs)
    assert {shape[1:3] for shape in recogniser} == {(3, 48)} and all(shape[3] % 64 == 0 for shape in recogniser)
    one_by_one = seated(build(folders, crops=1), shipped)
    alone = [prior for image in images for prior in one_by_one.measure([image])]
    assert {shape[0] for shape in one_by_one._reader._recogniser.shapes} == {1}
    for one, other in zip(together, alone, strict=True):
        assert texts(one) == texts(other) != []
        for line, same in zip(one["lines"], other["lines"], strict=True):
            assert line["polygon"] == same["polygon"]
            assert line["score"] == pytest.approx(same["score"], abs=1e-4)


def test_pictures_of_different_shapes_do_not_share_a_batch(trained):
    images = [Image.new("RGB", size, "white") for size in ((640, 360), (360, 640), (640, 360))]
    assert [prior["lines"] for prior in trained.measure(images)] == [[], [], []]
    assert sorted(shape[0] for shape in trained._reader._detector.shapes) == [1, 2]
    assert trained._reader._recogniser.shapes == []


def test_letters_are_those_of_the_librarys_own_decoding(random):
    import torch

    torch.manual_seed(1)
    letters = torch.tensor([[0, 5, 5, 0, 5, 7, 7, 0], [9, 9, 0, 0, 0, 3, 0, 3], [4, 0, 0, 0, 0, 0, 0, 0]])
    likely = torch.nn.functional.one_hot(letters, len(random._reader._letters)) * 9.0 + torch.rand(3, 8, 1)
    state = (likely + torch.rand_like(likely)).softmax(dim=-1)
    expected = random._reader._rec_processor.post_process_text_recognition(SimpleNamespace(last_hidden_state=state))
    best, ids = state.max(dim=-1)
    said = [random._reader._letters_at(*row) for row in zip(ids.numpy(), best.numpy(), strict=True)]
    assert [text for text, _ in said] == [one["text"] for one in expected]
    assert [score for _, score in said] == pytest.approx([one["score"] for one in expected])


def test_a_line_without_a_letter_has_no_confidence_and_is_not_kept(random):
    assert random._reader._letters_at(np.zeros(8, int), np.ones(8)) == ("", 0.0)


def test_a_crop_is_prepared_as_the_library_prepares_it_alone(random):
    crop = crop_line(np.asarray(photograph("page")), np.array([[10, 10], [300, 10], [300, 34], [10, 34]]))
    ours = random._reader._line_pixels(crop)
    library = random._reader._rec_processor(images=Image.fromarray(crop), return_tensors="pt")["pixel_values"][0]
    width = library.shape[-1]
    assert ours.shape == (3, 48, 640) and width == 580
    assert (ours[:, :, :width] == library).all() and (ours[:, :, width:] == 0).all()


def test_random_weights_give_one_row_an_image_inside_the_frame(random):
    images = [decode_rgb(data) for data in awkward_files().values()] + [Image.new("RGB", (20_000, 3))]
    priors = random.measure(images)
    assert len(priors) == len(images) and any(prior["lines"] for prior in priors)
    for line in (line for prior in priors for line in prior["lines"]):
        assert line["text"] == line["text"].strip() != ""
        assert len(line["polygon"]) == 8 and all(0 <= n <= 1 for n in line["polygon"]) and 0 <= line["score"] <= 1


@pytest.mark.parametrize("precision", ["bfloat16", "float16"])
def test_half_precision_runs(folders, precision):
    expert = build(folders, precision=precision, box_threshold=0.1, side=96)
    prepared = expert.prepare(photograph("coffee").resize((150, 100)))
    assert str(prepared.prepared.pixels.dtype) == f"torch.{precision}"
    (read,) = expert.look([prepared], [{}])
    assert read.lines and all(0 <= line.score <= 1 for line in read.lines)


@pytest.mark.parametrize("seat", ["_detector", "_recogniser"])
def test_values_that_are_not_finite_are_an_error_and_not_an_empty_prior(folders, seat):
    import torch

    expert = build(folders, box_threshold=0.1)
    with torch.no_grad():
        for values in getattr(expert._reader, seat).parameters():
            values.fill_(float("nan"))
    with pytest.raises(FloatingPointError, match="the ocr model gave values that are not finite"):
        expert.measure([photograph("coffee")])


def test_identity_is_of_both_models_and_of_their_place_not_at_all(folders, tmp_path):
    (tmp_path / "moved").mkdir()
    for file in Path(folders["rec_model"]).iterdir():
        (tmp_path / "moved" / file.name).write_bytes(file.read_bytes())
    here = Ocr(OcrSection(family="ppocr", **folders)).models()
    moved = Ocr(OcrSection(family="ppocr", **folders | {"rec_model": str(tmp_path / "moved")})).models()
    assert here == moved and here.keys() == {"detector", "recogniser"}
    assert here["detector"] != here["recogniser"]
    hub = Ocr(OcrSection(family="ppocr", rec_revision="abc")).models()
    assert hub["recogniser"] == "PaddlePaddle/PP-OCRv6_small_rec_safetensors@abc"
    assert hub["detector"] == "PaddlePaddle/PP-OCRv6_medium_det_safetensors@main"


@pytest.mark.parametrize("field", ["det_model", "rec_model"])
def test_a_missing_folder_is_found_before_anything_starts(field):
    with pytest.raises(RequestError, match="/nowhere/at/all does not exist"):
        Ocr(OcrSection(family="ppocr", **{field: "/nowhere/at/all"})).models()


@pytest.mark.parametrize("field", ["det_model", "rec_model"])
def test_a_folder_without_the_model_is_a_setup_error_that_says_what_to_do(folders, tmp_path, field):
    (tmp_path / "config.json").write_text("{}")
    other = folders["rec_model" if field == "det_model" else "det_model"]
    for wrong in (str(tmp_path), other):
        with pytest.raises(SetupError, match=rf"perceive\.ocr could not load {wrong}.*Set perceive\.ocr\.{field} to"):
            build(folders, **{field: wrong})


def test_a_recogniser_without_an_alphabet_is_refused(folders, tmp_path):
    import transformers as t

    t.PPOCRV6SmallRecForTextRecognition(t.PPOCRV6SmallRecConfig(head_out_channels=9)).save_pretrained(tmp_path)
    t.PPOCRV6SmallRecImageProcessor().save_pretrained(tmp_path)
    with pytest.raises(SetupError, match="has no character_list"):
        build(folders, rec_model=str(tmp_path))

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from PIL import Image, ImageDraw, ImageFont
from rapidocr.utils.process_img import get_rotate_crop_image

from experts.readers.layout import crop_line, from_text_corner, on_canvas, reading_order

FONT = ImageFont.load_default(32)
corner = st.integers(0, 300)
loose_box = st.tuples(corner, corner, st.integers(4, 90), st.integers(4, 90))


def box(x, y, width, height):
    return np.array([[x, y], [x + width, y], [x + width, y + height], [x, y + height]], np.float64)


def turned(quads, degrees, about=(500.0, 300.0)):
    """Clockwise, as the y axis points down."""
    angle = np.deg2rad(degrees)
    matrix = np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]])
    return [(quad - about) @ matrix + about for quad in quads]


def grid(rows, columns, width, height, pitch):
    """Words, row by row."""
    return [box(column * (width + 1), row * pitch, width, height) for row in range(rows) for column in range(columns)]


def paragraph(x, y, lines, width, pitch=13, height=10):
    """Lines of nearly one width; the last is short."""
    return [box(x, y + i * pitch, width if i < lines - 1 else width * 0.6, height) for i in range(lines)]


def read(quads, shuffle=None):
    """The quads' own numbers in reading order, found from a shuffled list."""
    places = list(range(len(quads)))
    if shuffle is not None:
        shuffle.shuffle(places)
    return [places[i] for i in reading_order([quads[i] for i in places])]


@given(st.lists(loose_box, max_size=12), st.randoms())
def test_it_is_a_permutation_and_the_order_of_detection_does_not_matter(boxes, shuffle):
    assume(len(set(boxes)) == len(boxes))
    quads = [box(*one) for one in boxes]
    assert sorted(read(quads)) == list(range(len(quads)))
    assert read(quads, shuffle) == read(quads)


@given(
    st.lists(st.lists(corner, min_size=8, max_size=8), max_size=10),
    st.sampled_from([0.125, 0.5, 2.0, 64.0]),
    corner,
    corner,
)
def test_any_quads_have_an_order_that_scale_and_place_do_not_change(numbers, scale, x, y):
    quads = [np.array(one, np.float64).reshape(4, 2) for one in numbers]
    order = reading_order(quads)
    assert sorted(order) == list(range(len(quads)))
    assert reading_order([quad * scale for quad in quads]) == order
    assert reading_order([quad + np.array([x, y]) for quad in quads]) == order


@given(st.integers(1, 6), st.integers(1, 5), st.floats(0.5, 3), st.floats(1.3, 5), st.floats(0.01, 100), st.randoms())
def test_words_in_a_grid_are_read_row_by_row(rows, columns, width, pitch, scale, shuffle):
    quads = [quad * scale for quad in grid(rows, columns, width, 1.0, pitch)]
    assert read(quads, shuffle) == list(range(len(quads)))


@given(
    st.integers(1, 3),
    st.integers(3, 12),
    st.floats(1.0, 6.0),
    st.floats(-6, 6),
    st.floats(-12, 12),
    st.booleans(),
    st.randoms(),
)
def test_columns_with_a_gutter_are_read_one_after_another(more, lines, gutter, offset, tilt, headline, shuffle):
    """Whatever the lines' heights against each other, and under a headline across."""
    width = 120
    quads = [box(0, -30, (width + gutter * 10) * more + width, 14)] if headline else []
    for column in range(more + 1):
        quads += paragraph(column * (width + gutter * 10), column * offset, lines + column % 2, width)
    assert read(turned(quads, tilt), shuffle) == list(range(len(quads)))


def test_a_figure_in_one_column_and_a_footer_across():
    left = paragraph(0, 0, 4, 120) + paragraph(0, 200, 4, 120)
    right = paragraph(140, 0, 19, 120)
    assert read([*left, *right, box(0, 300, 260, 10)]) == list(range(28))


def test_columns_between_paragraphs_that_span_the_page():
    above, below = paragraph(0, 0, 3, 260), paragraph(0, 160, 3, 260)
    columns = paragraph(0, 60, 6, 120) + paragraph(140, 60, 6, 120)
    assert read([*above, *columns, *below]) == list(range(18))


def test_a_column_that_begins_below_a_picture_is_still_the_first():
    assert read(paragraph(0, 60, 4, 120) + paragraph(140, 0, 8, 120)) == list(range(12))


def test_a_menu_is_read_dish_and_price():
    dishes = [(110, "Cappuccino"), (60, "Tea"), (90, "Espresso"), (120, "Cheesecake")]
    quads = [
        quad for i, (width, _) in enumerate(dishes) for quad in (box(0, 13 * i, width, 10), box(200, 13 * i, 25, 10))
    ]
    assert read(quads) == list(range(8))


def test_signs_in_a_scene_are_read_from_the_top():
    signs = [
        box(300, 10, 90, 30),
        box(20, 60, 200, 40),
        box(500, 70, 60, 20),
        box(30, 250, 50, 20),
        box(400, 300, 80, 30),
    ]
    assert read(signs) == list(range(5))


def test_lines_beside_one_tall_word_are_read_as_a_text_of_their_own():
    assert read([box(0, 0, 150, 60), box(170, 2, 80, 15), box(170, 22, 90, 15), box(170, 42, 70, 15)]) == [0, 1, 2, 3]


def test_words_of_several_sizes_on_one_line():
    assert read([box(0, 40, 40, 30), box(60, 0, 120, 70), box(200, 42, 60, 28)]) == [0, 1, 2]


@given(st.integers(1, 5), st.integers(1, 4), st.floats(-179, 180), st.randoms())
def test_a_tilted_page_is_read_along_its_tilt(rows, columns, tilt, shuffle):
    """Right round: upside down, it is read from its own top."""
    quads = turned(grid(rows, columns, 3.0, 1.0, 2.5), tilt)
    assert read(quads, shuffle) == list(range(len(quads)))


def test_lines_that_run_downwards_are_read_from_the_right():
    columns = [from_text_corner(box(x, 0, 20, 200), flipped=False) for x in (90, 60, 30)]
    assert read(columns) == [0, 1, 2]
    upwards = [from_text_corner(box(x, 0, 20, 200), flipped=True) for x in (30, 60, 90)]
    assert read(upwards) == [0, 1, 2]


def test_one_slanted_sign_does_not_tilt_the_rest():
    signs = [
        box(0, 0, 100, 20),
        box(300, 8, 100, 20),
        *turned([box(0, 60, 100, 20)], 40, (50, 70)),
        box(300, 90, 100, 20),
    ]
    assert read(signs) == [0, 1, 2, 3]


def test_lines_of_a_tilted_photograph_keep_their_order():
    """Each line tilted about its own middle as well, as detectors find them."""
    shaken = np.random.default_rng(3).uniform(-1.5, 1.5, 20)
    lines = paragraph(0, 0, 20, 300)
    shaky = [turned([line], tilt, line.mean(axis=0))[0] for line, tilt in zip(lines, shaken, strict=True)]
    assert read(turned(shaky, 7)) == list(range(20))


def test_a_page_of_a_thousand_lines_is_no_trouble():
    assert read(grid(200, 5, 3.0, 1.0, 1.5)) == list(range(1000))


@settings(max_examples=50)
@given(st.floats(-40, 40), st.integers(8, 120), st.integers(8, 60), st.integers(40, 160), st.integers(40, 110))
def test_crops_are_those_of_the_library(tilt, width, height, x, y):
    picture = np.random.default_rng(0).integers(0, 256, (150, 200, 3), np.uint8)
    (quad,) = turned([box(x - width / 2, y - height / 2, width, height)], tilt, (x, y))
    quad = quad.astype(np.float32)
    assert np.array_equal(crop_line(picture, quad), get_rotate_crop_image(picture, quad.copy()))


def test_a_quad_without_area_still_has_a_crop():
    picture = np.full((20, 20, 3), 7, np.uint8)
    for quad in (box(5, 5, 0, 0), box(3, 3, 0, 9), box(3, 3, 9, 0)):
        assert min(crop_line(picture, quad).shape) >= 1


@pytest.mark.parametrize("tilt", [0, 12, -25, 40])
def test_a_tilted_line_comes_out_upright(reads, tilt):
    image = Image.new("RGB", (400, 400), "white")
    pen = ImageDraw.Draw(image)
    x1, y1, x2, y2 = pen.textbbox((90, 180), "Lighthouse 42", FONT)
    pen.text((90, 180), "Lighthouse 42", fill="black", font=FONT)
    quad = box(x1 - 6, y1 - 6, x2 - x1 + 12, y2 - y1 + 12)
    picture = image.rotate(-tilt, Image.Resampling.BICUBIC, fillcolor="white")
    crop = crop_line(np.asarray(picture), turned([quad], tilt, (200, 200))[0])
    assert reads(crop) == "Lighthouse 42"


def test_a_line_that_runs_downwards_is_laid_down(reads):
    image = Image.new("RGB", (400, 60), "white")
    ImageDraw.Draw(image).text((20, 10), "Lighthouse 42", fill="black", font=FONT)
    picture = np.asarray(image.rotate(-90, expand=True))
    quad = box(0, 0, 60, 260)
    assert reads(crop_line(picture, quad)) == "Lighthouse 42"
    assert from_text_corner(quad, flipped=False)[0].tolist() == [60, 0]


@pytest.fixture(scope="module")
def reads():
    """Text of a crop, uint8 (h, w, 3) RGB, by RapidOCR's recogniser alone."""
    from rapidocr import RapidOCR

    engine = RapidOCR(params={"Global.log_level": "error"})

    def text(crop):
        (said,) = engine(np.ascontiguousarray(crop[:, :, ::-1]), use_det=False, use_cls=False).txts
        return said

    return text


@settings(max_examples=30)
@given(st.integers(1, 6000), st.integers(1, 6000))
def test_the_canvas_is_bounded_for_any_strip(width, height):
    canvas, wide, high = on_canvas(Image.new("RGB", (width, height)))
    assert canvas.shape[0] >= high >= 1 and canvas.shape[1] >= wide >= 1
    assert max(canvas.shape) <= 2000
    assert max(canvas.shape[:2]) <= 8 * min(canvas.shape[:2])
    assert min(canvas.shape[:2]) >= 32

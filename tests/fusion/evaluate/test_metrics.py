"""Each metric on captions whose figures can be counted by hand."""

import pytest

from fusion.evaluate.metrics import measure
from fusion.evaluate.reader import ClaimReader
from fusion.evaluate.tally import Tally
from fusion.evaluate.truth import TruthRow
from fusion.evaluate.vocabulary import Vocabulary

VOCABULARY = Vocabulary(
    categories={"ball": [], "crate": ["box"], "tree": [], "car": [], "sign": []},
    colours={"red": [], "blue": [], "green": []},
    attributes={"size": {"small": [], "large": ["big"]}, "side": {"left": ["on the left"], "right": ["on the right"]}},
)
READER = ClaimReader(VOCABULARY)


def line(text: str) -> dict[str, object]:
    return {"text": text, "score": 1.0, "polygon": [0.0] * 8}


SCENE = TruthRow.model_validate(
    {
        "uid": "1",
        "objects": [
            {
                "category": "ball",
                "colour": "red",
                "attributes": {"size": "small", "side": "left"},
                "box": [0.1, 0.5, 0.2, 0.6],
                "distance": 1,
            },
            {
                "category": "ball",
                "colour": "blue",
                "attributes": {"size": None, "side": "right"},
                "box": [0.7, 0.5, 0.8, 0.6],
                "distance": 2,
            },
            {
                "category": "tree",
                "colour": "green",
                "attributes": {"side": "right"},
                "box": [0.6, 0.1, 0.9, 0.6],
                "distance": 4,
            },
            {"category": "sign", "colour": None},
        ],
        "texts": ["OAK BAKERY", "Open"],
        "relations": [[0, "nearer than", 1], [2, "right of", 0]],
        "priors": {"ocr": {"lines": [line("OAK"), line("BAKERY"), line("0pen")]}},
        "false_claims": [{"category": "car", "colour": "red"}, {"category": "ball", "colour": "green"}],
        "false_boxes": ["ball", "ball", "crate"],
    }
)


def figures(text: str, truth: TruthRow = SCENE) -> dict[str, Tally]:
    return measure(READER.read(text), truth)


def test_objects_need_their_colour_and_categories_do_not() -> None:
    found = figures("A red ball, a ball, a red tree, a car and a sign.")
    assert found["object_precision"] == (2, 5)  # the red ball, and the sign whose colour nobody knows
    assert found["object_recall"] == (2, 4)
    assert found["object_f1"] == (4, 9)
    assert found["category_precision"] == (4, 5)
    assert found["category_recall"] == (4, 4)


def test_an_object_is_found_once() -> None:
    found = figures("A red ball. A red ball. A red ball.")
    assert found["object_precision"] == (1, 3)
    assert found["category_precision"] == (2, 3)


def test_an_empty_caption_finds_nothing_and_claims_nothing() -> None:
    found = figures("")
    assert found["object_precision"] == (0, 0)
    assert found["object_recall"] == (0, 4)
    assert found["text_recall"] == (0, 2)
    assert found["false_claims_repeated"] == (0, 2)


def test_a_plural_without_a_number_is_as_many_as_there_are() -> None:
    three = TruthRow.model_validate({"uid": "1", "objects": [{"category": "ball", "colour": "red"}] * 3})
    found = figures("Red balls.", three)
    assert found["object_recall"] == found["object_precision"] == (3, 3)
    assert found["count_accuracy"] == (1, 1)
    one = TruthRow.model_validate({"uid": "1", "objects": [{"category": "ball", "colour": "red"}]})
    assert figures("Red balls.", one)["object_precision"] == (1, 2)
    assert figures("Red balls.", one)["count_accuracy"] == (0, 1)


def test_attributes_are_judged_by_kind_where_the_truth_knows_them() -> None:
    found = figures("A small red ball on the right, a big blue ball on the right, a small green tree and a big sign.")
    # The blue ball has no size to be said, so `big` is wrong; of tree and sign the truth knows no size.
    assert found["attribute_precision.size"] == (1, 2)
    assert found["attribute_recall.size"] == (1, 1)
    assert found["attribute_precision.side"] == (1, 2)
    assert found["attribute_recall.side"] == (1, 3)
    assert found["attribute_precision"] == (2, 4)


def test_attributes_go_by_the_object_that_looks_alike() -> None:
    found = figures("A ball on the right and a ball on the left.")
    assert found["attribute_precision.side"] == (2, 2)


def test_counts_are_of_categories_that_are_named_and_there() -> None:
    found = figures("Two balls, two trees and two cars.")
    assert found["count_accuracy"] == (1, 2)
    assert found["count_accuracy_several"] == (1, 1)
    more = SCENE.model_copy(update={"counts": {"tree": 2}})
    assert figures("Two balls, two trees and two cars.", more)["count_accuracy"] == (2, 2)


@pytest.mark.parametrize(
    ("text", "precision", "recall"),
    [
        ("The red ball is in front of the blue ball.", (1, 1), (1, 2)),
        ("The blue ball is behind the red ball, to the right of it.", (2, 2), (1, 2)),
        ("The red ball is to the right of the tree.", (0, 1), (0, 2)),
        ("The red ball is to the left of the tree.", (1, 1), (1, 2)),
        ("The ball is to the left of the tree.", (1, 1), (1, 2)),
        ("The ball is behind the car.", (0, 1), (0, 2)),
        ("The sign is behind the tree.", (0, 0), (0, 2)),
    ],
)
def test_relations(text: str, precision: tuple[int, int], recall: tuple[int, int]) -> None:
    found = figures(text)
    assert found["relation_precision"] == precision
    assert found["relation_recall"] == recall


@pytest.mark.parametrize(
    ("text", "precision", "recall", "copied"),
    [
        ('A sign that reads "OAK BAKERY".', (1, 1), (1, 2), (1, 1)),
        ("It says “OAK” and, below, “BAKERY”; another says “Open”.", (3, 3), (2, 2), (1, 1)),
        ('It says "Oak Bakery" and "0pen".', (0, 2), (0, 2), (0, 1)),
        ('It says "OAKBAKERY" and "OAK BAKERY".', (1, 2), (1, 2), (1, 1)),
    ],
)
def test_text_is_right_to_the_letter(
    text: str, precision: tuple[int, int], recall: tuple[int, int], copied: tuple[int, int]
) -> None:
    found = figures(text)
    assert found["text_precision"] == precision
    assert found["text_recall"] == recall
    assert found["text_copied"] == copied


def test_without_a_reader_nothing_could_be_copied() -> None:
    assert figures('"Open"', SCENE.model_copy(update={"priors": {}}))["text_copied"] == (0, 0)


@pytest.mark.parametrize(
    ("text", "repeated"),
    [
        ("A red car.", 1),
        ("A blue car and a green ball.", 2),
        ("A ball. There is no car.", 0),
        ("A red ball and a sign that says 'car'.", 0),
    ],
)
def test_false_claims(text: str, repeated: int) -> None:
    assert figures(text)["false_claims_repeated"] == (repeated, 2)


@pytest.mark.parametrize(
    ("text", "repeated"),
    [("Two balls.", 0), ("Three balls.", 1), ("Five balls and a crate.", 3), ("A ball and two trees.", 0)],
)
def test_false_boxes_are_seen_by_a_surplus(text: str, repeated: int) -> None:
    assert figures(text)["false_boxes_repeated"] == (repeated, 3)

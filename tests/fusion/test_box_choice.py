"""Which boxes are shown: merged over sources, and sampled towards small objects."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from fusion.box_choice import BoxChoiceSection, area, choose_boxes, iou
from fusion.priors import Box, Priors

EDGE = st.floats(-0.25, 1.25, allow_nan=False, width=32)


def box(label: str, score: float, x1: float, y1: float, x2: float, y2: float) -> Box:
    return Box(expert="closed_set", anchor=0, label=label, score=score, x1=x1, y1=y1, x2=x2, y2=y2)


BOXES = st.lists(
    st.builds(box, st.sampled_from(["cat", "Cat", "sign", "x\ny"]), st.floats(0, 1), EDGE, EDGE, EDGE, EDGE)
)


@given(BOXES, BOXES)
def test_no_two_boxes_of_a_label_overlap_and_none_is_lost_without_a_better_one(
    closed: list[Box], opened: list[Box]
) -> None:
    section = BoxChoiceSection(max_boxes=500)
    chosen = choose_boxes(Priors(closed_set=closed, open_set=opened), section)
    for i, a in enumerate(chosen):
        assert all(
            a["label"].casefold() != b["label"].casefold() or iou(a, b) < section.merge_iou for b in chosen[i + 1 :]
        )
    everything = Priors(closed_set=closed, open_set=opened)
    unmerged = choose_boxes(everything, section.model_copy(update={"merge_iou": 1.0}))
    for b in unmerged:
        assert any(
            b["label"].casefold() == k["label"].casefold()
            and k["score"] >= b["score"]
            and iou(b, k) >= section.merge_iou
            for k in chosen
        )


def test_repeated_labels_stay_and_scores_decide_between_sources() -> None:
    closed = [box("dog", 0.6, 0.1, 0.1, 0.5, 0.5), box("dog", 0.9, 0.6, 0.6, 0.9, 0.9)]
    opened = [box("Dog", 0.7, 0.1, 0.1, 0.5, 0.52), box("puppy", 0.7, 0.1, 0.1, 0.5, 0.5)]
    chosen = choose_boxes(Priors(closed_set=closed, open_set=opened), BoxChoiceSection())
    assert [b["label"] for b in chosen] == ["Dog", "puppy", "dog"]


def test_small_objects_keep_their_places_among_many_large_ones() -> None:
    large = [box(f"wall{i}", 0.99, 0.0, 0.0, 0.9, 0.5 + i / 100) for i in range(30)]
    small = [box(f"coin{i}", 0.55, i / 10, 0.9, i / 10 + 0.05, 0.95) for i in range(3)]
    chosen = choose_boxes(Priors(closed_set=large + small), BoxChoiceSection(max_boxes=6))
    assert len(chosen) == 6
    assert sum(area(b) < 0.01 for b in chosen) == 3


def crowd() -> list[Box]:
    """Best score first: large, medium, small; and smaller boxes of lower scores."""
    large = [box(f"wall{i}", 0.9 - i / 100, 0, 0, 0.9, 0.5 + i / 100) for i in range(8)]
    medium = [box(f"cup{i}", 0.7 - i / 100, i / 10, 0.5, i / 10 + 0.2, 0.7) for i in range(8)]
    small = [box(f"coin{i}", 0.5 - i / 100, i / 10, 0.9, i / 10 + 0.05, 0.95) for i in range(8)]
    return [*small, *large, *medium]


@pytest.mark.parametrize(
    ("sampling", "expected"),
    [("score", {"wall": 6}), ("balanced", {"coin": 2, "cup": 2, "wall": 2}), ("area", {"wall": 6})],
)
def test_sampling_says_which_classes_of_size_are_shown(sampling: str, expected: dict[str, int]) -> None:
    section = BoxChoiceSection.model_validate({"max_boxes": 6, "sampling": sampling})
    names = [b["label"].rstrip("0123456789") for b in choose_boxes(Priors(open_set=crowd()), section)]
    assert {name: names.count(name) for name in set(names)} == expected


def test_size_classes_are_settings() -> None:
    section = BoxChoiceSection(max_boxes=6, small_area=0.05, medium_area=0.05)
    names = [b["label"].rstrip("0123456789") for b in choose_boxes(Priors(open_set=crowd()), section)]
    assert {name: names.count(name) for name in set(names)} == {"cup": 3, "wall": 3}
    with pytest.raises(ValidationError, match="must not be below small_area"):
        BoxChoiceSection(small_area=0.2)


def test_boxes_of_different_labels_merge_only_where_asked() -> None:
    priors = Priors(closed_set=[box("dog", 0.8, 0.1, 0.1, 0.5, 0.5)], open_set=[box("puppy", 0.9, 0.1, 0.1, 0.5, 0.51)])
    assert len(choose_boxes(priors, BoxChoiceSection())) == 2
    [one] = choose_boxes(priors, BoxChoiceSection(merge_iou_across=0.9))
    assert one["label"] == "puppy"


@given(BOXES, st.sampled_from(["balanced", "score", "area"]), st.integers(0, 6))
def test_a_sample_is_of_what_there_is_and_as_large_as_it_may(boxes: list[Box], sampling: str, most: int) -> None:
    section = BoxChoiceSection.model_validate({"max_boxes": most, "sampling": sampling})
    every = choose_boxes(Priors(open_set=boxes), BoxChoiceSection(max_boxes=500))
    chosen = choose_boxes(Priors(open_set=boxes), section)
    assert len(chosen) == min(most, len(every))
    assert all(one in every for one in chosen)

"""Things, their numbers, sides, relations and depths against boxes, tags and depth."""

from collections import Counter
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fusion.checks import Caption, ChecksSection, Finding, FindingKind, check
from fusion.checks.case import Case
from fusion.checks.objects import verdict
from fusion.priors import Box, Nearness, Priors

SECTION = ChecksSection(min_words=0)


def boxes(expert: str, *rows: tuple[str, float, float], score: float = 0.9) -> list[Box]:
    """Squares of a tenth of the image around (label, x, y)."""
    return [
        Box(expert=expert, anchor=i, label=label, score=score, x1=x - 0.05, y1=y - 0.05, x2=x + 0.05, y2=y + 0.05)
        for i, (label, x, y) in enumerate(rows)
    ]


def seen(*rows: tuple[str, float, float], near: tuple[float, ...] = (), **others: Any) -> Priors:
    """Priors of a closed set and of tags that name the same."""
    depths = [Nearness(expert="closed_set", anchor=i, nearness=value, band="middle") for i, value in enumerate(near)]
    tags = [{"tag": label, "score": 0.9} for label, _, _ in rows]
    given: dict[str, Any] = {"tags": tags, "closed_set": boxes("closed_set", *rows), "depths": depths, **others}
    return Priors(**given)


def found(text: str, priors: Priors) -> list[Finding]:
    return check(Caption(text, "stop"), priors, SECTION)


def kinds(text: str, priors: Priors) -> list[FindingKind]:
    return [one.kind for one in found(text, priors)]


STREET = seen(("person", 0.2, 0.5), ("person", 0.4, 0.5), ("car", 0.8, 0.6), near=(0.9, 0.8, 0.3))


@pytest.mark.parametrize(
    "text",
    [
        "A man and a woman stand near an automobile.",
        "A vehicle waits.",
        "There is no dog.",
        "It is a street without bicycles.",
        "A van is parked.",
        "A man beside a car, shaped like a banana.",
        "A man beside a statue of a horse, with a tattoo of two birds.",
        "A zorblat sits on a gimcrack.",
        "A building with windows; he wears a hat.",
        "The dog collar is red.",
        "It is a bus stop.",
    ],
)
def test_things_that_are_seen_or_that_nobody_need_see(text: str) -> None:
    assert kinds(text, STREET) == []


@pytest.mark.parametrize(
    "text", ["A dog lies there.", "Two cyclists pass an elephant.", "A red bicycle leans on a car."]
)
def test_things_that_no_expert_saw(text: str) -> None:
    assert FindingKind.UNSEEN_OBJECT in kinds(text, STREET)


def test_the_finding_names_the_thing() -> None:
    [finding] = found("There is a puppy.", STREET)
    assert '"dog"' in finding.detail


def test_an_expert_that_did_not_look_proves_nothing() -> None:
    alone = [
        Priors(),
        Priors(tags=[]),
        Priors(closed_set=[]),
        Priors(closed_set=[], open_set=[]),
        Priors(description="A street."),
    ]
    assert all(kinds("A dog lies there.", one) == [] for one in alone)
    assert kinds("A dog lies there.", Priors(tags=[], open_set=[])) == [FindingKind.UNSEEN_OBJECT]
    assert kinds("A dog lies there.", Priors(closed_set=[], description="Grass.")) == [FindingKind.UNSEEN_OBJECT]
    assert kinds("A dog lies there.", Priors(closed_set=[], description="Two puppies.")) == []


def test_what_the_table_does_not_know_is_unverified() -> None:
    case = Case(Caption("-", "stop"), STREET, SECTION)
    assert [verdict(case, one) for one in ("man", "dog", "zorblat", "hat")] == [
        "seen",
        "unseen",
        "unverified",
        "unverified",
    ]


def test_a_label_that_the_table_does_not_know_is_read_too() -> None:
    priors = seen(("zorblat", 0.2, 0.5), ("zorblat", 0.4, 0.5))
    assert kinds("There are three zorblats.", priors) == [FindingKind.WRONG_COUNT]
    assert kinds("There are two zorblats.", priors) == []


@pytest.mark.parametrize(
    "text", ["There are two people.", "One person waits.", "The image shows two people and one car.", "Several people."]
)
def test_right_numbers(text: str) -> None:
    assert kinds(text, STREET) == []


@pytest.mark.parametrize(
    "text",
    ["Three people stand there.", "There is one person in view.", "Two cars.", "The image shows a car and 4 men."],
)
def test_wrong_numbers(text: str) -> None:
    assert kinds(text, STREET) == [FindingKind.WRONG_COUNT]


def test_a_part_of_them_may_be_told_of() -> None:
    crowd = seen(*(("person", 0.1 + i / 5, 0.5) for i in range(4)))
    assert kinds("There are two people on the left.", crowd) == []
    assert kinds("Two people sit on a wall. Two of the four people wave.", crowd) == []
    assert kinds("There are twenty people.", crowd) == []


def test_one_detectors_weak_box_is_no_thing_for_sure() -> None:
    weak = Priors(tags=[], open_set=boxes("open_set", ("dog", 0.2, 0.5), ("dog", 0.7, 0.5), score=0.4))
    assert kinds("There is one dog.", weak) == []
    both = Priors(tags=[], open_set=weak.open_set, closed_set=boxes("closed_set", ("dog", 0.2, 0.5), score=0.6))
    assert kinds("There are two dogs.", both) == [FindingKind.WRONG_COUNT]
    assert kinds("There is one dog.", both) == []


@pytest.mark.parametrize(
    "text",
    [
        "A car on the right.",
        "A person is on the left, another person in the centre.",
        "The car is to the right of the people.",
        "The car looks to the left.",
        "A car on the left side of the road.",
        "A man with a tattoo on the left leg.",
        "A person stands to the left of a car.",
    ],
)
def test_right_places(text: str) -> None:
    assert kinds(text, STREET) == []


@pytest.mark.parametrize(
    "text", ["A car on the left.", "Two people stand on the right.", "On the left of the image is a car."]
)
def test_wrong_sides(text: str) -> None:
    assert kinds(text, STREET) == [FindingKind.WRONG_SIDE]


def test_a_finding_says_where_things_are() -> None:
    [one] = found("A car on the left.", STREET)
    assert one.detail == "No car is on the left of the image. It is on the right."
    [few] = found("Two people stand on the right.", seen(("person", 0.1, 0.5), ("person", 0.5, 0.5)))
    assert few.detail == (
        "Fewer things called person are on the right of the image. They are on the left and in the centre."
    )
    [high] = found("A kite at the bottom.", seen(("kite", 0.5, 0.1)))
    assert high.detail == "No kite is at the bottom of the image. It is at the top."
    [beside] = found("A car stands to the left of a person.", STREET)
    assert beside.detail == "The car is not left of the person, but right of it."
    [near] = found("A car is in front of a person.", STREET)
    assert near.detail == "The car is not nearer than the person, but farther."


def test_levels() -> None:
    priors = seen(("kite", 0.5, 0.1), ("dog", 0.5, 0.9))
    assert kinds("A kite at the top, a dog at the bottom, the kite above the dog.", priors) == []
    assert kinds("At the top left is a kite, at the bottom right a dog.", priors) == []
    assert kinds("A kite at the bottom of the image.", priors) == [FindingKind.WRONG_SIDE]
    assert kinds("A dog above a kite.", priors) == [FindingKind.WRONG_RELATION]


def test_wrong_relations() -> None:
    assert kinds("A car stands to the left of a person.", STREET) == [FindingKind.WRONG_RELATION]
    assert kinds("A car stands to the right of a dog.", seen(("car", 0.1, 0.5), ("dog", 0.9, 0.5))) == [
        FindingKind.WRONG_RELATION
    ]


def test_a_thing_that_was_not_boxed_may_be_anywhere() -> None:
    assert kinds("A car on the right, and another car on the left.", STREET) == []
    assert kinds("There are cars. Three cars on the left.", seen(("car", 0.8, 0.5))) == [FindingKind.WRONG_COUNT]


def test_near_and_far() -> None:
    assert kinds("A person stands in the foreground, a car in the background.", STREET) == []
    assert kinds("A car is in front of a person.", STREET) == [FindingKind.WRONG_DEPTH]
    assert kinds("A person is behind a car.", STREET) == [FindingKind.WRONG_DEPTH]
    assert kinds("A car stands in the foreground, a person in the background.", STREET) == [FindingKind.WRONG_DEPTH]
    flat = seen(("person", 0.2, 0.5), ("car", 0.8, 0.6))
    assert kinds("A car is in front of a person.", flat) == []
    assert kinds("Everything, a car too, is in the background.", STREET) == []


_PLACES = st.lists(st.sampled_from([(x, y) for x in (0.1, 0.5, 0.9) for y in (0.1, 0.5, 0.9)]), unique=True, max_size=5)
"""At most five, whose relations make a text that is not too long yet."""
_SIDES = {0.1: "on the left", 0.5: "in the centre", 0.9: "on the right"}


@given(_PLACES, st.data())
def test_a_caption_of_the_priors_themselves_has_no_findings(
    places: list[tuple[float, float]], data: st.DataObject
) -> None:
    names = st.sampled_from(["dog", "car", "bench", "kite", "person", "banana", "clock"])
    rows = [(data.draw(names), x, y) for x, y in places]
    near = data.draw(st.lists(st.floats(0.01, 1), min_size=len(rows), max_size=len(rows)))
    counts = Counter(label for label, _, _ in rows)
    parts = [f"There are {n} {'people' if one == 'person' else one + 's'}." for one, n in counts.items() if n > 1]
    parts += [f"A {label} is {_SIDES[x]}." for label, x, _ in rows]
    single = [i for i, (label, _, _) in enumerate(rows) if counts[label] == 1]
    for i in single:
        for j in single:
            (one, x, y), (other, x2, y2) = rows[i], rows[j]
            parts += [f"The {one} is to the left of the {other}."] if x < x2 else []
            parts += [f"The {one} is above the {other}."] if y < y2 else []
            parts += [f"The {one} is closer to the camera than the {other}."] if near[i] > near[j] else []
    assert found(" ".join([*parts, "Nothing else is there."]), seen(*rows, near=tuple(near))) == []


@given(st.text(max_size=200), st.lists(st.tuples(st.text(max_size=12), st.floats(0, 1), st.floats(0, 1)), max_size=5))
def test_any_text_and_any_labels(text: str, rows: list[tuple[str, float, float]]) -> None:
    priors = seen(*rows, description=text)
    assert found(text, priors) == found(text, priors)

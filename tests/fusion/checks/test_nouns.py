"""The table of things is whole and says what it means."""

import pytest

from fusion.checks.nouns import Nouns, nouns


@pytest.mark.parametrize(
    ("label", "category"),
    [
        ("dog", "dog"),
        ("Dogs", "dog"),
        ("dining table", "table"),
        ("office chair", "chair"),
        ("cell phone", "phone"),
        ("loaves", "bread"),
        ("wolves", "wolf"),
        ("hot dog", "hot dog"),
        ("traffic_light", "traffic light"),
        ("zorblat", "zorblat"),
        ("", ""),
    ],
)
def test_labels_have_categories(label: str, category: str) -> None:
    assert nouns().category(label) == category


def test_kinds_of_kinds() -> None:
    table = nouns()
    assert table.is_kind("boy", "person") and table.is_kind("panda", "animal") and not table.is_kind("person", "boy")
    assert table.may_be("person", "boy") and table.may_be("truck", "van") and not table.may_be("dog", "cat")


def test_a_name_of_no_category_is_refused() -> None:
    rest = "alike: [], unsure: [], ignored: [], colours: {}, attributes: {}"
    text = f"{{categories: {{dog: []}}, kinds: {{animal: [dog]}}, {rest}}}"
    with pytest.raises(ValueError, match="animal"):
        Nouns(text)


def test_the_table_is_of_a_few_hundred_things() -> None:
    assert len(nouns().categories) > 250

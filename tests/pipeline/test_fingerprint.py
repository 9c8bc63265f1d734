from hypothesis import given
from hypothesis import strategies as st

from pipeline.fingerprint import canonical, changed_fields, describe_change, digest
from schemas.section import Resources, StageSection

json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


@given(st.dictionaries(st.text(), json_values, max_size=5))
def test_the_order_of_keys_does_not_matter(value: dict[str, object]) -> None:
    assert canonical(value) == canonical(dict(reversed(value.items())))
    assert digest(value) == digest(dict(reversed(value.items())))


@given(
    st.dictionaries(st.text(min_size=1), json_values, max_size=4),
    st.dictionaries(st.text(min_size=1), json_values, max_size=4),
)
def test_a_difference_is_named_exactly_when_there_is_one(old: dict[str, object], new: dict[str, object]) -> None:
    named = changed_fields("s", {"config": old}, {"config": new})
    assert bool(named) == (digest(old) != digest(new))


def test_fields_are_named_as_a_user_sets_them() -> None:
    old = {
        "version": 1,
        "config": {"max_tokens": 64, "engine": {"model": "a"}},
        "models": {"x": "1"},
        "inputs": {"select": "p"},
    }
    new = {
        "version": 2,
        "config": {"max_tokens": 96, "engine": {"model": "b"}},
        "models": {"x": "2"},
        "inputs": {"select": "q"},
    }
    assert changed_fields("caption", old, new) == [
        "caption.version",
        "caption.engine.model",
        "caption.max_tokens",
        "caption.models.x",
        "inputs.select",
    ]
    assert "caption.max_tokens: 64 -> 96" in describe_change("caption", old, new)
    assert 'caption.models.x: "1" -> "2"' in describe_change("caption", old, new)


def test_resources_do_not_decide_content() -> None:
    class Section(StageSection):
        threshold: float = 0.2

    plain, moved = Section(), Section(resources=Resources(cpus=7, gpus=1))
    assert plain.decides() == moved.decides() == {"threshold": 0.2}

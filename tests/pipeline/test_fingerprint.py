from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from pipeline.fingerprint import canonical, changes, digest
from schemas.identity import model_identity
from schemas.section import ModelRef, Resources, StageSection

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
    named = changes("s", {"config": old}, {"config": new})
    assert bool(named) == (digest(old) != digest(new))


def test_fields_are_named_as_a_user_sets_them() -> None:
    old = {"version": 1, "config": {"max_tokens": 64, "engine": {"dtype": "a"}}, "models": {"x": 1}, "inputs": {"p": 1}}
    new = {"version": 2, "config": {"max_tokens": 96, "engine": {"dtype": "b"}}, "models": {"x": 2}, "inputs": {"p": 2}}
    found = changes("caption", old, new)
    assert [change.name for change in found] == [
        "caption.version",
        "caption.engine.dtype",
        "caption.max_tokens",
        "caption.x",
        "inputs.p",
    ]
    assert str(found[2]) == "caption.max_tokens: 64 -> 96"


def test_digests_are_told_apart_in_one_short_line() -> None:
    old, new = ({"models": {"precomputed": f"files:{digit * 64}, folder:{'c' * 64}"}} for digit in "ab")
    (change,) = changes("embed", old, new)
    assert str(change) == (
        'embed.precomputed: "files:aaaaaaaaaaaa, folder:cccccccccccc" -> "files:bbbbbbbbbbbb, folder:cccccccccccc"'
    )


def test_of_lists_it_is_told_what_came_and_what_went() -> None:
    kinds = [f"kind_{i}" for i in range(20)]

    def said(old: list[str], new: list[str]) -> str:
        (change,) = changes("caption", {"config": {"repair_on": old}}, {"config": {"repair_on": new}})
        return str(change)

    assert said(kinds, [*kinds, "loop"]) == 'caption.repair_on: added ["loop"]'
    assert said(["a", "b"], ["b", "c"]) == 'caption.repair_on: added ["c"], removed ["a"]'
    assert said(["a", "b"], ["b", "a"]) == 'caption.repair_on: ["a","b"] -> ["b","a"]'
    assert said(["a", "a"], ["a"]) == 'caption.repair_on: ["a","a"] -> ["a"]'


def test_a_place_does_not_decide_but_what_lies_there(tmp_path: Path) -> None:
    for name in ("here", "there"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "weights").write_bytes(b"same")
    here, there = (ModelRef(model=str(tmp_path / name)) for name in ("here", "there"))
    assert here.decides() == there.decides() == {}
    assert model_identity(here) == model_identity(there)
    (tmp_path / "there" / "weights").write_bytes(b"other")
    assert model_identity(here) != model_identity(there)


def test_resources_do_not_decide_content() -> None:
    class Section(StageSection):
        threshold: float = 0.2

    plain, moved = Section(), Section(resources=Resources(cpus=7, gpus=1))
    assert plain.decides() == moved.decides() == {"threshold": 0.2}

"""What goes where a prompt does not fit: whatever the priors, the text stays within the budget, instructions whole."""

import pickle
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fusion.budget import Budget, BudgetSection, budget_of, counts_as_the_worker, least_that_fits, tokenizer_identity
from fusion.engine import EngineSection
from fusion.notes import Cut
from fusion.priors import Box, Nearness, Priors, TextLine
from fusion.prompt import Messages, Prompt, PromptSection
from fusion.tokens import Estimate, ModelTokenizer, TokenCounter
from schemas.errors import RequestError
from tests.fakes.byte_tokenizer import byte_tokenizer

EVERYTHING = {"tags": True, "depth": True, "florence": True}
SECTIONS = {
    template: PromptSection.model_validate(EVERYTHING | {"template": template})
    for template in ("caption_engine.v1", "meta_caption.v1", "tuned_engine.v1")
}
EDGE = st.floats(0, 1, width=32)
BOXES = st.lists(
    st.builds(
        lambda label, score, x, y, anchor: Box(
            expert="closed_set", anchor=anchor, label=label, score=score, x1=x / 2, y1=y / 2, x2=x / 2 + 0.4, y2=1.0
        ),
        st.text(min_size=1),
        EDGE,
        EDGE,
        EDGE,
        st.integers(0, 9),
    ),
    max_size=30,
)
LINES = st.lists(st.builds(lambda text, score: TextLine(text=text, score=score, polygon=[0.0] * 8), st.text(), EDGE))
DEPTHS = st.lists(
    st.builds(
        lambda anchor: Nearness(expert="closed_set", anchor=anchor, nearness=0.5, band="middle"), st.integers(0, 9)
    )
)
PRIORS = st.builds(
    Priors,
    tags=st.lists(st.builds(lambda tag: {"tag": tag, "score": 0.5}, st.text())),
    closed_set=BOXES,
    lines=LINES,
    depths=DEPTHS,
    description=st.text(max_size=300),
)


def spent(messages: Messages, budget: Budget) -> int:
    count = budget.counter.count
    return count(messages.system) + count(messages.user) + budget.box_tokens * len(messages.boxes)


@settings(max_examples=60)
@given(
    st.sampled_from(list(SECTIONS)), PRIORS, st.text(max_size=600), st.integers(0, 600), st.integers(0, 3), st.data()
)
def test_whatever_the_priors_the_prompt_is_within_its_budget(
    template: str, priors: Priors, alt: str, room: int, box_tokens: int, data: st.DataObject
) -> None:
    section = SECTIONS[template]
    whole = Prompt(section).render(alt, priors)
    bare = Prompt(section).render(None, Priors())
    counter = Estimate(data.draw(st.floats(1, 5)))
    keep = data.draw(st.integers(0, 12)), data.draw(st.integers(0, 12))
    fixed = counter.count(bare.system) + counter.count(bare.user)
    budget = Budget(fixed + room, counter, box_tokens, *keep)
    messages = Prompt(section, budget).render(alt, priors)
    assert spent(messages, budget) <= budget.tokens
    assert messages.system == whole.system == bare.system
    assert messages.user.splitlines()[-1] == bare.user
    assert not messages.cut.too_long
    if spent(replace(whole, cut=Cut()), budget) <= budget.tokens:
        assert (messages.user, messages.boxes) == (whole.user, whole.boxes)
        assert not messages.cut
    else:
        assert messages.cut
    assert [box for box in whole.boxes if box in messages.boxes] == list(messages.boxes)
    assert len(whole.boxes) - len(messages.boxes) == messages.cut.boxes


def crowd(words: str) -> Priors:
    """Thousands of everything; scores fall, so that the last ones are the worst."""
    n = 2000
    return Priors(
        tags=[{"tag": f"{words} {i}", "score": 1 - i / n} for i in range(n)],
        closed_set=[
            Box(expert="closed_set", anchor=i, label=f"{words} {i}", score=1 - i / n, x1=0, y1=0, x2=1, y2=1 - i / n)
            for i in range(n)
        ],
        lines=[TextLine(text=f"{i} {words * 50}", score=1 - i / n, polygon=[0.0] * 8) for i in range(n)],
        depths=[Nearness(expert="closed_set", anchor=i, nearness=0.5, band="near") for i in range(n)],
        description=words * 5000,
    )


@pytest.fixture(scope="module")
def byte_counter(tmp_path_factory: pytest.TempPathFactory) -> ModelTokenizer:
    return ModelTokenizer(byte_tokenizer(tmp_path_factory.mktemp("bytes")) / "tokenizer.json")


@pytest.mark.parametrize(("words", "tokens"), [("word", 7000), ("北京", 20_000), ("7 ! ", 7000)])
def test_thousands_of_boxes_and_lines_and_a_huge_alt_text_fit(
    words: str, tokens: int, byte_counter: ModelTokenizer
) -> None:
    wide = {"max_boxes": 500, "max_ocr_lines": 1000, "max_ocr_chars": 2000, "max_alt_chars": 8000, "max_tags": 1000}
    section = PromptSection.model_validate(EVERYTHING | wide)
    counters: list[TokenCounter] = [Estimate(3.0), byte_counter]
    for counter in counters:
        budget = Budget(tokens, counter, 1)
        messages = Prompt(section, budget).render(words * 100_000, crowd(words))
        assert spent(messages, budget) <= tokens
        assert spent(messages, budget) >= tokens - 100  # no more is taken than must be
        assert messages.system == Prompt(section).render(None, Priors()).system
        assert messages.cut.lines + messages.cut.boxes > 0


def few() -> Priors:
    boxes = [
        Box(expert="closed_set", anchor=i, label=f"box{i}", score=s, x1=0, y1=0, x2=1, y2=1 - i / 10)
        for i, s in enumerate((0.5, 0.9, 0.7, 0.6))
    ]
    lines = [TextLine(text=f"line{i}", score=s, polygon=[0.0] * 8) for i, s in enumerate((0.9, 0.2, 0.8, 0.2))]
    return Priors(
        tags=[{"tag": f"tag{i}", "score": 0.9} for i in range(2)],
        closed_set=boxes,
        lines=lines,
        depths=[Nearness(expert="closed_set", anchor=i, nearness=0.5, band="near") for i in range(4)],
        description="described here",
    )


def test_notes_go_in_the_order_that_is_promised() -> None:
    section = SECTIONS["caption_engine.v1"]
    counter = Estimate(1.0)
    bare = Prompt(section).render(None, Priors())
    fixed = counter.count(bare.system) + counter.count(bare.user)
    whole = counter.count(Prompt(section).render("alt text", few()).user)
    order = ["line3", "line1", "box0", "box3", "tag1", "tag0", "described", "alt", "line2", "line0", "box2", "box1"]
    missing: list[str] = []
    for room in (*range(whole, 0, -9), 0):
        messages = Prompt(section, Budget(fixed + room, counter, 0, 2, 2)).render("alt text", few())
        missing = [name for name in order if name not in messages.user]
        assert missing == order[: len(missing)], room
        shown = [box["label"] for box in messages.boxes]
        near = next((li for li in messages.user.splitlines() if li.startswith("From near")), "")
        assert [label for label in shown if label in near] == shown
        assert not any(f"box{i}" in messages.user for i in range(4) if f"box{i}" not in shown)
    assert missing == order


def test_what_is_cut_is_counted() -> None:
    section = SECTIONS["caption_engine.v1"]
    counter = Estimate(1.0)
    bare = Prompt(section).render(None, Priors())
    fixed = counter.count(bare.system) + counter.count(bare.user)
    messages = Prompt(section, Budget(fixed, counter)).render("alt text", few())
    assert messages.user == bare.user
    assert messages.cut == Cut(lines=4, boxes=4, tags=2, description_chars=14, alt_chars=8)


def test_shortened_texts_end_with_a_whole_word() -> None:
    section = PromptSection(max_alt_chars=200)
    counter = Estimate(1.0)
    bare = Prompt(section).render(None, Priors())
    fixed = counter.count(bare.system) + counter.count(bare.user)
    alt = "a lighthouse keeper polishing a brass lamp"
    shown = set()
    for room in range(120):
        user = Prompt(section, Budget(fixed + room, counter)).render(alt, Priors()).user
        shown.add(next((li for li in user.splitlines() if li.startswith("a")), ""))
    words = alt.split()
    assert shown == {" ".join(words[:n]) for n in range(len(words) + 1)}


def test_room_is_made_for_the_turns_that_follow() -> None:
    section = PromptSection()
    counter = Estimate(1.0)
    whole = Prompt(section).render("alt text", few())
    budget = Budget(counter.count(whole.system) + counter.count(whole.user), counter)
    prompt = Prompt(section, budget)
    assert not prompt.render("alt text", few()).cut
    answer, again = "An answer of some length.", prompt.repair(["it is too short"])
    later = prompt.render("alt text", few(), then=(answer, again))
    assert later.cut
    assert spent(later, budget) + counter.count(answer) + counter.count(again) <= budget.tokens


def test_a_template_that_prints_what_cannot_be_cut_says_that_it_is_too_long(tmp_path: Path) -> None:
    own = tmp_path / "own.jinja"
    own.write_text(
        "{% block system %}S{% endblock %}{% block user %}{{ experts.chatty.words }}{% for b in boxes %}{{ b }}"
        "{% endfor %}{% endblock %}{% block repair %}R{% endblock %}"
    )
    prompt = Prompt(PromptSection(template=str(own)), Budget(20, Estimate(1.0)))
    prompt.check()
    rows = {"chatty": {"words": "x" * 100, "error": None}}
    messages = prompt.render(None, replace(Priors.of(rows), closed_set=few().closed_set))
    assert messages.cut == Cut(boxes=4, too_long=True)


def test_instructions_that_do_not_fit_are_refused_before_anything_starts() -> None:
    counter = Estimate(3.0)
    bare = Prompt(PromptSection()).render(None, Priors())
    fixed = counter.count(bare.system) + counter.count(bare.user)
    Prompt(PromptSection(), Budget(fixed, counter)).check()
    with pytest.raises(RequestError, match=r"caption_engine\.v1 takes .* caption\.engine\.max_model_len") as error:
        Prompt(PromptSection(), Budget(fixed - 1, counter)).check()
    assert f"{fixed:,}" in str(error.value)
    with pytest.raises(RequestError, match="leaves 0 for the text"):
        Prompt(PromptSection(), Budget(-500, counter)).check()


def test_a_prompt_with_a_budget_goes_to_another_process(byte_counter: ModelTokenizer) -> None:
    prompt = Prompt(PromptSection(), Budget(2200, byte_counter, 1))
    again = pickle.loads(pickle.dumps(prompt))
    assert again.render("alt text", few()) == prompt.render("alt text", few())


@given(st.integers(0, 300), st.integers(-5, 400))
def test_the_least_that_fits_is_found(most: int, threshold: int) -> None:
    found = least_that_fits(most, lambda n: n >= threshold)
    assert found == (None if threshold > most else max(0, threshold))


@given(st.lists(st.booleans(), min_size=1))
def test_what_is_found_was_seen_to_fit_even_where_counting_wavers(fits: list[bool]) -> None:
    found = least_that_fits(len(fits) - 1, lambda n: fits[n])
    assert found is None or fits[found]
    assert found is not None or not fits[-1]


def engine(**settings: object) -> EngineSection:
    return EngineSection.model_validate({"model": "org/name", "max_model_len": 4096} | settings)


def test_the_room_is_what_image_answer_and_reserve_leave(tmp_path: Path) -> None:
    section = BudgetSection(image_tokens=1000, reserve=96, keep_lines=3, keep_boxes=4)
    budget = budget_of(section, engine(base_url="http://engine.test/v1"), 500, 1)
    assert (budget.tokens, budget.box_tokens) == (4096 - 1000 - 96 - 500, 1)
    assert (budget.keep_lines, budget.keep_boxes) == (3, 4)
    assert isinstance(budget.counter, Estimate)


def test_who_counts_follows_from_engine_and_settings(tmp_path: Path) -> None:
    empty, model, other = tmp_path / "empty", byte_tokenizer(tmp_path / "model"), byte_tokenizer(tmp_path / "other")
    empty.mkdir()
    url = {"base_url": "http://engine.test/v1"}
    own, named = BudgetSection(), BudgetSection.model_validate({"tokenizer": {"model": str(other)}})
    for given_engine in (engine(model=str(model)), engine(model=str(model), **url)):
        assert budget_of(own, given_engine, 1, 0).counter.name == "tokenizer"
    for estimated in (engine(**url), engine(model=str(empty)), engine(model=str(empty), **url)):
        assert budget_of(own, estimated, 1, 0).counter.name == "estimate"
    assert budget_of(named, engine(**url), 1, 0).counter.name == "tokenizer"
    with pytest.raises(RequestError, match=r"no tokenizer\.json in"):
        budget_of(BudgetSection.model_validate({"tokenizer": {"model": str(empty)}}), engine(), 1, 0)
    assert counts_as_the_worker(own, engine(**url))
    assert counts_as_the_worker(named, engine())
    assert not counts_as_the_worker(own, engine(model="densefusion-tests/no-such-model"))


def test_a_tokenizer_that_decides_is_in_the_identity(tmp_path: Path) -> None:
    model = byte_tokenizer(tmp_path / "model")
    url = {"base_url": "http://engine.test/v1"}
    own, named = BudgetSection(), BudgetSection.model_validate({"tokenizer": {"model": "org/other", "revision": "abc"}})
    assert tokenizer_identity(own, engine(model=str(model))) is None  # the engine's identity holds the whole folder
    assert tokenizer_identity(own, engine(**url)) is None
    assert tokenizer_identity(named, engine(**url)) == "org/other@abc"
    before = tokenizer_identity(own, engine(model=str(model), **url))
    assert before is not None
    assert before.startswith("file:")
    (model / "tokenizer.json").write_text("{}")
    assert tokenizer_identity(own, engine(model=str(model), **url)) != before
    missing = BudgetSection.model_validate({"tokenizer": {"model": str(tmp_path / "none")}})
    with pytest.raises(RequestError, match="does not exist"):
        tokenizer_identity(missing, engine(**url))

"""The client against an engine that misbehaves: every row gets an answer or a failure of its own, in order, in time."""

import json
import time
import urllib.request
from collections.abc import Callable, Iterator

import pytest

from fusion.engine import Answer, BadInputError, ChatClient, Failure, Question, SamplingSection
from fusion.engine.endpoints import Endpoint
from fusion.engine.pace import Pace
from tests.fakes import chat_engine


@pytest.fixture(scope="module")
def engine() -> Iterator[str]:
    with chat_engine.running() as url:
        yield url


def client(url: str, **options: object) -> ChatClient:
    settings = {"concurrency": 8, "timeout_s": 5.0, "retries": 2} | options
    return ChatClient([Endpoint(url, "key")], "model", SamplingSection(max_tokens=8), **settings)  # type: ignore[arg-type]


def ask(text: str, boxes: list[list[float]] | None = None) -> Callable[[], Question]:
    return lambda: Question([{"role": "user", "content": text}], boxes)


def test_answers_keep_the_order_of_the_questions(engine: str) -> None:
    texts = [f"row {i} do:sleep={0.3 if i % 3 == 0 else 0}" for i in range(12)]
    answers = client(engine).ask([ask(t) for t in texts])
    assert [a.text for a in answers if isinstance(a, Answer)] == texts
    assert answers[0] == Answer(texts[0], "stop", prompt_tokens=7, cached_tokens=5, completion_tokens=3)


@pytest.mark.parametrize(
    ("word", "own", "detail"),
    [
        ("400", True, "HTTP 400: you asked for 400"),
        ("413", True, "HTTP 413"),
        ("401", False, "HTTP 401"),
        ("500", False, "HTTP 500"),
        ("429", False, "HTTP 429"),
        ("garbage", False, "no chat completion"),
        ("wrong", False, "no chat completion"),
        ("cut", False, "connection failed"),
    ],
)
def test_a_bad_row_fails_alone(engine: str, word: str, own: bool, detail: str) -> None:
    asked = [ask("one"), ask(f"{word} do:{word}"), ask("three")]
    before, bad, after = client(engine, retries=1, pace=Pace(patience_s=1)).ask(asked)
    assert isinstance(before, Answer)
    assert isinstance(after, Answer)
    assert isinstance(bad, Failure)
    assert bad.own is own
    assert detail in bad.detail


def test_half_a_character_is_marked_as_one(engine: str) -> None:
    half, whole = client(engine).ask([ask("do:half"), ask("a whole \U0001f436")])
    assert isinstance(half, Answer) and half.text == "half a \ufffd"
    assert isinstance(whole, Answer) and whole.text == "a whole \U0001f436"


@pytest.mark.parametrize("word", ["429x2", "500x2", "503x1", "408x1"])
def test_passing_trouble_is_waited_out(engine: str, word: str) -> None:
    [answer] = client(engine, retries=2).ask([ask(f"{time.time()} do:{word}")])
    assert isinstance(answer, Answer)


def test_retries_are_finite(engine: str) -> None:
    text = f"{time.time()} do:500x3"
    [failure] = client(engine, retries=2).ask([ask(text)])
    assert isinstance(failure, Failure)
    [answer] = client(engine, retries=0).ask([ask(text)])  # the fourth time, so that exactly three were spent
    assert isinstance(answer, Answer)


@pytest.mark.parametrize("word", ["hang", "drip"])
def test_no_answer_in_time_is_a_failure_and_is_not_repeated(engine: str, word: str) -> None:
    started = time.monotonic()
    slow, quick = client(engine, timeout_s=1.0, retries=5).ask([ask(f"do:{word}"), ask("quick")])
    assert isinstance(slow, Failure)
    assert "within 1 s" in slow.detail
    assert isinstance(quick, Answer)
    assert time.monotonic() - started < 4


def test_boxes_go_with_the_request_of_their_picture_and_with_no_other(engine: str) -> None:
    boxes = [[0.1, 0.2, 0.5, 0.6]]
    answers = client(engine).ask([ask("a do:options", boxes), ask("b do:options", []), ask("c do:options")])
    said = [json.loads(a.text) for a in answers if isinstance(a, Answer)]
    assert said == [{"mm_processor_kwargs": {"boxes": [boxes]}}, {"mm_processor_kwargs": {"boxes": [[]]}}, {}]


def test_only_what_says_something_is_sent(engine: str) -> None:
    def body(**sampling: object) -> dict[str, object]:
        section = SamplingSection.model_validate({"max_tokens": 8, "seed": 3} | sampling)
        one = ChatClient([Endpoint(engine, "key")], "model", section, concurrency=1, timeout_s=30, retries=0)
        [answer] = one.ask([ask("do:body")])
        assert isinstance(answer, Answer)
        return json.loads(answer.text)

    greedy = {"model": "model", "max_tokens": 8, "temperature": 0.0}
    assert body() == greedy
    assert body(repetition_penalty=1.1) == greedy | {"repetition_penalty": 1.1}
    assert body(temperature=0.5) == greedy | {"temperature": 0.5, "top_p": 1.0, "seed": 3}


def test_an_engine_that_wants_the_limit_by_its_newer_name_gets_it_so() -> None:
    with chat_engine.running() as url:
        answers = client(url, concurrency=1, retries=0).ask([ask(f"{i} do:newer") for i in range(3)])
        assert [a.text for a in answers if isinstance(a, Answer)] == [f"{i} do:newer" for i in range(3)]
        assert len(chat_engine.asked(url)) == 4  # it is learnt once


def test_no_more_requests_at_once_than_asked_for() -> None:
    with chat_engine.running() as url:
        client(url, concurrency=3).ask([ask(f"{i} do:sleep=0.1") for i in range(12)])
        with urllib.request.urlopen(url.removesuffix("/v1") + "/most_under_way") as answer:
            assert int(answer.read()) == 3


@pytest.mark.parametrize(("concurrency", "ahead"), [(1, 1), (4, 1), (5, 2)])
def test_messages_are_made_a_little_before_their_turn(concurrency: int, ahead: int) -> None:
    made: list[float] = []

    def question() -> Question:
        made.append(time.monotonic())
        return ask("do:sleep=0.5")()

    with chat_engine.running() as url:
        client(url, concurrency=concurrency).ask([question] * (2 * concurrency + ahead))
        first, last = chat_engine.asked(url)[0]["at"], max(one["at"] for one in chat_engine.asked(url))
    begun = concurrency + ahead
    assert all(at < first + 0.5 for at in made[:begun])  # before any answer was there
    assert all(at >= first + 0.5 for at in made[begun:])
    assert last >= first + 1.0


def test_an_input_that_cannot_be_made_fails_its_row_and_a_bug_fails_loudly(engine: str) -> None:
    def undecodable() -> Question:
        raise BadInputError("no picture")

    def bug() -> Question:
        raise KeyError("oops")

    first, second = client(engine).ask([undecodable, ask("fine")])
    assert first == Failure("no picture", asked=False, own=True)
    assert isinstance(second, Answer)
    with pytest.raises(KeyError):
        client(engine).ask([bug, ask("fine")])


def test_nobody_there_is_a_failure_and_a_dead_engine_ends_the_retries() -> None:
    [failure] = client("http://127.0.0.1:9/v1", retries=0).ask([ask("x")])
    assert isinstance(failure, Failure)
    assert "connection failed" in failure.detail
    lives = iter([True] * 3)  # as each is begun, and as the first has its turn
    started = time.monotonic()
    asked, unasked = client("http://127.0.0.1:9/v1", concurrency=1, retries=20, alive=lambda: next(lives, False)).ask(
        [ask("x"), ask("y")]
    )
    assert isinstance(asked, Failure)
    assert asked.asked
    assert unasked == Failure("the engine's process is gone", asked=False)
    assert time.monotonic() - started < 5

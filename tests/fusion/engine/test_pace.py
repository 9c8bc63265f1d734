"""How fast an engine is asked, and what becomes of a question while it says: not so fast."""

import asyncio
import time
from collections.abc import Iterator
from email.utils import format_datetime, formatdate

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fusion.engine import Answer, ChatClient, Failure, Question, SamplingSection
from fusion.engine.endpoints import Endpoint
from fusion.engine.pace import Pace, retry_after
from tests.fakes import chat_engine

ANSWER_TOKENS = 7 + 3  # prompt and answer, as the engine counts them


@pytest.fixture
def engine() -> Iterator[str]:
    with chat_engine.running() as url:
        yield url


def ask(url: str, texts: list[str], pace: Pace, retries: int = 0, concurrency: int = 8) -> list[Answer | Failure]:
    endpoints, sampling = [Endpoint(url, "key")], SamplingSection(max_tokens=8)
    client = ChatClient(endpoints, "model", sampling, concurrency=concurrency, timeout_s=30, retries=retries, pace=pace)

    def question(text: str) -> Question:
        return Question([{"role": "user", "content": text}])

    return client.ask([lambda text=text: question(text) for text in texts])  # type: ignore[misc]


def arrivals(url: str, word: str = "") -> list[float]:
    """When requests about `word` came, in seconds of one clock."""
    return [one["at"] for one in chat_engine.asked(url) if word in one["text"]]


def took(turns: int, pace: Pace) -> list[float]:
    """Seconds until each of so many questions at once had its turn."""

    async def one() -> float:
        await pace.turn()
        return time.monotonic() - started

    async def all_of_them() -> list[float]:
        return await asyncio.gather(*(one() for _ in range(turns)))

    started = time.monotonic()
    return sorted(asyncio.run(all_of_them()))


def test_questions_are_spaced_by_requests_a_minute() -> None:
    for number, seconds in enumerate(took(6, Pace(requests_per_minute=1200))):  # one in 0.05 s
        assert seconds >= number * 0.05


def test_questions_are_spaced_by_the_tokens_that_earlier_ones_took() -> None:
    pace = Pace(tokens_per_minute=60_000)
    pace.took(100)  # so many in 0.1 s
    for number, seconds in enumerate(took(4, pace)):
        assert seconds >= number * 0.1


def test_the_tighter_of_two_limits_holds() -> None:
    pace = Pace(requests_per_minute=600, tokens_per_minute=60_000)
    pace.took(20)  # 0.02 s by tokens, 0.1 s by requests
    assert took(4, pace)[3] >= 3 * 0.1


def test_the_mean_follows_what_answers_take() -> None:
    pace = Pace(tokens_per_minute=60_000)
    pace.took(10)
    for _ in range(200):
        pace.took(200)  # 0.2 s each from here on, near enough
    assert took(3, pace)[2] >= 2 * 0.19


def test_without_limits_nobody_waits_for_a_turn() -> None:
    async def turns() -> int:
        pace, loops = Pace(), 0
        pace.took(1_000_000)
        for _ in range(1000):
            await pace.turn()
            loops += 1
        return loops

    assert asyncio.run(turns()) == 1000
    assert Pace().patience_s > 0


def test_the_engine_sees_the_spacing(engine: str) -> None:
    started = time.monotonic()
    answers = ask(engine, [f"row {i}" for i in range(6)], Pace(requests_per_minute=600))
    assert all(isinstance(answer, Answer) for answer in answers)
    times = arrivals(engine)
    assert len(times) == 6
    assert all(at >= started + number * 0.1 for number, at in enumerate(times))


def test_the_engine_sees_the_spacing_by_tokens(engine: str) -> None:
    pace = Pace(tokens_per_minute=60 * ANSWER_TOKENS * 10)  # ten answers a second
    ask(engine, [f"row {i}" for i in range(5)], pace, concurrency=1)
    times = arrivals(engine)
    assert times[4] - times[0] >= 0.3  # of the first two nothing was known


def test_a_hold_stops_everyone_also_those_who_wait_already() -> None:
    pace = Pace(requests_per_minute=3000)

    async def told() -> list[float]:
        async def one() -> float:
            await pace.turn()
            return time.monotonic()

        waiting = [asyncio.create_task(one()) for _ in range(6)]
        first = await waiting[0]
        pace.hold(0.3)
        held = time.monotonic()
        return [first - held, *[await one - held for one in waiting[1:]]]

    before, *after = asyncio.run(told())
    assert before <= 0
    # one more may have had its turn before the hold came, on a machine that is slow to wake us
    late = [seconds for seconds in after if seconds > 0]
    assert len(late) >= 4
    assert all(seconds >= 0.3 for seconds in late)


def test_a_hold_is_never_shortened_by_another() -> None:
    pace = Pace()
    pace.hold(0.3)
    pace.hold(0.01)
    assert took(1, pace)[0] >= 0.3


@pytest.mark.parametrize("status", [429, 503, 529])
def test_one_refusal_stops_all_for_as_long_as_the_engine_says(engine: str, status: int) -> None:
    texts = [f"first do:{status}x1;after=1.5", "under way do:sleep=0.8", *(f"row {i}" for i in range(4))]
    assert all(isinstance(one, Answer) for one in ask(engine, texts, Pace(), concurrency=2))
    refused, again = arrivals(engine, "first")
    assert again - refused >= 1.5
    assert min(arrivals(engine, "row")) - refused >= 1.5


@pytest.mark.parametrize(("say", "seconds"), [("after=1", 1.0), ("ms=900", 0.9), ("date=2", 1.0), ("after=soon", 0.37)])
def test_the_engine_is_left_alone_as_it_says(engine: str, say: str, seconds: float) -> None:
    [answer] = ask(engine, [f"do:429x1;{say}"], Pace())
    assert isinstance(answer, Answer)
    refused, again = arrivals(engine)
    assert again - refused >= seconds  # a date has whole seconds; what means nothing leaves our own wait


def test_refusals_for_the_pace_are_no_retries_and_other_faults_are(engine: str) -> None:
    [waited_out] = ask(engine, ["a do:429x2;after=0.01"], Pace(), retries=0)
    assert isinstance(waited_out, Answer)
    assert len(arrivals(engine, "a ")) == 3
    [overloaded] = ask(engine, ["b do:503x1;after=0.01"], Pace(), retries=0)
    assert isinstance(overloaded, Answer)
    [down] = ask(engine, ["c do:503x1"], Pace(), retries=0)  # a 503 that does not say when is a fault as any
    assert isinstance(down, Failure)
    assert "HTTP 503" in down.detail
    [mended] = ask(engine, ["d do:503x1"], Pace(), retries=1)
    assert isinstance(mended, Answer)


def test_patience_ends(engine: str) -> None:
    impatient, asked_once = ask(engine, ["a do:429;after=0.4", "b do:429;after=60"], Pace(patience_s=1.0), retries=20)
    for failure in (impatient, asked_once):
        assert isinstance(failure, Failure)
        assert "HTTP 429" in failure.detail
        assert not failure.own
    # one that would have to wait longer than there is patience for does not begin to
    assert len(arrivals(engine, "b ")) == 1
    assert 2 <= len(arrivals(engine, "a ")) <= 3


def test_what_servers_say_is_understood() -> None:
    assert retry_after({"retry-after": "7"}) == 7
    assert retry_after({"retry-after": "0.25"}) == 0.25
    assert retry_after({"retry-after": "-3"}) == 0
    assert retry_after({"retry-after-ms": "250", "retry-after": "7"}) == 0.25
    assert retry_after({"retry-after-ms": "soon", "retry-after": "7"}) == 7
    assert retry_after({}) is None
    ahead = retry_after({"retry-after": formatdate(time.time() + 100, usegmt=True)})
    assert ahead is not None
    assert 60 < ahead <= 100
    assert retry_after({"retry-after": "Wed, 21 Oct 2015 07:28:00 GMT"}) == 0


@pytest.mark.parametrize(
    "garbage", ["", "soon", "nan", "inf", "1e999", "Mon, 01 Jan 99999999 00:00:00 GMT", "Mon, 41 Jan 2026 00:00:00 GMT"]
)
def test_what_says_nothing_is_none(garbage: str) -> None:
    assert retry_after({"retry-after": garbage}) is None


@given(st.datetimes())
def test_any_date_is_a_wait_of_seconds(date: object) -> None:
    seconds = retry_after({"retry-after": format_datetime(date)})  # type: ignore[arg-type]
    assert seconds is not None
    assert seconds >= 0


@given(st.dictionaries(st.sampled_from(["retry-after", "retry-after-ms"]), st.text() | st.floats().map(str)))
def test_whatever_a_header_holds_is_a_wait_or_none(headers: dict[str, str]) -> None:
    seconds = retry_after(headers)
    assert seconds is None or 0 <= seconds < float("inf")

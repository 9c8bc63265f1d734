"""Which of several engines takes a question, and that none is lost where one of them is gone."""

import os
import socket
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fusion.engine import Answer, ChatClient, Failure, Question, SamplingSection
from fusion.engine import client as client_module
from fusion.engine import endpoints as endpoints_module
from fusion.engine.endpoints import SLACK, Endpoint, Endpoints
from tests.fakes import chat_engine

URLS = [f"http://engine-{i}:8000/v1" for i in range(5)]
AFFINITIES = [f"{i:032x}" for i in range(500)]


def engines(urls: Sequence[str]) -> list[Endpoint]:
    return [Endpoint(url, "key") for url in urls]


def idle_choice(urls: Sequence[str], affinity: str) -> str:
    """Of engines that have nothing to do."""
    return Endpoints(engines(urls)).pick(affinity).base_url


def client(urls: Sequence[str], **options: object) -> ChatClient:
    settings = {"concurrency": 4, "timeout_s": 30.0, "retries": 2} | options
    return ChatClient(engines(urls), "model", SamplingSection(max_tokens=8), **settings)  # type: ignore[arg-type]


def questions(number: int, text: str = "do:sleep=0.01", affinity: bool = True) -> list[Callable[[], Question]]:
    def make(i: int) -> Question:
        return Question([{"role": "user", "content": f"row {i} {text}"}], affinity=AFFINITIES[i] if affinity else "")

    return [lambda i=i: make(i) for i in range(number)]  # type: ignore[misc]


def texts_of(answers: list[Answer | Failure]) -> list[str]:
    assert all(isinstance(one, Answer) for one in answers), answers
    return [one.text for one in answers if isinstance(one, Answer)]


@pytest.fixture
def two() -> Iterator[list[tuple[str, "subprocess.Popen[bytes]"]]]:
    with ExitStack() as stack:
        yield [stack.enter_context(chat_engine.process()) for _ in range(2)]


def test_the_least_busy_takes_it() -> None:
    all_of_them = engines(URLS)
    for one, busy in zip(all_of_them, (3, 1, 0, 2, 1), strict=True):
        one.under_way = busy
    chosen = Endpoints(all_of_them)
    assert chosen.pick("").base_url == URLS[2]
    chosen.pick("")
    chosen.pick("")
    assert sorted(one.under_way for one in all_of_them) == [1, 2, 2, 2, 3]
    assert all_of_them[0].under_way == 3


def test_questions_are_dealt_evenly() -> None:
    some = engines(URLS)
    for _ in range(20):
        Endpoints(some).pick("")
    assert [one.under_way for one in some] == [4] * 5


def test_the_same_affinity_has_the_same_engine_in_every_process() -> None:
    here = [idle_choice(URLS, affinity) for affinity in AFFINITIES[:50]]
    code = (
        "from tests.fusion.engine.test_endpoints import AFFINITIES, URLS, idle_choice\n"
        "print('\\n'.join(idle_choice(URLS[::-1], one) for one in AFFINITIES[:50]))"
    )
    env = os.environ | {"PYTHONHASHSEED": "7"}
    there = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=env)
    assert there.stdout.split() == here


def test_affinities_are_spread_over_all() -> None:
    counts = Counter(idle_choice(URLS, affinity) for affinity in AFFINITIES)
    assert len(counts) == len(URLS)
    assert all(60 <= count <= 140 for count in counts.values())  # 100 each, by hashes


@given(
    st.sets(st.sampled_from(URLS), min_size=2),
    st.data(),
    st.lists(st.text(min_size=1), min_size=1, max_size=20),
)
def test_an_engine_that_goes_moves_only_its_own(urls: set[str], data: st.DataObject, affinities: list[str]) -> None:
    gone = data.draw(st.sampled_from(sorted(urls)))
    for affinity in affinities:
        before = idle_choice(sorted(urls), affinity)
        after = idle_choice(sorted(urls - {gone}), affinity)
        assert after != gone
        assert after == before or before == gone


def test_an_affinity_waits_a_little_for_its_own_and_no_longer() -> None:
    some = engines(URLS)
    preferred = Endpoints(some).pick("a")
    preferred.under_way = SLACK
    assert Endpoints(some).pick("a") is preferred
    assert preferred.under_way == SLACK + 1
    assert Endpoints(some).pick("a") is not preferred
    for one in some:
        one.under_way += 5  # that all are busy makes none of them busier than the others
    assert Endpoints(some).pick("b") is next(one for one in some if one.base_url == idle_choice(URLS, "b"))


def test_one_that_could_not_be_reached_rests_unless_all_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(endpoints_module, "REST_S", 60.0)
    some = engines(URLS[:2])
    preferred = Endpoints(some).pick("a")
    [other] = [one for one in some if one is not preferred]
    preferred.rest()
    assert all(Endpoints(some).pick("a") is other for _ in range(SLACK + 5))
    other.rest()
    assert Endpoints(some).pick("a") is preferred
    monkeypatch.setattr(endpoints_module, "REST_S", 0.0)
    preferred.rest()
    assert preferred.rested


def test_load_is_shared_and_every_question_is_answered_once(two: list[tuple[str, "subprocess.Popen[bytes]"]]) -> None:
    urls = [url for url, _ in two]
    texts = texts_of(client(urls).ask(questions(40, affinity=False)))
    assert texts == [f"row {i} do:sleep=0.01" for i in range(40)]
    asked = [[one["text"] for one in chat_engine.asked(url)] for url in urls]
    assert sorted(asked[0] + asked[1]) == sorted(texts)
    assert min(map(len, asked)) >= 4


def test_questions_of_one_affinity_go_to_one_engine(two: list[tuple[str, "subprocess.Popen[bytes]"]]) -> None:
    urls = [url for url, _ in two]
    for _ in range(2):  # the second time by another client, as another shard has it
        texts_of(client(urls).ask(questions(20)))
    seen = [Counter(one["text"] for one in chat_engine.asked(url)) for url in urls]
    assert not seen[0] & seen[1]
    assert set((seen[0] + seen[1]).values()) == {2}
    assert all(seen)


def test_an_engine_that_is_not_there_loses_nothing(two: list[tuple[str, "subprocess.Popen[bytes]"]]) -> None:
    (url, _), (gone, process) = two
    process.kill()
    process.wait()
    texts = texts_of(client([gone, url], concurrency=8).ask(questions(30)))
    assert sorted(one["text"] for one in chat_engine.asked(url)) == sorted(texts)
    assert len(set(texts)) == 30


def test_an_engine_that_dies_in_the_middle_loses_nothing(two: list[tuple[str, "subprocess.Popen[bytes]"]]) -> None:
    (url, _), (dying, process) = two
    asked = questions(30, "do:sleep=0.05", affinity=False)

    def kill_then_ask() -> Question:
        if process.poll() is None:
            assert chat_engine.asked(dying)  # it was at work
            process.kill()
            process.wait()
        return asked[12]()

    answers = client([dying, url]).ask([*asked[:12], kill_then_ask, *asked[13:]])
    assert texts_of(answers) == [f"row {i} do:sleep=0.05" for i in range(30)]
    # nothing was asked twice of the one that lives
    assert set(Counter(one["text"] for one in chat_engine.asked(url)).values()) == {1}


def test_all_gone_is_a_failure_of_every_question() -> None:
    failures = client(["http://127.0.0.1:9/v1", "http://127.0.0.1:10/v1"], retries=1).ask(questions(3))
    assert all(isinstance(one, Failure) and "connection failed" in one.detail for one in failures)
    assert not any(one.own for one in failures if isinstance(one, Failure))


def test_a_machine_that_says_nothing_at_all_is_given_up_before_the_deadline(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client_module, "CONNECT_S", 0.3)
    with chat_engine.running() as url, silent() as dead:
        texts = texts_of(client([dead, url], timeout_s=10.0).ask(questions(6)))
        assert sorted(one["text"] for one in chat_engine.asked(url)) == sorted(texts)
        [failure] = client([dead], timeout_s=10.0, retries=0).ask(questions(1))
        assert isinstance(failure, Failure)
        assert "connection failed" in failure.detail


@contextmanager
def silent() -> Iterator[str]:
    """A port that answers no attempt to connect: its queue of connections is full, and nobody takes them."""
    with socket.socket() as listening, ExitStack() as stack:
        listening.bind(("127.0.0.1", 0))
        listening.listen(0)
        for _ in range(4):
            waiting = stack.enter_context(socket.socket())
            waiting.setblocking(False)
            waiting.connect_ex(listening.getsockname())
        yield f"http://127.0.0.1:{listening.getsockname()[1]}/v1"

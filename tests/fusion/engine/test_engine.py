"""The engine as its users have it: the short question that finds out whether it answers, and what it remembers."""

import pytest

from fusion.engine import Answer, Engine, EngineSection, Failure, Question, SamplingSection, endpoints
from tests.fakes import chat_engine
from tests.fakes.recording_engine import recording_engine


def test_it_is_asked_as_all_are_but_for_one_token() -> None:
    """Some hosted models refuse a temperature that is not theirs."""
    probe = Question(
        [
            {"role": "system", "content": "s"},
            {"role": "user", "content": [{"type": "text", "text": "What colour is it?"}]},
        ]
    )
    with recording_engine(4096, len) as recorded:
        section = EngineSection(model="org/name", base_url=recorded.base_url)
        sampling = SamplingSection(temperature=1, seed=5, max_tokens=300)
        engine = Engine(section, "cpu", concurrency=1, timeout_s=30, retries=0, sampling=sampling)
        engine.start()
        engine.wait_until_it_answers(probe)
        assert engine.revive(probe) is False
        engine.stop()
        for body in recorded.requests:
            assert {name: value for name, value in body.items() if name != "messages"} == {
                "model": "org/name",
                "max_tokens": 1,
                "temperature": 1.0,
                "top_p": 1.0,
                "seed": 5,
            }
        assert len(recorded.requests) == 2


def test_an_engine_that_could_not_be_reached_rests_for_the_next_client_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(endpoints, "REST_S", 600.0)

    def ask(number: int, retries: int) -> list[Answer | Failure]:
        client = engine.client(SamplingSection(), retries=retries)
        asked = [Question([{"role": "user", "content": f"row {i}"}], affinity=f"{i:032x}") for i in range(number)]
        return client.ask([lambda one=one: one for one in asked])  # type: ignore[misc]

    with chat_engine.running() as url, chat_engine.process() as (gone, process):
        process.kill()
        process.wait()
        section = EngineSection(model="org/name", base_url=[gone, url])
        engine = Engine(section, "cpu", concurrency=4, timeout_s=30, retries=0)
        engine.start()
        assert all(isinstance(one, Answer) for one in ask(12, retries=2))
        assert all(isinstance(one, Answer) for one in ask(12, retries=0))

"""One request over HTTP: which proxy it takes, what it says of itself, and what it makes of awkward answers."""

import asyncio
import json
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler

import pytest

from fusion.engine.answers import Answer, answer_of
from fusion.engine.chat_api import RefusedError, UnreachableError, chat_api, proxy_of
from fusion.engine.endpoints import Endpoint
from tests.fakes.serving import serving

BODY = {"model": "m", "messages": [{"role": "user", "content": "half a \ud83d"}]}
MESSAGE = {"choices": [{"message": {"content": "a dog"}}]}


@contextmanager
def answering(status: int, said: bytes) -> Iterator[tuple[str, list[tuple[str, dict[str, str], bytes]]]]:
    """A server that answers everything so; its base URL, and the requests it has had: path, headers, body."""
    had = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"]))
            had.append((self.path, {k.lower(): v for k, v in self.headers.items()}, body))
            self.send_response(status)
            self.send_header("retry-after", "7")
            self.send_header("content-length", str(len(said)))
            self.end_headers()
            self.wfile.write(said)

        def log_message(self, *args: object) -> None:
            pass

    with serving(Handler) as url:
        yield f"{url}/v1", had


def complete(url: str) -> Answer:
    async def once() -> Answer:
        async with chat_api(5.0) as api:
            return await api.complete(Endpoint(url, "secret"), BODY)

    return asyncio.run(once())


@pytest.mark.parametrize("slash", ["", "/"])
def test_a_request_says_who_asks_and_is_plain_ascii(slash: str) -> None:
    with answering(200, json.dumps(MESSAGE).encode()) as (url, had):
        assert complete(url + slash) == Answer("a dog", "unknown", 0, 0, 0)
    [(path, headers, body)] = had
    assert path == "/v1/chat/completions"
    assert headers["authorization"] == "Bearer secret"
    assert headers["user-agent"] == "densefusion"
    assert headers["content-type"] == "application/json"
    assert json.loads(body.decode("ascii")) == BODY


@pytest.mark.parametrize(
    ("said", "words"),
    [
        (b'{"error": {"message": "too\\n  long", "code": 400}}', "too long"),
        (b'{"object": "error", "message": "too long"}', "too long"),
        (b'{"error": "too long"}', '{"error": "too long"}'),
        (b"<html>\xff gateway </html>", "<html>\ufffd gateway </html>"),
        (b"[]", "[]"),
        (b"", ""),
        (b"x" * 1000, "x" * 300),
    ],
)
def test_a_refusal_is_told_in_the_engines_words(said: bytes, words: str) -> None:
    with answering(418, said) as (url, _), pytest.raises(RefusedError) as refused:
        complete(url)
    assert str(refused.value) == f"HTTP 418: {words}"
    assert refused.value.status == 418
    assert refused.value.headers["Retry-After"] == refused.value.headers["retry-after"] == "7"


def test_nobody_there_is_told_without_an_address_of_memory() -> None:
    with pytest.raises(UnreachableError) as told:
        complete("http://127.0.0.1:9/v1")
    assert "Connect call failed ('127.0.0.1', 9)" in str(told.value)
    assert "0x" not in str(told.value)


@pytest.mark.parametrize(
    "said",
    [
        b"",
        b"\xff\xfe",
        b"null",
        b"[1]",
        b'{"choices": []}',
        b'{"choices": null}',
        b'{"choices": [null]}',
        b'{"choices": [{"message": null}]}',
        b'{"choices": [{"message": {"content": [{"type": "text", "text": "x"}]}}]}',
        b'{"choices": [{"message": {"content": "x"}}], "usage": {"prompt_tokens": "many"}}',
        b'{"choices": [{"message": {"content": "x"}}], "usage": {"prompt_tokens": 1e400}}',
        b'{"choices": [{"message": {"content": "x"}}], "usage": 3}',
        b"[" * 100_000,
    ],
)
def test_what_is_no_completion_is_a_value_error(said: bytes) -> None:
    with pytest.raises(ValueError):
        answer_of(said)


@pytest.mark.parametrize(
    ("message", "text"),
    [
        ({"content": None, "refusal": "I cannot."}, "I cannot."),
        ({"content": None}, ""),
        ({"content": "half a \ud83d"}, "half a \ufffd"),
    ],
)
def test_what_an_answer_says(message: dict[str, str], text: str) -> None:
    usage = {"prompt_tokens": 9, "completion_tokens": 4, "prompt_tokens_details": None}
    said = {"choices": [{"message": message, "finish_reason": "length"}], "usage": usage}
    assert answer_of(json.dumps(said).encode()) == Answer(text, "length", 9, 0, 4)


def test_a_proxy_is_the_environments_and_none_leads_to_this_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "https_proxy", "all_proxy", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)
    assert proxy_of("https://api.example.com/v1") is None
    monkeypatch.setenv("HTTPS_PROXY", "http://proxy:3128")
    monkeypatch.setenv("http_proxy", "http://proxy:3129")
    monkeypatch.setenv("no_proxy", "gpu-1,.inside.example.com")
    assert proxy_of("https://api.example.com/v1") == "http://proxy:3128"
    assert proxy_of("http://gpu-2:8000/v1") == "http://proxy:3129"
    assert proxy_of("http://gpu-1:8000/v1") is None
    assert proxy_of("http://a.inside.example.com/v1") is None
    assert [proxy_of(f"http://{host}:8000/v1") for host in ("127.0.0.1", "localhost", "[::1]")] == [None] * 3


def test_a_request_goes_through_the_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    with answering(200, json.dumps(MESSAGE).encode()) as (proxy, had):
        monkeypatch.setenv("http_proxy", proxy.removesuffix("/v1"))
        monkeypatch.delenv("no_proxy", raising=False)
        monkeypatch.delenv("NO_PROXY", raising=False)
        assert complete("http://engine.invalid:8000/v1").text == "a dog"
    assert had[0][0] == "http://engine.invalid:8000/v1/chat/completions"

"""An engine over HTTP that keeps every request, and refuses what does not fit into its window, as vLLM does."""

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler
from typing import Any

from tests.fakes.serving import serving


@dataclass
class Recorded:
    """Requests in the order they came.

    Attributes:
        base_url: of the API.
        answer: the caption of every request, or what makes it of a request's body.
        finish_reason: of every answer.
    """

    base_url: str
    answer: str | Callable[[dict[str, Any]], str] = "A plain picture of one colour."
    finish_reason: str = "stop"
    requests: list[dict[str, Any]] = field(default_factory=list)

    def about(self, text: str) -> list[dict[str, Any]]:
        """Those whose first user text holds `text`."""
        return [body for body in self.requests if text in texts_of(body)[1]]


def texts_of(body: dict[str, Any]) -> tuple[str, str]:
    """System text and first user text."""
    system, user = body["messages"][:2]
    return system["content"], next(part["text"] for part in user["content"] if part["type"] == "text")


@contextmanager
def recording_engine(window: int, count: Callable[[str], int]) -> Iterator[Recorded]:
    """`count` gives the tokens of a text; images take none here."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["content-length"])))
            recorded.requests.append(body)
            prompt = sum(count(part) for message in body["messages"] for part in _texts(message))
            if prompt + body["max_tokens"] > window:
                words = f"This model's maximum context length is {window} tokens, your prompt has {prompt}."
                self._send(400, {"error": {"message": words}})
                return
            answer = recorded.answer if isinstance(recorded.answer, str) else recorded.answer(body)
            message = {"role": "assistant", "content": answer}
            usage = {"prompt_tokens": prompt, "completion_tokens": 7, "total_tokens": prompt + 7}
            choice = {"index": 0, "finish_reason": recorded.finish_reason, "message": message}
            known = {"id": "1", "object": "chat.completion", "created": 0, "model": body["model"]}
            self._send(200, {**known, "choices": [choice], "usage": usage})

        def _send(self, status: int, answer: dict[str, Any]) -> None:
            data = json.dumps(answer).encode()
            self.send_response(status)
            self.send_header("content-type", "application/json")
            self.send_header("content-length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, *args: Any) -> None:
            pass

    with serving(Handler) as url:
        recorded = Recorded(f"{url}/v1")
        yield recorded


def _texts(message: dict[str, Any]) -> list[str]:
    content = message["content"]
    return [content] if isinstance(content, str) else [p["text"] for p in content if p["type"] == "text"]

"""A chat engine in a process of its own: OpenAI's API over HTTP, and whatever misbehaviour the user's text asks for.

The last `do:WORD` in the user's text says how it answers; without one it echoes the text. Counts are kept per text, so
`do:429x2` is refused twice and then answered. A refusal may say when to come back: `do:429x2;after=0.2` in seconds,
`;ms=200` in milliseconds, `;date=1` by a date so many seconds ahead, `;after=soon` in no way that means anything.
Run: python chat_engine.py PORT
"""

import json
import os
import re
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from email.utils import formatdate
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, ClassVar


@contextmanager
def running() -> Iterator[str]:
    """An engine of one's own; its base URL."""
    with process() as (url, _):
        yield url


@contextmanager
def process() -> Iterator[tuple[str, subprocess.Popen[bytes]]]:
    """The same with its process, to be killed."""
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        port = s.getsockname()[1]
    engine = subprocess.Popen([sys.executable, __file__, str(port)])
    try:
        url = f"http://127.0.0.1:{port}"
        for _ in range(200):
            try:
                urllib.request.urlopen(url, timeout=1).close()
                break
            except OSError:
                time.sleep(0.05)
        yield f"{url}/v1", engine
    finally:
        engine.kill()
        engine.wait()


def asked(url: str) -> list[dict[str, Any]]:
    """Requests that the engine at a base URL has had, in the order they came: `text`, and `at`, seconds of a clock."""
    with urllib.request.urlopen(url.removesuffix("/v1") + "/asked") as answer:
        requests: list[dict[str, Any]] = json.load(answer)
    return requests


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    seen: ClassVar[Counter[str]] = Counter()
    asked: ClassVar[list[dict[str, Any]]] = []
    under_way = 0
    most_under_way = 0
    lock = threading.Lock()

    def do_GET(self) -> None:
        if self.path == "/most_under_way":
            return self._send(200, json.dumps(self.most_under_way))
        if self.path == "/asked":
            return self._send(200, json.dumps(self.asked))
        return self._send(200, "")

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["content-length"])))
        with self.lock:
            Handler.under_way += 1
            Handler.most_under_way = max(Handler.under_way, Handler.most_under_way)
        try:
            self._answer(body)
        finally:
            with self.lock:
                Handler.under_way -= 1

    def _answer(self, body: dict[str, Any]) -> None:
        text = _text(body["messages"])
        with self.lock:
            self.asked.append({"text": text, "at": time.monotonic()})
            self.seen[text] += 1
            times = self.seen[text]
        found = re.findall(r"do:(\S+)", text)
        word = found[-1] if found else ""
        refusal = re.fullmatch(r"(\d{3})(?:x(\d+))?(?:;(after|ms|date)=(\S+))?", word)
        if refusal and (not refusal[2] or times <= int(refusal[2])):
            words = json.dumps({"error": {"message": f"you asked for {refusal[1]}"}})
            return self._send(int(refusal[1]), words, _come_back(refusal[3], refusal[4]))
        if word == "hang":
            time.sleep(60)
        if word == "drip":
            return self._drip()
        if word == "die":
            os._exit(9)
        if word == "garbage":
            return self._send(200, "<html>not json")
        if word == "wrong":
            return self._send(200, json.dumps({"hello": "world"}))
        if word == "cut":
            self.close_connection = True
            self.wfile.write(b"HTTP/1.1 200 OK\r\ncontent-length: 1000\r\n\r\n{")
            return None
        if word == "newer" and "max_tokens" in body:
            words = "Unsupported parameter: 'max_tokens' is not supported. Use 'max_completion_tokens' instead."
            return self._send(400, json.dumps({"error": {"message": words}}))
        if word == "half":
            return self._send(200, json.dumps(_completion(body, "half a \ud83d")))
        if word == "empty":
            return self._send(200, json.dumps(_completion(body, "")))
        if word == "body":
            said = {name: value for name, value in body.items() if name != "messages"}
            return self._send(200, json.dumps(_completion(body, json.dumps(said))))
        if word == "options":
            beyond = set(body) - {"model", "messages", "max_tokens", "temperature", "top_p", "seed"}
            return self._send(200, json.dumps(_completion(body, json.dumps({name: body[name] for name in beyond}))))
        if word.startswith("sleep="):
            time.sleep(float(word.removeprefix("sleep=")))
        return self._send(200, json.dumps(_completion(body, text)))

    def _drip(self) -> None:
        """A byte now and then, for ever: no read ever times out."""
        self.wfile.write(b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 100000\r\n\r\n")
        for _ in range(600):
            self.wfile.write(b" ")
            self.wfile.flush()
            time.sleep(0.1)

    def _send(self, status: int, text: str, headers: dict[str, str] | None = None) -> None:
        data = text.encode()
        self.send_response(status)
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *args: Any) -> None:
        pass


def _come_back(unit: str | None, value: str) -> dict[str, str]:
    """The header that says when to ask again."""
    if unit is None:
        return {}
    if unit == "ms":
        return {"retry-after-ms": value}
    return {"retry-after": formatdate(time.time() + float(value), usegmt=True) if unit == "date" else value}


def _text(messages: list[dict[str, Any]]) -> str:
    content = messages[-1]["content"]
    return content if isinstance(content, str) else " ".join(p["text"] for p in content if p["type"] == "text")


def _completion(body: dict[str, Any], text: str) -> dict[str, Any]:
    return {
        "id": "1",
        "object": "chat.completion",
        "created": 0,
        "model": body["model"],
        "choices": [{"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": text}}],
        "usage": {
            "prompt_tokens": 7,
            "completion_tokens": 3,
            "total_tokens": 10,
            "prompt_tokens_details": {"cached_tokens": 5},
        },
    }


if __name__ == "__main__":
    ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), Handler).serve_forever()

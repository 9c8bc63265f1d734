"""ASGI middleware for vLLM's server (`--middleware`) that answers some requests badly: 500, 429, garbage, half."""

import os
import random
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

SHARE_VARIABLE = "DENSEFUSION_MISBEHAVING_SHARE"
"""Environment variable that says which share of the requests."""
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Message, Receive, Send], Awaitable[None]]


class Misbehaving:
    """In front of the server's own application; only chats are hit."""

    def __init__(self, app: App) -> None:
        self._app = app
        self._share = float(os.environ[SHARE_VARIABLE])
        self._random = random.Random(os.getpid())

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        chat = scope["type"] == "http" and scope["path"].endswith("/chat/completions")
        if not chat or self._random.random() >= self._share:
            await self._app(scope, receive, send)
            return
        while (await receive()).get("more_body"):
            pass
        badly: Callable[[Send], Awaitable[None]] = self._random.choice((_failing, _too_fast, _garbage, _half))
        await badly(send)


async def _failing(send: Send) -> None:
    await _answer(send, 500, b'{"error": {"message": "out of luck"}}')


async def _too_fast(send: Send) -> None:
    await _answer(send, 429, b'{"error": {"message": "not so fast"}}', retry_after=b"0.2")


async def _garbage(send: Send) -> None:
    await _answer(send, 200, b"<html>\x00\xff{not json")


async def _half(send: Send) -> None:
    """A body that ends before its announced length, so that the server closes the connection."""
    await _answer(send, 200, b'{"choices": [', length=10_000)


async def _answer(send: Send, status: int, body: bytes, *, retry_after: bytes = b"", length: int | None = None) -> None:
    headers = [(b"content-type", b"application/json"), (b"content-length", str(length or len(body)).encode())]
    headers += [(b"retry-after", retry_after)] if retry_after else []
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})

"""One request to an engine over HTTP, by OpenAI's chat completions API."""

import contextlib
import functools
import json
import ssl
import urllib.request
from collections.abc import AsyncIterator, Mapping
from typing import Any
from urllib.parse import urlsplit

import aiohttp
import certifi

from fusion.engine.answers import Answer, answer_of
from fusion.engine.endpoints import Endpoint

CONNECT_S = 15.0
"""Until an engine that is silent counts as one that cannot be reached: a machine that is gone refuses nothing."""
_LOOPBACK = {"127.0.0.1", "localhost", "::1"}


class RefusedError(Exception):
    """The engine answered with a status that is none of success.

    Args:
        words: what it said about that, on one line.

    Attributes:
        headers: of its answer; their names are the same in either case.
    """

    def __init__(self, status: int, words: str, headers: Mapping[str, str]) -> None:
        super().__init__(f"HTTP {status}: {words}")
        self.status, self.headers = status, headers


class UnreachableError(Exception):
    """There was no connection to the engine, or it broke before the answer was whole."""


class ChatApi:
    """A session whose connections are used again. The caller bounds how many requests are under way, and how long."""

    def __init__(self, session: aiohttp.ClientSession) -> None:
        self._session = session

    async def complete(self, endpoint: Endpoint, body: dict[str, Any]) -> Answer:
        """The answer to a request with this body.

        Raises:
            RefusedError: by the engine, with a status.
            UnreachableError: no connection, or one that broke.
            ValueError: the answer is no chat completion.
        """
        url = f"{endpoint.base_url.rstrip('/')}/chat/completions"
        headers = {"authorization": f"Bearer {endpoint.api_key}", "content-type": "application/json"}
        try:
            async with self._session.post(
                url, data=json.dumps(body).encode(), headers=headers, proxy=proxy_of(url)
            ) as response:
                said = await response.read()
        except aiohttp.ClientError as error:
            # What aiohttp says of a connection that it did not get names an object by its address.
            raise UnreachableError(str(getattr(error, "os_error", error)) or type(error).__name__) from error
        if not response.ok:
            raise RefusedError(response.status, _words(said), response.headers)
        return answer_of(said)


@contextlib.asynccontextmanager
async def chat_api(connect_s: float) -> AsyncIterator[ChatApi]:
    """An API whose connections end with the block.

    Args:
        connect_s: seconds until an engine that is silent counts as unreachable.
    """
    connector = aiohttp.TCPConnector(limit=0, ssl=_trusted())
    limits = aiohttp.ClientTimeout(total=None, sock_connect=connect_s)
    # Some hosts turn away what says that it is Python.
    headers = {"user-agent": "densefusion"}
    async with aiohttp.ClientSession(connector=connector, timeout=limits, headers=headers) as session:
        yield ChatApi(session)


def proxy_of(url: str) -> str | None:
    """The proxy that the environment names for a URL (`https_proxy`, `no_proxy`), never one for this machine itself."""
    parts = urlsplit(url)
    host = parts.hostname or ""
    if host in _LOOPBACK or urllib.request.proxy_bypass(host):
        return None
    proxies = urllib.request.getproxies()
    return proxies.get(parts.scheme, proxies.get("all"))


@functools.cache  # a tenth of a second, and a client is made for every shard
def _trusted() -> ssl.SSLContext:
    """Trust in what the system trusts, by SSL_CERT_FILE too, and in the public authorities: small images have none."""
    context = ssl.create_default_context()
    context.load_verify_locations(certifi.where())
    return context


def _words(said: bytes) -> str:
    """Of an error's body, at most 300 characters."""
    text = said.decode("utf-8", "replace")
    try:
        body = json.loads(text)
    except (ValueError, RecursionError):
        body = None
    error = body.get("error", body) if isinstance(body, dict) else body
    message = error.get("message") if isinstance(error, dict) else None
    return " ".join(str(message or text).split())[:300]

"""A response's body: whole, as it was sent, never longer than the cap."""

import http.client

from schemas.ledger import Reason
from stages.fetch.errors import FetchRefused

_CHUNK_BYTES = 256 * 1024
_COMPRESSED = {"gzip", "x-gzip", "deflate", "compress", "x-compress", "br", "zstd"}


def check_coding(response: http.client.HTTPResponse) -> None:
    """Raises FetchRefused(fetch) for a compressed body: we ask for `identity`, and no cap holds what may come out."""
    coding = response.headers.get("Content-Encoding", "").strip().lower()
    if coding in _COMPRESSED:
        raise FetchRefused(Reason.FETCH, f"the body is {coding} although identity was asked for")


def read_body(response: http.client.HTTPResponse, max_bytes: int) -> bytes:
    """All of a body.

    Raises:
        FetchRefused: too_many_bytes, truncated_body, timeout, fetch.
    """
    check_coding(response)
    if response.length is not None and response.length > max_bytes:
        raise FetchRefused(Reason.TOO_MANY_BYTES, f"Content-Length {response.length} is above {max_bytes}")
    body = bytearray()
    try:
        while chunk := response.read(min(_CHUNK_BYTES, max_bytes + 1 - len(body))):
            body += chunk
            if len(body) > max_bytes:
                raise FetchRefused(Reason.TOO_MANY_BYTES, f"the body is longer than {max_bytes} bytes")
    except (OSError, http.client.HTTPException) as error:
        what = type(error).__name__
        raise FetchRefused(Reason.TRUNCATED_BODY, f"{what} after {len(body)} bytes", transient=True) from error
    if response.length:
        expected = len(body) + response.length
        raise FetchRefused(Reason.TRUNCATED_BODY, f"{len(body)} of {expected} bytes came", transient=True)
    return bytes(body)

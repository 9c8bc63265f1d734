"""A URL taken apart the one way that every check and the connection itself use."""

import re
import string
from dataclasses import dataclass
from urllib.parse import quote, urljoin, urlsplit

from schemas.ledger import Reason
from stages.fetch.errors import FetchRefused

_PORTS = {"http": 80, "https": 443}
_HOST = re.compile(r"[a-z0-9._-]+|[0-9a-f:.]+")


@dataclass(frozen=True)
class Target:
    """One http or https URL.

    Attributes:
        host: lower-case, IDNA-encoded, without brackets or a final dot.
        port: stated, or the scheme's own.
        selector: path and query as they go into the request line: percent-encoded ASCII.
    """

    scheme: str
    host: str
    port: int
    selector: str

    @property
    def authority(self) -> str:
        """Host, with brackets where needed, and port where it is not the scheme's own; the Host header."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port == _PORTS[self.scheme] else f"{host}:{self.port}"

    @property
    def origin(self) -> str:
        return f"{self.scheme}://{self.authority}"

    @property
    def url(self) -> str:
        return self.origin + self.selector


def parse_target(url: str) -> Target:
    """Take a URL apart; what a browser would encode (spaces, letters beyond ASCII) is encoded.

    Raises:
        FetchRefused: refused_scheme, or bad_url.
    """
    try:
        parts = urlsplit(url.strip())
        host, port = parts.hostname or "", parts.port
        if not host.isascii():
            host = host.encode("idna").decode("ascii")
    except ValueError as error:
        raise FetchRefused(Reason.BAD_URL, str(error)) from error
    if parts.scheme not in _PORTS:
        raise FetchRefused(Reason.REFUSED_SCHEME, f"scheme {parts.scheme or '(none)'} is not http or https")
    if parts.username is not None:
        raise FetchRefused(Reason.BAD_URL, "the URL carries credentials")
    host = host.rstrip(".")
    if not _HOST.fullmatch(host) or not all(0 < len(label) <= 63 for label in host.split(".")):
        raise FetchRefused(Reason.BAD_URL, f"not a host name: {host!r}")
    selector = quote(parts.path or "/", safe=string.punctuation)
    if parts.query:
        selector += "?" + quote(parts.query, safe=string.punctuation)
    return Target(parts.scheme, host, _PORTS[parts.scheme] if port is None else port, selector)


def redirected(target: Target, location: str) -> Target:
    """Where a Location header points. Raises as `parse_target`."""
    # http.client reads headers as Latin-1; this gives the server's own bytes back.
    raw = quote(location.strip(), safe=string.punctuation, encoding="iso-8859-1")
    try:
        return parse_target(urljoin(target.url, raw))
    except ValueError as error:
        raise FetchRefused(Reason.BAD_URL, f"redirected to {location!r}") from error

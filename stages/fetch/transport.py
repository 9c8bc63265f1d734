"""One request over one connection to a checked address, every byte of it under a deadline."""

import http.client
import io
import socket
import ssl
import threading
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any, cast

from schemas.ledger import Reason
from stages.fetch.addresses import AddressPolicy
from stages.fetch.deadline import Deadline
from stages.fetch.errors import FetchRefused
from stages.fetch.resolver import Endpoint, Resolver
from stages.fetch.target import Target


class _Reader(io.RawIOBase):
    """Bytes of a socket. A socket's own timeout starts anew at every read, so a server that drips one byte at a time
    would never meet it; here each read gets what is left of the deadline."""

    def __init__(self, sock: socket.socket, deadline: Deadline) -> None:
        self._sock = sock
        self._deadline = deadline

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        self._sock.settimeout(self._deadline.left())
        try:
            return self._sock.recv_into(buffer)
        except TimeoutError:
            raise self._deadline.passed() from None


class _Channel:
    """What http.client wants of a socket. Closing it is left to whoever opened the socket."""

    def __init__(self, sock: socket.socket, deadline: Deadline) -> None:
        self._sock = sock
        self._deadline = deadline

    def makefile(self, mode: str) -> io.BufferedReader:
        return io.BufferedReader(_Reader(self._sock, self._deadline), 64 * 1024)

    def sendall(self, data: bytes) -> None:
        self._sock.settimeout(self._deadline.left())
        self._sock.sendall(data)

    def close(self) -> None:
        pass


class Transport:
    """Connects only to addresses that the policy has passed; environment proxies play no part.

    Attributes:
        requests: connections made.
        private_requests: those of them to addresses that only `allow_hosts` let through.
    """

    def __init__(self, policy: AddressPolicy, resolver: Resolver, connect_timeout_s: float) -> None:
        self._policy = policy
        self._resolver = resolver
        self._connect_timeout_s = connect_timeout_s
        self._tls = ssl.create_default_context()
        self._lock = threading.Lock()
        self.requests = 0
        self.private_requests = 0

    @contextmanager
    def get(self, target: Target, headers: Mapping[str, str], deadline: Deadline) -> Iterator[http.client.HTTPResponse]:
        """GET one URL, without following anything. The body is read inside the `with`.

        Raises:
            FetchRefused: refused_address, dns, connect, tls, timeout, fetch.
        """
        with closing(self._connect(target, deadline)) as sock:
            connection = http.client.HTTPConnection(target.host, target.port)
            connection.sock = cast(socket.socket, _Channel(sock, deadline))
            try:
                connection.request("GET", target.selector, headers={"Host": target.authority, **headers})
                response = connection.getresponse()
            except TimeoutError:
                raise deadline.passed() from None
            except OSError as error:
                raise FetchRefused(Reason.CONNECT, f"no answer: {_words(error)}", transient=True) from error
            except (http.client.HTTPException, ValueError) as error:
                raise FetchRefused(Reason.FETCH, f"not an HTTP answer: {type(error).__name__}") from error
            yield response

    def _connect(self, target: Target, deadline: Deadline) -> socket.socket:
        endpoint, sock = self._reach(self._permitted(target, deadline), deadline)
        if target.scheme == "http":
            return sock
        try:
            sock.settimeout(deadline.left())
            # The certificate must be for the name in the URL; the address it was pinned to is not asked.
            return self._tls.wrap_socket(sock, server_hostname=target.host)
        except BaseException as error:
            sock.close()
            if isinstance(error, TimeoutError):
                raise deadline.passed() from None
            if isinstance(error, ssl.SSLError):
                raise FetchRefused(Reason.TLS, _words(error)) from error
            if isinstance(error, OSError):
                raise FetchRefused(Reason.TLS, f"handshake with {endpoint[0]}: {_words(error)}") from error
            raise

    def _permitted(self, target: Target, deadline: Deadline) -> list[tuple[Endpoint, bool]]:
        """Endpoints that may be connected to, each with whether it is public. Raises FetchRefused where none may."""
        permitted = []
        refusal: FetchRefused | None = None
        for address, port in self._resolver.endpoints(target, deadline):
            try:
                public = self._policy.check(target.host, target.port, address)
            except FetchRefused as refused:
                refusal = refused
                continue
            permitted.append(((address, port), public))
        if refusal is not None and not permitted:
            raise refusal
        return permitted

    def _reach(self, endpoints: list[tuple[Endpoint, bool]], deadline: Deadline) -> tuple[Endpoint, socket.socket]:
        """The first endpoint that takes a connection."""
        failure = FetchRefused(Reason.DNS, "the resolver gave no address")
        for (address, port), public in endpoints:
            family = socket.AF_INET if address.version == 4 else socket.AF_INET6
            limit = min(self._connect_timeout_s, deadline.left())
            try:
                sock = _connected(family, str(address), port, limit)
            except OSError as error:
                if isinstance(error, TimeoutError):
                    words, reason = f"no connection to {address} in {limit:.3g} s", Reason.TIMEOUT
                else:
                    words, reason = f"{address}: {_words(error)}", Reason.CONNECT
                failure = FetchRefused(reason, words, transient=True)
                continue
            with self._lock:
                self.requests += 1
                self.private_requests += not public
            return (address, port), sock
        raise failure


def _connected(family: socket.AddressFamily, address: str, port: int, limit_s: float) -> socket.socket:
    sock = socket.socket(family, socket.SOCK_STREAM)
    try:
        sock.settimeout(limit_s)
        sock.connect((address, port))
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    except OSError:
        sock.close()
        raise
    return sock


def _words(error: OSError) -> str:
    return getattr(error, "verify_message", "") or error.strerror or str(error) or type(error).__name__


def has_root_certificates() -> bool:
    """Whether the places that OpenSSL looks at (SSL_CERT_FILE and SSL_CERT_DIR, or its defaults) hold anything."""
    places = ssl.get_default_verify_paths()
    folder = Path(places.capath) if places.capath else None
    return places.cafile is not None or (folder is not None and any(folder.iterdir()))

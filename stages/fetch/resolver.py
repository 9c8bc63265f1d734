"""Names to addresses: cached, with a deadline, its failures told apart from dead links."""

import ipaddress
import socket
import threading
import time
from collections.abc import Mapping
from concurrent.futures import Future

from schemas.ledger import Reason
from stages.fetch.addresses import Address
from stages.fetch.cache import OnceCache
from stages.fetch.deadline import Deadline
from stages.fetch.errors import FetchRefused
from stages.fetch.target import Target

_TTL_S = 300.0
_CACHED_HOSTS = 100_000
_BUSY_ATTEMPTS = 3
_BUSY_PAUSE_S = 0.5

Endpoint = tuple[Address, int]


def parse_endpoint(text: str) -> Endpoint:
    """`ip:port`, IPv6 in brackets. Raises ValueError."""
    host, _, port = text.rpartition(":")
    return ipaddress.ip_address(host.removeprefix("[").removesuffix("]")), int(port)


class Resolver:
    """Addresses of a host; both answers and failures are remembered for five minutes.

    Args:
        connect_to: `host:port` to `ip:port`, in place of DNS; a host named here is never looked up.
    """

    def __init__(self, connect_to: Mapping[str, str]) -> None:
        self._connect_to = {name.lower(): parse_endpoint(place) for name, place in connect_to.items()}
        self._named_hosts = {name.rpartition(":")[0] for name in self._connect_to}
        self._cache: OnceCache[str, list[Address] | FetchRefused] = OnceCache(_TTL_S, _CACHED_HOSTS)

    def endpoints(self, target: Target, deadline: Deadline) -> list[Endpoint]:
        """Where a target may be reached, best first; at least one.

        Raises:
            FetchRefused: dns.
        """
        if target.host in self._named_hosts:
            endpoint = self._connect_to.get(f"{target.host}:{target.port}")
            if endpoint is None:
                raise FetchRefused(Reason.DNS, f"connect_to names {target.host}, but not port {target.port}")
            return [endpoint]
        future, mine = self._cache.claim(target.host)
        if mine:
            # getaddrinfo cannot be interrupted; in a thread of its own it outlives us without holding anybody up,
            # and serves whoever asks next.
            threading.Thread(target=_look_up, args=(target.host, future), name="dns", daemon=True).start()
        try:
            answer = future.result(timeout=deadline.left())
        except TimeoutError:
            raise FetchRefused(Reason.DNS, f"the resolver did not answer for {target.host}") from None
        if isinstance(answer, FetchRefused):
            raise FetchRefused(answer.reason, answer.detail)
        return [(address, target.port) for address in answer]


def _look_up(host: str, future: "Future[list[Address] | FetchRefused]") -> None:
    for attempt in range(1, _BUSY_ATTEMPTS + 1):
        try:
            answers = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
            addresses = [ipaddress.ip_address(sockaddr[0]) for *_, sockaddr in answers]
            future.set_result(list(dict.fromkeys(addresses)))
            return
        except (OSError, ValueError) as error:
            # A busy resolver says "try again"; a name that does not exist is final.
            if getattr(error, "errno", None) == socket.EAI_AGAIN and attempt < _BUSY_ATTEMPTS:
                time.sleep(_BUSY_PAUSE_S)
                continue
            text = getattr(error, "strerror", None) or str(error)
            future.set_result(FetchRefused(Reason.DNS, f"{host}: {text}"))
            return

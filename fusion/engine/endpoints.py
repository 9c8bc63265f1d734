"""Several engines of the same model: which one takes the next question."""

import hashlib
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

REST_S = 15.0
"""How long an engine that could not be reached is asked nothing, unless all are at rest."""
SLACK = 8
"""How many more questions than the least busy one an engine may have under way before its own go elsewhere. A prefix
in its cache is worth a short wait."""


@dataclass
class Endpoint:
    """One engine's API.

    Attributes:
        base_url: up to and with `/v1`.
        under_way: questions that it has not answered yet.
    """

    base_url: str
    api_key: str
    under_way: int = 0
    _rests_until: float = field(default=0.0, repr=False)

    def rest(self) -> None:
        """It could not be reached."""
        self._rests_until = time.monotonic() + REST_S

    @property
    def rested(self) -> bool:
        return time.monotonic() >= self._rests_until


class Endpoints:
    """Chooses by load, and by affinity where that does not cost much of a wait."""

    def __init__(self, endpoints: Sequence[Endpoint]) -> None:
        self._all = list(endpoints)

    def pick(self, affinity: str) -> Endpoint:
        """The engine for a question of this affinity, at whose end its caller counts `under_way` down again.

        Highest random weight (Thaler and Ravishankar 1998): the same affinity prefers the same engine in every process,
        and an engine that goes moves only its own.
        """
        up = [one for one in self._all if one.rested] or self._all
        least = min(one.under_way for one in up)
        chosen = min(up, key=lambda one: one.under_way)
        if affinity:
            preferred = max(up, key=lambda one: _weight(one.base_url, affinity))
            chosen = preferred if preferred.under_way <= least + SLACK else chosen
        chosen.under_way += 1
        return chosen

    def __iter__(self) -> Iterator[Endpoint]:
        return iter(self._all)


def _weight(url: str, affinity: str) -> bytes:
    return hashlib.blake2b(f"{url}\0{affinity}".encode(), digest_size=8).digest()

"""robots.txt, asked once per origin and obeyed as RFC 9309 says."""

import urllib.parse
import urllib.robotparser
from collections.abc import Callable
from typing import Any

from schemas.ledger import Reason
from stages.fetch.cache import OnceCache
from stages.fetch.errors import FetchRefused
from stages.fetch.target import Target

# RFC 9309 section 2.5: a crawler parses at least this much.
ROBOTS_BYTES = 512 * 1024

# RFC 9309 section 2.4 allows 24 hours; a refusal that rests on an outage should not last that long.
_TTL_S = 600.0
_CACHED_ORIGINS = 4_000


class Rules(urllib.robotparser.RobotFileParser):
    """The standard library's parser with RFC 9309's matching, which it lacks.

    Groups for the same crawler are merged, the longest matching path wins (an allow wins a tie), `*` stands for any
    characters and `$` for the end.
    """

    entries: list[Any]

    def __init__(self, text: str) -> None:
        super().__init__()
        # A blank line ends a group for the standard library, but not for the RFC.
        self.parse([line for line in text.splitlines() if line.strip()])

    def _add_entry(self, entry: Any) -> None:
        self.entries.append(entry)

    def can_fetch(self, useragent: str, url: str) -> bool:
        named = [e for e in self.entries if "*" not in e.useragents and e.applies_to(useragent)]
        groups = named or [e for e in self.entries if "*" in e.useragents]
        parts = urllib.parse.urlsplit(url)
        asked = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
        # Rule paths are kept unquoted and quoted again, so the path asked for has to be, too.
        path = urllib.parse.quote(urllib.parse.unquote(asked))
        matches = [
            (len(rule.path), rule.allowance)
            for group in groups
            for rule in group.rulelines
            if _matches(rule.path, path)
        ]
        return max(matches, default=(0, True))[1]


def _matches(pattern: str, path: str) -> bool:
    """Whether a quoted rule path matches the beginning of a quoted path, in time linear in its length."""
    pattern, whole = pattern.removesuffix("%24"), pattern.endswith("%24")
    first, *rest = pattern.split("%2A")
    if not path.startswith(first):
        return False
    place = len(first)
    if whole and rest:
        last = rest.pop()
        if not path.endswith(last) or len(path) - len(last) < place:
            return False
        path, whole = path[: len(path) - len(last)], False
    for piece in rest:
        found = path.find(piece, place)
        if found < 0:
            return False
        place = found + len(piece)
    return place == len(path) if whole else True


class Robots:
    """Asks for an origin's robots.txt when the origin is first met.

    Args:
        product: our name in robots.txt, the first token of the user agent.
        fetch: URL to (status, first ROBOTS_BYTES of the body); raises FetchRefused where there is no answer.
    """

    def __init__(self, product: str, fetch: Callable[[str], tuple[int, bytes]]) -> None:
        self._product = product
        self._fetch = fetch
        self._cache: OnceCache[str, Rules | FetchRefused] = OnceCache(_TTL_S, _CACHED_ORIGINS)

    def check(self, target: Target) -> None:
        """Whether we may ask for a target.

        Raises:
            FetchRefused: refused_robots; or, where the host gave no answer at all, why not. The host's other URLs then
                fail at once for the same reason instead of waiting for it one by one.
        """
        future, mine = self._cache.claim(target.origin)
        if mine:
            try:
                future.set_result(self._rules(target.origin))
            except BaseException as error:
                future.set_exception(error)
                raise
        rules = future.result()
        if isinstance(rules, FetchRefused):
            raise FetchRefused(rules.reason, rules.detail)
        if not rules.can_fetch(self._product, target.url):
            raise FetchRefused(Reason.REFUSED_ROBOTS, f"{target.origin}/robots.txt disallows {target.selector}")

    def _rules(self, origin: str) -> Rules | FetchRefused:
        try:
            status, body = self._fetch(f"{origin}/robots.txt")
        except FetchRefused as refused:
            if refused.reason is Reason.REDIRECTS:
                return Rules("")
            return FetchRefused(refused.reason, f"robots.txt: {refused.detail}")
        if status == 200:
            return Rules(body.decode("utf-8", errors="replace").removeprefix("\ufeff"))
        # RFC 9309 section 2.3.1: "unavailable" (4xx) allows everything, "unreachable" (5xx) nothing. 429 is no
        # statement about the file, so it counts as unreachable.
        if status >= 500 or status == 429:
            return FetchRefused(Reason.REFUSED_ROBOTS, f"{origin}/robots.txt answered {status}")
        return Rules("")

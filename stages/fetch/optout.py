"""Answers whose headers reserve the image: X-Robots-Tag directives and tdm-reservation."""

from collections.abc import Iterable
from email.message import Message

from schemas.ledger import Reason
from stages.fetch.errors import FetchRefused

_ROBOTS_TAG = "x-robots-tag"

# X-Robots-Tag directives that have a value of their own, so that what stands before their colon names no crawler.
_VALUED = {"unavailable_after", "max-snippet", "max-image-preview", "max-video-preview"}


class OptOut:
    """Rules written as `header: value`.

    A header meets a rule when one of its comma-separated values equals the rule's, in any case. In X-Robots-Tag a value
    behind a crawler's name (`somebot: noai`) speaks to that crawler only.

    Args:
        rules: `x-robots-tag: noai`, `tdm-reservation: 1`, ...
        product: our own name, the first token of the user agent.
    """

    def __init__(self, rules: Iterable[str], product: str) -> None:
        self._product = product.lower()
        self._rules: dict[str, set[str]] = {}
        for rule in rules:
            header, _, value = rule.lower().partition(":")
            self._rules.setdefault(header.strip(), set()).add(value.strip())

    def check(self, headers: Message) -> None:
        """Raises FetchRefused(opted_out), naming the header."""
        for header, values in self._rules.items():
            for line in headers.get_all(header, []):
                stated = self._for_us(line) if header == _ROBOTS_TAG else _values(line)
                for value in stated:
                    if value in values:
                        raise FetchRefused(Reason.OPTED_OUT, f"{header}: {value}")

    def _for_us(self, line: str) -> list[str]:
        """Directives of one X-Robots-Tag line that are for every crawler or for us."""
        ours = True
        directives = []
        for value in _values(line):
            name, colon, directive = (part.strip() for part in value.partition(":"))
            if colon and name not in _VALUED:
                ours = name in ("*", self._product)
                value = directive
            if ours:
                directives.append(value)
        return directives


def _values(line: str) -> list[str]:
    return [value.strip().lower() for value in str(line).split(",")]

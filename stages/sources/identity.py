"""Who a metadata row is: its uid, and whether its URL or its uid was there before."""

import hashlib
import itertools
import re
from urllib.parse import urlsplit

from schemas.ledger import Reason

_HEX128 = re.compile(r"[0-9a-f]{32}")


def bad_url(url: str) -> str | None:
    """Why a URL cannot be asked for, or None. Whether its scheme is allowed is the downloader's question."""
    try:
        parts = urlsplit(url)
        parts.port  # noqa: B018  raises for a port that is no number
    except ValueError as e:
        return str(e)
    if any(ord(c) < 32 or ord(c) == 127 for c in url):
        return "control character"
    if not parts.scheme:
        return "no scheme"
    if parts.scheme in ("http", "https") and not parts.hostname:
        return "no host"
    return None


class Identities:
    """Gives every row of a run its uid, and knows the second row of a URL or of a uid.

    Memory: about 200 bytes for every row; nothing else of ingest grows with the number of rows.
    """

    def __init__(self) -> None:
        self._uid_of_url: dict[bytes, bytes] = {}
        self._uids: set[bytes] = set()

    def assign(self, url: str, source_uid: str | None) -> tuple[str, tuple[Reason, str] | None]:
        """The row's uid in hex and, for a duplicate, the reason and a sentence that names the first row's uid.

        The source's own uid is kept where it is 32 hex digits (DataComp's are); any other id is not, because a row
        number or a 64-bit id is not unique across sources, and the uid is blake2b-128 of the URL. A duplicate gets a
        uid of its own, from the URL and a counter, so that no uid stands for two rows.
        """
        of_url = _digest(url)
        first = self._uid_of_url.get(of_url)
        if first is not None:
            return self._fresh(url), (Reason.DUPLICATE_URL, f"first seen as {first.hex()}")
        stated = (source_uid or "").lower()
        uid = bytes.fromhex(stated) if _HEX128.fullmatch(stated) else of_url
        if uid in self._uids:
            refused = self._fresh(url)
            self._uid_of_url[of_url] = bytes.fromhex(refused)
            return refused, (Reason.DUPLICATE_UID, f"another URL came first as {uid.hex()}")
        self._uid_of_url[of_url] = uid
        self._uids.add(uid)
        return uid.hex(), None

    def unaddressed(self, place: str) -> str:
        """A uid for a row without a URL, from the place where it stands."""
        return self._fresh(f"\n{place}")

    def _fresh(self, text: str) -> str:
        uid = next(d for n in itertools.count(1) if (d := _digest(f"{text}\n{n}")) not in self._uids)
        self._uids.add(uid)
        return uid.hex()


def _digest(text: str) -> bytes:
    return hashlib.blake2b(text.encode(), digest_size=16).digest()

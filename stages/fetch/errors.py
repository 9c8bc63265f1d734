"""The one exception of a fetch that gives no usable image, with its ledger reason."""

from schemas.ledger import Reason

_DETAIL_CHARS = 240


class FetchRefused(Exception):  # noqa: N818  most of these are our refusals, not errors
    """A URL that gives no usable image, or that we do not ask for one.

    Its text is `reason: detail`, because img2dataset hands only the text of an exception on; `parse` reads it back.

    Attributes:
        reason: as the ledger will have it.
        detail: a short printable sentence; what a server sent is cut and stripped of control characters.
        transient: another attempt may fare better.
        retry_after: seconds the server asked us to wait, None where it did not say.
    """

    def __init__(
        self, reason: Reason, detail: str = "", *, transient: bool = False, retry_after: float | None = None
    ) -> None:
        self.reason = reason
        self.detail = "".join(c for c in detail if c.isprintable())[:_DETAIL_CHARS]
        self.transient = transient
        self.retry_after = retry_after
        super().__init__(f"{reason}: {self.detail}")

    @classmethod
    def parse(cls, text: str) -> "FetchRefused":
        """The exception that gave this text; any other text is a `fetch` with the text as its detail."""
        reason, separator, detail = text.partition(": ")
        if separator and reason in set(Reason):
            return cls(Reason(reason), detail)
        return cls(Reason.FETCH, text)

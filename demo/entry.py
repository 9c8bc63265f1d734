"""One row of the scene world's metadata, and what must become of it."""

from pydantic import BaseModel, ConfigDict

from schemas.ledger import Reason


class Entry(BaseModel):
    """One row of the metadata and what we know about it.

    Attributes:
        width, height: as the metadata states them, in px; None and NaN occur, and some lie.
        expected: the reason with which ingest or download must stop the row; None where its image must come through.
        scene: seed of the scene that the image shows.
        copy_of: URL of the original, for a copy of another entry's picture.
        copied: how the copy was made, a function of `demo.encodings`, or `same_bytes`.
    """

    model_config = ConfigDict(extra="forbid", ser_json_inf_nan="constants")

    url: str | None
    text: str | None
    width: float | None
    height: float | None
    punsafe: float
    pwatermark: float
    similarity: float
    aesthetic: float
    expected: Reason | None = None
    scene: int | None = None
    copy_of: str | None = None
    copied: str | None = None

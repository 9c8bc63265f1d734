"""The ledger: one row for every input row that stopped, with one reason from a closed vocabulary."""

from dataclasses import dataclass
from enum import StrEnum

import pyarrow as pa


class Reason(StrEnum):
    """Why a row stopped. The value is what the ledger, `status` and the report show."""

    # ingest
    NO_URL = "no_url"
    BAD_URL = "bad_url"
    DUPLICATE_URL = "duplicate_url"
    DUPLICATE_UID = "duplicate_uid"
    SOURCE_STATUS = "source_status"
    STATED_SIZE = "stated_size"
    UNSAFE = "unsafe"
    WATERMARK = "watermark"
    AESTHETIC = "aesthetic"
    LANGUAGE = "language"
    # download
    REFUSED_SCHEME = "refused_scheme"
    REFUSED_ADDRESS = "refused_address"
    REFUSED_ROBOTS = "refused_robots"
    OPTED_OUT = "opted_out"
    DNS = "dns"
    CONNECT = "connect"
    TLS = "tls"
    TIMEOUT = "timeout"
    REDIRECTS = "redirects"
    HTTP_STATUS = "http_status"
    TRUNCATED_BODY = "truncated_body"
    TOO_MANY_BYTES = "too_many_bytes"
    TOO_MANY_PIXELS = "too_many_pixels"
    TOO_MANY_FRAMES = "too_many_frames"
    NOT_AN_IMAGE = "not_an_image"
    DECODE = "decode"
    TOO_SMALL = "too_small"
    FETCH = "fetch"
    # embed
    NO_EMBEDDING = "no_embedding"
    # dedup
    DUPLICATE_EXACT = "duplicate_exact"
    DUPLICATE_PERCEPTUAL = "duplicate_perceptual"
    DUPLICATE_SEMANTIC = "duplicate_semantic"
    # select
    NOT_SELECTED = "not_selected"
    NSFW = "nsfw"
    WATERMARKED = "watermarked"
    LOW_AESTHETIC = "low_aesthetic"
    # select and caption
    EXPERT_FAILED = "expert_failed"
    # caption
    ENGINE_ERROR = "engine_error"
    CAPTION_REJECTED = "caption_rejected"
    # any stage
    POISON = "poison"


@dataclass(frozen=True)
class Drop:
    """One row that stops at a stage; `detail` is a short human sentence, never a traceback."""

    uid: str
    url: str
    reason: Reason
    detail: str = ""


LEDGER = pa.schema(
    [
        pa.field("uid", pa.string(), nullable=False),
        pa.field("url", pa.string(), nullable=False),
        pa.field("stage", pa.string(), nullable=False),
        pa.field("reason", pa.string(), nullable=False),
        pa.field("detail", pa.string(), nullable=False),
    ]
)


def ledger_table(stage: str, drops: list[Drop]) -> pa.Table:
    """The ledger rows of one shard, in the order given."""
    return pa.table(
        {
            "uid": [d.uid for d in drops],
            "url": [d.url for d in drops],
            "stage": [stage] * len(drops),
            "reason": [str(d.reason) for d in drops],
            "detail": [d.detail for d in drops],
        },
        schema=LEDGER,
    )

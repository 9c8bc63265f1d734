"""Arrow schemas of what crosses every stage border, with units and coordinate frames in field metadata.

The image frame, everywhere: the picture as a person sees it, EXIF orientation applied, origin in the upper left
corner, x to the right, y down. Normalised coordinates divide x by its width and y by its height.
"""

import pyarrow as pa

from schemas.errors import ContractError


def _field(name: str, dtype: pa.DataType, *, null: bool = False, **meta: str) -> pa.Field:
    return pa.field(name, dtype, nullable=null, metadata=dict(meta.items()) or None)


UID = _field("uid", pa.string(), about="128-bit hex identity, kept from ingest to export")
URL = _field("url", pa.string())
_ALT = _field("alt_text", pa.string(), null=True, about="the web page's own text for the image, verbatim")
_SCORES = [
    _field("punsafe", pa.float32(), null=True, unit="probability", about="stated by the source"),
    _field("pwatermark", pa.float32(), null=True, unit="probability", about="stated by the source"),
    _field("aesthetic", pa.float32(), null=True, unit="score 1..10", about="stated by the source"),
    _field("similarity", pa.float32(), null=True, unit="cosine", about="image-text similarity stated by the source"),
    _field("language", pa.string(), null=True, about="stated by the source, lower case"),
]
_MEASURED = [
    _field("aesthetic_score", pa.float32(), null=True, unit="score, about 1..10", about="of perceive.aesthetic"),
    _field("nsfw_score", pa.float32(), null=True, unit="probability", about="of perceive.nsfw"),
    _field("watermark_score", pa.float32(), null=True, unit="probability", about="of perceive.watermark"),
]
_IMAGE = [
    _field("sha256", pa.string(), about="of the original bytes"),
    _field("format", pa.string(), about="lower-case Pillow format name: jpeg, png, webp, ..."),
    _field("width", pa.int32(), unit="px", frame="image"),
    _field("height", pa.int32(), unit="px", frame="image"),
    _field("orientation", pa.int8(), unit="EXIF 1..8", about="1 where the file states none"),
]
_LOCATION = [
    _field("image_offset", pa.int64(), unit="byte", about="of the first image byte in the shard's images object"),
    _field("image_bytes", pa.int64(), unit="byte"),
]
_CLUSTERED = [
    _field("cluster", pa.int32()),
    _field("centroid_cosine", pa.float32(), unit="cosine", about="to the centroid of its own cluster"),
]
_ERROR = _field("error", pa.string(), null=True, about="why the expert has nothing to say; null where it looked")

INGEST = pa.schema(
    [
        UID,
        URL,
        _ALT,
        _field("width", pa.int32(), null=True, unit="px", about="stated by the source, checked after decoding"),
        _field("height", pa.int32(), null=True, unit="px", about="stated by the source, checked after decoding"),
        *_SCORES,
        _field("source", pa.string(), about="name of the metadata file"),
        _field("source_row", pa.int64(), about="row number in that file, from 0"),
    ]
)

DOWNLOAD = pa.schema([UID, URL, *_IMAGE, _field("phash", pa.uint64(), about="64-bit DCT perceptual hash"), *_LOCATION])

EMBED = pa.schema([UID, _field("embedding", pa.list_(pa.float16()), unit="unit vector", about="fixed size per run")])

CLUSTER = pa.schema(
    [
        UID,
        *_CLUSTERED,
        _field("near_clusters", pa.list_(pa.int32()), about="the next nearest centroids, best first"),
        _field("near_cosines", pa.list_(pa.float32()), unit="cosine", about="to those centroids"),
    ]
)

DEDUP = pa.schema([UID, *_CLUSTERED])

DUPLICATES = pa.schema(
    [
        UID,
        _field("kept_uid", pa.string(), about="the row that suppressed this one"),
        _field("group", pa.string(), about="uid of the group's kept row"),
        _field("kind", pa.string(), about="exact, perceptual or semantic"),
        _field("cosine", pa.float32(), null=True, unit="cosine", about="semantic duplicates only"),
        _field("hamming", pa.int16(), null=True, unit="bit", about="perceptual duplicates only"),
    ]
)

SCORE_COLUMNS = {"aesthetic": "aesthetic_score", "nsfw": "nsfw_score", "watermark": "watermark_score"}
"""Columns of SELECT by the expert that measures them."""

SELECT = pa.schema(
    [
        UID,
        URL,
        _ALT,
        *_IMAGE,
        *_CLUSTERED,
        _field("rank", pa.int32(), about="place in its cluster by the ranking key, from 0"),
        *_SCORES,
        *_MEASURED,
        _field("image_shard", pa.string(), about="download shard whose images object holds the bytes"),
        *_LOCATION,
    ]
)

# Of all rows but those that a limit on a score stopped.
TAKING_ORDER = pa.schema(
    [
        UID,
        _field("cluster", pa.int32()),
        _field("rank", pa.int32(), about="place in its cluster by the ranking key, from 0"),
        _field("place", pa.int64(), null=True, about="in the order of taking, from 0; null where a cap cut the row"),
    ]
)

BOX = pa.struct(
    [
        _field("label", pa.string()),
        _field("score", pa.float32(), unit="confidence 0..1"),
        _field("x1", pa.float32(), unit="fraction", frame="image, normalised"),
        _field("y1", pa.float32(), unit="fraction", frame="image, normalised"),
        _field("x2", pa.float32(), unit="fraction", frame="image, normalised"),
        _field("y2", pa.float32(), unit="fraction", frame="image, normalised"),
        _field("anchor", pa.int32(), about="rows of one expert and anchor are one box under several labels"),
    ]
)
TAG = pa.struct(
    [
        _field("tag", pa.string()),
        _field("score", pa.float32(), unit="confidence 0..1"),
        _field(
            "threshold", pa.float32(), null=True, about="of this tag by the checkpoint's own list, where it has one"
        ),
    ]
)
OBJECT_DEPTH = pa.struct(
    [
        _field("expert", pa.string(), about="whose box"),
        _field("anchor", pa.int32(), about="of that box"),
        _field("nearness", pa.float32(), unit="fraction", about="0 is the farthest place of the image, 1 the nearest"),
    ]
)
TEXT_LINE = pa.struct(
    [
        _field("text", pa.string(), about="verbatim, in its own script"),
        _field("score", pa.float32(), unit="confidence 0..1"),
        _field(
            "polygon",
            pa.list_(pa.float32()),
            unit="fraction",
            frame="image, normalised",
            about="x1 y1 .. x4 y4, clockwise from the text's upper left corner",
        ),
    ]
)

# Experts store what they measured, down to a floor; thresholds are applied when a row is read (Expert.decide).
TAGS_PRIOR = pa.schema([UID, _field("tags", pa.list_(TAG), about="best first"), _ERROR])
BOXES_PRIOR = pa.schema([UID, _field("boxes", pa.list_(BOX), about="best first"), _ERROR])
SCORE_PRIOR = pa.schema([UID, _field("score", pa.float32(), null=True), _ERROR])
OCR_PRIOR = pa.schema([UID, _field("lines", pa.list_(TEXT_LINE), about="reading order"), _ERROR])
DEPTH_PRIOR = pa.schema(
    [
        UID,
        _field(
            "disparity_png",
            pa.binary(),
            null=True,
            unit="relative inverse depth: 0 is disparity_min, 65535 is disparity_max; larger is nearer",
            frame="image, scaled",
            about="16-bit greyscale PNG",
        ),
        _field("disparity_min", pa.float32(), null=True, unit="model output"),
        _field("disparity_max", pa.float32(), null=True, unit="model output"),
        _field("objects", pa.list_(OBJECT_DEPTH), about="boxes of other experts, where those were given"),
        _ERROR,
    ]
)
FLORENCE_PRIOR = pa.schema(
    [
        UID,
        _field("caption", pa.string(), null=True),
        _field("lines", pa.list_(TEXT_LINE), about="OCR with region; score is 1, the model states none"),
        _field("regions", pa.list_(BOX), about="dense region captions; score is 1, the model states none"),
        _field("phrases", pa.list_(BOX), about="boxes of phrases that it was given; score is 1, the model states none"),
        _ERROR,
    ]
)

FINDING = pa.struct([_field("kind", pa.string()), _field("detail", pa.string())])
CAPTION = pa.schema(
    [
        UID,
        _field("caption", pa.string()),
        _field("structured", pa.string(), null=True, about="the whole answer, JSON, where caption.structured is set"),
        _field("repaired", pa.bool_(), about="the second answer, after the findings were given back to the model"),
        _field("findings", pa.list_(FINDING), about="what the checks say about this caption"),
        _field("finish_reason", pa.string(), about="as the engine states it"),
        _field("prompt_tokens", pa.int32(), unit="token"),
        _field("cached_tokens", pa.int32(), unit="token", about="prompt tokens served from the prefix cache"),
        _field("completion_tokens", pa.int32(), unit="token"),
    ]
)

PACKAGE = pa.schema(
    [
        UID,
        URL,
        _field("caption", pa.string()),
        _field("format", pa.string(), about="lower-case Pillow format name of the image member"),
        _field("width", pa.int32(), unit="px", frame="image"),
        _field("height", pa.int32(), unit="px", frame="image"),
        _field("image_member", pa.string(), about="member name in the shard's tar"),
        _field("image_offset", pa.int64(), unit="byte", about="of the image bytes in the shard's tar"),
        _field("image_bytes", pa.int64(), unit="byte"),
        _field("sha256", pa.string(), about="of the image member"),
    ]
)


def check_table(table: pa.Table, schema: pa.Schema, what: str) -> None:
    """Hold a table against its schema.

    Names, order and types must be equal; a declared list also takes a fixed-size list of the same value type (an
    embedding's width is the model's). Non-null fields hold no nulls.

    Raises:
        ContractError: naming the first difference.
    """
    if table.schema.names != schema.names:
        raise ContractError(f"{what}: columns are {table.schema.names}, the contract says {schema.names}")
    for field in schema:
        column = table.column(field.name)
        got, want = column.type, field.type
        sized = pa.types.is_fixed_size_list(got) and pa.types.is_list(want) and got.value_type == want.value_type
        if got != want and not sized:
            raise ContractError(f"{what}: column {field.name} is {got}, the contract says {want}")
        if not field.nullable and column.null_count:
            raise ContractError(f"{what}: column {field.name} has {column.null_count} nulls, the contract allows none")

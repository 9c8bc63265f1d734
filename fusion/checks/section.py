"""What the checks can be told."""

from typing import Literal

from pydantic import Field

from schemas.section import Section


class ChecksSection(Section):
    """Where the checks draw their lines."""

    min_words: int = Field(20, ge=0, le=1000, description="fewer words are a finding")
    max_words: int = Field(320, ge=1, le=10_000, description="more words are a finding")
    max_repeats: int = Field(3, ge=1, le=100, description="times a phrase may stand in a row before it is a loop")
    language: Literal["en", "de", "fr", "es", "it", "pt", "nl"] | None = Field(
        "en",
        description="that captions must be in; null judges none. What is said of objects is read in English alone",
    )
    quote_distance: float = Field(
        0.34,
        ge=0,
        le=1,
        description="edits per character up to which quoted text counts as a misquotation of what was read; beyond, as "
        "text that nobody read",
    )
    left_out_letters: int = Field(
        4, ge=1, le=1000, description="letters and digits of a read line from which a caption must quote it"
    )
    left_out_score: float = Field(
        0.6, ge=0, le=1, description="score of a read line from which a caption must quote it"
    )
    left_out_lines: int = Field(
        6, ge=0, le=1000, description="lines that a caption must quote, the tallest; 0 asks for none"
    )
    open_score: float = Field(
        0.6,
        ge=0,
        le=1,
        description="a box of a lower score that only the open set has is no thing where the closed set has the class",
    )
    sure_score: float = Field(
        0.8, ge=0, le=1, description="from this score one detector's box is a thing for sure, without the other's"
    )
    count_limit: int = Field(6, ge=0, le=1000, description="greater numbers of things are not held against boxes")
    side_margin: float = Field(
        0.08,
        ge=0,
        le=0.5,
        description="share of the image's width or height by which a thing's middle may lie beyond the image's middle "
        "and still be said to be on the other side",
    )
    place_margin: float = Field(
        0.04,
        ge=0,
        le=1,
        description="share of the image by which the middles of two things may lie the wrong way round to each other",
    )
    depth_margin: float = Field(
        0.1,
        ge=0,
        le=1,
        description="share of the nearer one's nearness by which two things may lie the wrong way round to each other",
    )

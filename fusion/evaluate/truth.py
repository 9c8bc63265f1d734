"""What is true of a picture: the record that captions are held against, one JSON object a line."""

import json
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field, ValidationError, field_validator, model_validator

from fusion.evaluate.lexicon import Relation
from fusion.evaluate.vocabulary import Vocabulary
from fusion.priors import Priors
from schemas.errors import RequestError
from schemas.section import Section

Box = Annotated[list[Annotated[float, Field(ge=0, le=1)]], Field(min_length=4, max_length=4)]
"""x1, y1, x2, y2 as fractions of the picture's width and height."""


class TrueObject(Section):
    """One thing that is in the picture."""

    category: str = Field(description="of the vocabulary")
    colour: str | None = Field(None, description="of the vocabulary; null: not known, and any is taken for right")
    attributes: dict[str, str | None] = Field(
        {},
        description="kind to value; null: nothing is to be said, and anything said is wrong; a kind that is not "
        "listed is not judged",
    )
    box: Box | None = Field(None, description="without one, no left or right is judged")
    distance: float | None = Field(
        None, ge=0, description="from the camera, in any unit or as a rank; without one, no near or far is judged"
    )


class NamedThing(Section):
    """Something that is not there, though somebody says so."""

    category: str = Field(description="of the vocabulary")
    colour: str | None = Field(None, description="of the vocabulary, where it was said")


class TruthRow(Section):
    """One picture."""

    uid: str = Field(min_length=1, description="by which a caption belongs to it")
    image: str | None = Field(None, description="path, from the folder `images`; for captions made here and CLIP score")
    caption: str | None = Field(None, description="a right caption; not used, so that training rows may be truth rows")
    alt_text: str | None = Field(None, description="what the web page says")
    priors: dict[str, dict[str, Any]] = Field(
        {}, description="by expert, its row as `package` writes it (schemas.tables), decided"
    )
    objects: list[TrueObject] = Field([], description="everything of the vocabulary's categories")
    texts: list[str] = Field([], description="texts that can be read in the picture, as they are written")
    counts: dict[str, Annotated[int, Field(ge=0)]] | None = Field(
        None, description="things of a category, where `objects` does not list all of them"
    )
    relations: list[tuple[int, Relation, int]] = Field(
        [],
        description="that a caption should state: numbers in `objects`, and left of, right of, nearer than, farther "
        "than",
    )
    false_claims: list[NamedThing] = Field([], description="what the alt text names and the picture does not show")
    false_boxes: list[str] = Field(
        [], description="categories of boxes that the prompt shows and that hold no object of that category of its own"
    )

    @field_validator("priors")
    @classmethod
    def _with_error(cls, priors: dict[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
        return {expert: {"error": None, **row} for expert, row in priors.items()}

    @model_validator(mode="after")
    def _relations_of_objects(self) -> "TruthRow":
        for subject, _, other in self.relations:
            if not (0 <= subject < len(self.objects) and 0 <= other < len(self.objects)) or subject == other:
                raise ValueError(f"relations: {subject} and {other} are no two of the {len(self.objects)} objects")
        return self

    def count(self, category: str) -> int:
        """Things of a category that are there."""
        listed = sum(one.category == category for one in self.objects)
        return listed if self.counts is None else self.counts.get(category, listed)

    def seen(self) -> Priors:
        return Priors.of(self.priors)


def read_truth(path: Path, vocabulary: Vocabulary) -> list[TruthRow]:
    """The rows of a JSONL file.

    Raises:
        RequestError: the file is missing or empty, a line is not such a record, two have one uid, or one names a
            category, colour or attribute that the vocabulary does not have. With file and line.
    """
    if not path.is_file():
        raise RequestError(f"There is no truth file {path} (evaluate.truth). docs/evaluating.md says what one holds.")
    rows: dict[str, TruthRow] = {}
    with path.open(encoding="utf-8") as file:
        for number, line in enumerate(file, 1):
            if not line.strip():
                continue
            row = _row(line, f"{path}, line {number}")
            _check_words(row, vocabulary, f"{path}, line {number}")
            if row.uid in rows:
                raise RequestError(
                    f"{path}, line {number}: the uid {row.uid} was there before. A uid is one picture's."
                )
            rows[row.uid] = row
    if not rows:
        raise RequestError(f"The truth file {path} has no rows.")
    return list(rows.values())


def _row(line: str, where: str) -> TruthRow:
    try:
        return TruthRow.model_validate(json.loads(line))
    except json.JSONDecodeError as error:
        raise RequestError(f"{where}: not JSON ({error.msg} at column {error.colno}).") from None
    except ValidationError as error:
        faults = "; ".join(f"{'.'.join(map(str, one['loc'])) or 'row'}: {one['msg']}" for one in error.errors()[:5])
        raise RequestError(f"{where} is no truth record: {faults}.") from None


def _check_words(row: TruthRow, vocabulary: Vocabulary, where: str) -> None:
    named = [("categories", name) for name in (*(row.counts or {}), *row.false_boxes)]
    things: list[TrueObject | NamedThing] = [*row.objects, *row.false_claims]
    for one in things:
        named.append(("categories", one.category))
        if one.colour is not None:
            named.append(("colours", one.colour))
    for kind, name in named:
        if name not in getattr(vocabulary, kind):
            raise RequestError(
                f"{where}: {name!r} is not among the vocabulary's {kind}. Add it there, or mend the row."
            )
    for item in row.objects:
        for kind, value in item.attributes.items():
            if kind not in vocabulary.attributes:
                raise RequestError(f"{where}: the vocabulary has no kind of attribute {kind!r}.")
            if value is not None and value not in vocabulary.attributes[kind]:
                raise RequestError(f"{where}: {value!r} is not among the vocabulary's attributes.{kind}.")

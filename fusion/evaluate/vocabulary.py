"""The words by which captions are understood: what counts as naming a category, a colour, an attribute."""

from itertools import chain
from pathlib import Path

import yaml
from pydantic import Field, field_validator, model_validator

from schemas.errors import RequestError
from schemas.section import Section
from schemas.settings import validated

Names = dict[str, list[str]]
"""A name to its other names. The name itself is one of them."""


class Vocabulary(Section):
    """What captions are searched for. Words of no vocabulary are passed over, so a caption may say more than is true.

    Phrases may be of several words. Plurals are known by rule (box, boxes; leaf, leaves; person, people); another one
    is given with a slash: `octopus/octopodes`. A word may be a category and a colour at once (orange): before a noun
    and after a verb it is the colour.
    """

    categories: Names = Field(min_length=1, description="category to the other nouns that mean it")
    colours: Names = Field({}, description="colour to its other names: red: [scarlet, crimson]")
    attributes: dict[str, Names] = Field(
        {}, description="kind to its values and the phrases that say them: size: {small: [little, tiny]}"
    )
    ignored: list[str] = Field(
        [], description="phrases that hold a category's word and mean something else: car park, ball game"
    )

    @field_validator("categories", "colours")
    @classmethod
    def _plain(cls, names: Names) -> Names:
        return {_folded(name): [_folded(one) for one in others] for name, others in names.items()}

    @field_validator("attributes")
    @classmethod
    def _plain_kinds(cls, kinds: dict[str, Names]) -> dict[str, Names]:
        return {kind: cls._plain(names) for kind, names in kinds.items()}

    @field_validator("ignored")
    @classmethod
    def _plain_phrases(cls, phrases: list[str]) -> list[str]:
        return [_folded(phrase) for phrase in phrases]

    @model_validator(mode="after")
    def _one_meaning(self) -> "Vocabulary":
        nouns, adjectives = _phrases(self.categories), _phrases(self.colours)
        for names in self.attributes.values():
            adjectives += _phrases(names)
        for phrases in ([*nouns, *self.ignored], adjectives):
            twice = sorted({one for one in phrases if phrases.count(one) > 1})
            if twice:
                raise ValueError(f"{', '.join(twice[:5])}: listed twice, so it would have two meanings")
        return self


def read_vocabulary(path: Path) -> Vocabulary:
    """The vocabulary of a YAML or JSON file.

    Raises:
        RequestError: the file is missing, is no mapping, or a phrase has two meanings.
    """
    if not path.is_file():
        raise RequestError(f"There is no vocabulary {path} (evaluate.vocabulary). docs/evaluating.md shows one.")
    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise RequestError(f"The vocabulary {path} is not valid YAML: {' '.join(str(error).split())}.") from None
    if not isinstance(values, dict):
        raise RequestError(f"The vocabulary {path} must hold a mapping (categories, colours, attributes, ignored).")
    return validated(Vocabulary, values, str(path))


def _phrases(names: Names) -> list[str]:
    return [*names, *chain.from_iterable(names.values())]


def _folded(phrase: str) -> str:
    folded = " ".join(phrase.casefold().split())
    if not folded:
        raise ValueError("an empty name")
    return folded

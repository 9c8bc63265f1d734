"""Languages are told apart by script and small words."""

import pytest

from fusion.checks import Caption, ChecksSection, FindingKind, check
from fusion.priors import Priors

ENGLISH = "A brown dog lies on the carpet in front of a sofa, and two cups stand beside it."
OTHERS = {
    "de": "Ein brauner Hund liegt auf dem Teppich vor einem Sofa, und daneben stehen zwei Tassen.",
    "fr": "Un chien brun est couché sur le tapis devant un canapé, et deux tasses se trouvent à côté.",
    "es": "Un perro marrón está sobre la alfombra delante de un sofá, y al lado hay dos tazas.",
    "it": "Un cane marrone è sul tappeto davanti a un divano, e accanto ci sono due tazze.",
    "pt": "Um cão castanho está no tapete em frente de um sofá, e ao lado há duas chávenas.",
    "nl": "Een bruine hond ligt op het tapijt voor een bank, en ernaast staan twee kopjes.",
}


def foreign(text: str, language: str | None = "en") -> bool:
    section = ChecksSection.model_validate({"language": language})
    return FindingKind.WRONG_LANGUAGE in [one.kind for one in check(Caption(text, "stop"), Priors(), section)]


@pytest.mark.parametrize("language", OTHERS)
def test_each_language_is_its_own(language: str) -> None:
    assert foreign(OTHERS[language])
    assert foreign(f"{ENGLISH} {OTHERS[language]}")
    assert not foreign(OTHERS[language], language)
    assert foreign(ENGLISH, language)
    assert not foreign(OTHERS[language], None)


@pytest.mark.parametrize(
    "text", ["一只棕色的狗躺在沙发前面。", "Коричневая собака лежит на ковре.", "كلب بني على السجادة."]
)
def test_other_scripts(text: str) -> None:
    assert foreign(f"{ENGLISH} {text}")
    assert not foreign(f'{ENGLISH} A sign says "{text}".')


@pytest.mark.parametrize(
    "text",
    [
        ENGLISH,
        'The café "Chez le chat de la rue" serves crème brûlée à la carte.',
        "A man in a São Paulo shirt stands near a Mercedes van der Berg truck.",
        "Las Vegas and Los Angeles are on the map.",
        "On a table are pens; in it, a man, a die, a van.",
    ],
)
def test_english_with_names_is_english(text: str) -> None:
    assert not foreign(text)

"""What is read out of captions, in the styles in which people and models write them."""

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fusion.evaluate.claims import Claims
from fusion.evaluate.reader import ClaimReader
from fusion.evaluate.vocabulary import Vocabulary

VOCABULARY = Vocabulary(
    categories={
        "ball": ["sphere"],
        "crate": ["box", "wooden crate"],
        "tree": [],
        "car": ["automobile"],
        "house": [],
        "sign": ["signpost"],
        "person": ["man", "woman"],
        "orange": [],
        "leaf": [],
        "octopus/octopodes": [],
    },
    colours={"red": ["scarlet"], "blue": ["navy blue"], "green": [], "white": [], "orange": [], "yellow": []},
    attributes={
        "size": {"small": ["little", "tiny"], "large": ["big", "huge"]},
        "side": {"left": ["on the left"], "right": ["on the right"], "centre": ["in the centre"]},
    },
    ignored=["car park"],
)
READER = ClaimReader(VOCABULARY)


def named(claims: Claims) -> list[str]:
    """Objects as `colour category`, sorted; `?` for no colour, several colours with a slash."""
    return sorted(f"{'/'.join(sorted(o.colours)) or '?'} {o.category}" for o in claims.objects)


def objects(text: str) -> list[str]:
    return named(READER.read(text))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("A red ball.", ["red ball"]),
        ("a RED Ball, a Blue box", ["blue crate", "red ball"]),
        ("Red ball on grass. Blue crate.", ["blue crate", "red ball"]),
        ("The picture shows a shiny red ball and a weathered old wooden crate.", ["? crate", "red ball"]),
        ("A small, red, round ball", ["red ball"]),
        ("a navy blue car", ["blue car"]),
        ("two red balls and a green tree", ["green tree", "red ball", "red ball"]),
        ("3 boxes, all blue", ["blue crate"] * 3),
        ("There are two large red balls.", ["red ball", "red ball"]),
        ("a pair of scarlet spheres", ["red ball", "red ball"]),
        ("leaves, people and octopodes", ["? leaf", "? leaf", "? octopus", "? octopus", "? person", "? person"]),
        (
            "A dark-red car, a bright-blue ball and a ball-shaped red-and-white house",
            ["blue ball", "red car", "red/white house"],
        ),
        ("a red and white ball", ["red/white ball"]),
        ("red and blue balls", ["blue ball", "red ball"]),
        ("a red and a blue ball", ["blue ball", "red ball"]),
        ("The sky is blue, tall trees sway.", ["? tree", "? tree"]),
        ("one red ball and one blue one", ["blue ball", "red ball"]),
        ("two balls, one red and one blue", ["blue ball", "red ball"]),
        ("Two balls lie there. One is red and the other is blue.", ["blue ball", "red ball"]),
        ("Three cars: a red car, a blue car and a white one.", ["blue car", "red car", "white car"]),
        ("There are two balls. A red ball is here and a blue ball is there.", ["blue ball", "red ball"]),
        ("A ball lies there. It is red.", ["red ball"]),
        ("The ball is red, and the crate is blue.", ["blue crate", "red ball"]),
        ("A ball and a crate are red.", ["red ball", "red crate"]),
        ("The ball next to the crate is red.", ["? crate", "red ball"]),
        ("a crate that is blue, and a ball, which looks very red", ["blue crate", "red ball"]),
        ("a man in red with a ball painted bright blue", ["blue ball", "red person"]),
        ("The house is not red but white.", ["white house"]),
        ("a car with white doors", ["? car"]),
        ("an orange car and an orange", ["? orange", "orange car"]),
        ("The car is orange; an orange lies on it.", ["? orange", "orange car"]),
        ("a tree house", ["? house"]),
        ("a car in a car park", ["? car"]),
        ("The woman's red ball", ["? person", "red ball"]),
    ],
)
def test_objects_and_colours(text: str, expected: list[str]) -> None:
    assert objects(text) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("A red ball stands on the left. The red ball is large.", ["red ball"]),
        ("A red ball and a blue ball. The blue ball is large, the red one is small.", ["blue ball", "red ball"]),
        ("A red ball. Another red ball.", ["red ball", "red ball"]),
        ("A red ball on the left. A red ball on the right.", ["red ball", "red ball"]),
        ("Two balls. One ball is large. The other ball is small.", ["? ball", "? ball"]),
        ("Two trees stand there. The trees are green. Both trees are large.", ["green tree", "green tree"]),
        ("A car. Its colour is red; this car is large.", ["? car"]),
    ],
)
def test_the_same_thing_again_is_not_another(text: str, expected: list[str]) -> None:
    assert objects(text) == expected


@pytest.mark.parametrize(
    ("text", "there", "denied"),
    [
        ("There is no ball, but a crate.", ["? crate"], ["ball"]),
        ("No balls or crates can be seen.", [], ["ball", "crate"]),
        ("A house without a ball, a crate or a tree", ["? house"], ["ball", "crate", "tree"]),
        ("There is neither a ball nor a crate.", [], ["ball", "crate"]),
        ("There isn't a ball. There are not any crates.", [], ["ball", "crate"]),
        ("I can't see any balls; no sign of a car.", [], ["ball", "car"]),
        ("The street is free of cars and has no trees and no people.", [], ["car", "tree", "person"]),
        ("A ball rather than a crate", ["? ball"], ["crate"]),
        ("zero balls", [], ["ball"]),
        ("The ball is not near the crate.", ["? ball", "? crate"], []),
        ("not only a ball but a crate", ["? ball", "? crate"], []),
        ("no fewer than two balls", ["? ball", "? ball"], []),
        ("a cloud shaped like a car, as big as a house", [], []),
        ("a statue of a person beside a poster of a car; the shadow of the tree", ["? tree"], []),
    ],
)
def test_what_is_said_not_to_be_there_is_not_claimed(text: str, there: list[str], denied: list[str]) -> None:
    claims = READER.read(text)
    assert named(claims) == sorted(there)
    assert list(claims.denied) == denied


def test_text_on_signs_names_nothing() -> None:
    claims = READER.read("A sign says \"RED BALL\", “Car Wash 24”, «tree» and the word 'house'. It's a man's car.")
    assert claims.quotes == ("RED BALL", "Car Wash 24", "tree", "house")
    assert named(claims) == ["? car", "? person", "? sign"]


@pytest.mark.parametrize(
    ("text", "attributes"),
    [
        ("a small red ball on the left", {"size": "small", "side": "left"}),
        ("On the left, there is a huge ball.", {"size": "large", "side": "left"}),
        ("A ball stands in the grass on the right.", {"side": "right"}),
        ("A crate is on the left and on the right is a tiny ball.", {"size": "small", "side": "right"}),
        ("A crate lies on the left, in the centre a ball.", {"side": "centre"}),
        ("A ball. It is on the left.", {"side": "left"}),
        ("A ball lies in the grass, and the crate is on the right.", {}),
    ],
)
def test_attributes_belong_to_their_thing(text: str, attributes: dict[str, str]) -> None:
    (ball,) = (one for one in READER.read(text).objects if one.category == "ball")
    assert ball.attributes == attributes


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("A ball lies to the left of a crate.", ["ball left of crate"]),
        ("A ball, to the right of the crate, is red.", ["ball right of crate"]),
        ("To the left of the house there is a tree.", ["tree left of house"]),
        ("Behind the house, a car is parked.", ["car farther than house"]),
        ("In front of it stands a tree.", []),
        ("A house. In front of it stands a tree.", ["tree nearer than house"]),
        ("A house stands there; to its right is a tree.", ["tree right of house"]),
        ("The house has a tree to its left.", ["tree left of house"]),
        (
            "The ball is closer to the camera than the crate, to the left of it.",
            ["ball left of crate", "ball nearer than crate"],
        ),
        ("The ball next to the crate is behind the tree.", ["ball farther than tree"]),
        (
            "A car farther away than the tree and to the right of the house",
            ["car farther than tree", "car right of house"],
        ),
        ("The ball is not behind the tree.", []),
        ("A ball on the left of the picture", []),
    ],
)
def test_relations(text: str, expected: list[str]) -> None:
    claims = READER.read(text)
    found = [
        f"{claims.objects[one.subject[0]].category} {one.relation} {claims.objects[one.object[0]].category}"
        for one in claims.relations
    ]
    assert sorted(found) == expected


def test_a_caption_of_another_style() -> None:
    text = """This image captures a quiet street scene. Dominating the centre is a large white house with a red roof,
    and two trees flank it: one of them leans towards the house. A man in a blue coat walks past; behind him there's a
    parked car — scarlet, freshly washed. On the left you'll notice three small boxes, two of which are green. There
    are no balls anywhere, and nothing else resembles a sign."""
    claims = READER.read(text)
    names = [one.category for one in claims.objects]
    assert {name: names.count(name) for name in set(names)} == {
        "house": 1,
        "tree": 2,
        "person": 1,
        "car": 1,
        "crate": 3,
    }
    assert [sorted(one.colours) for one in claims.objects if one.category in ("house", "car")] == [["white"], ["red"]]
    assert claims.denied == ("ball",)


@given(st.text(max_size=300))
def test_any_text_can_be_read(text: str) -> None:
    READER.read(text)


_KNOWN = """
a the no two three red blue ball balls crate tree trees one ones other another is are not and or , : . without of in
behind left right to its it on that which orange oranges small big car sign
"""
WORDS = _KNOWN.split()


@given(st.lists(st.sampled_from(WORDS), max_size=25))
def test_any_order_of_known_words_can_be_read(words: list[str]) -> None:
    claims = READER.read(" ".join(words))
    assert all(i < len(claims.objects) for one in claims.relations for i in (*one.subject, *one.object))
    assert all(i < len(claims.objects) for i in claims.more)


NOUNS = {
    "ball": ("ball", "balls"),
    "crate": ("box", "boxes"),
    "tree": ("tree", "trees"),
    "person": ("man", "men"),
    "leaf": ("leaf", "leaves"),
}
COLOURS = ("red", "blue", "green", "white", "orange")
COUNTED = ("", "a", "two", "three", "four")
OPENINGS = ("", "The image shows ", "There is ", "We see ", "In the foreground stands ", "Look closely: ")
TAILS = ("", " in the grass", " standing upright", " near the river", ", slightly blurred", " with a strange shadow")
JOINTS = (". ", "; ", ". Also ", ".\n", ". Nearby stands ")


@st.composite
def scenes(draw: st.DrawFn) -> tuple[str, list[str], list[str]]:
    """A caption in some style, the objects that it tells of, and the categories that it denies."""
    rng = draw(st.randoms(use_true_random=False))
    kinds = draw(st.lists(st.sampled_from(sorted(NOUNS)), unique=True, max_size=4))
    parts: list[str] = []
    expected: list[str] = []
    for kind in kinds:
        colours = rng.sample(COLOURS, rng.randint(1, 2))
        for colour in colours:
            count = rng.randint(1, 4)
            expected += [f"{colour} {kind}"] * count
            parts.append(_phrase(kind, colour, count, rng) + rng.choice(TAILS))
    denied = [kind for kind in sorted(NOUNS) if kind not in kinds and rng.random() < 0.4]
    parts += [
        rng.choice(("there is no {}", "there are no {}s", "it has no {}")).format(_singular(kind))
        for kind in denied
        if kind in ("ball", "tree")
    ]
    denied = [kind for kind in denied if kind in ("ball", "tree")]
    text = "".join(rng.choice(OPENINGS) + part + rng.choice(JOINTS) for part in parts)
    return text, sorted(expected), denied


def _singular(kind: str) -> str:
    return NOUNS[kind][0]


def _phrase(kind: str, colour: str, count: int, rng: random.Random) -> str:
    """A noun phrase, or a clause, that tells of `count` things of a colour."""
    single, many = NOUNS[kind]
    strange = rng.choice(("", "shiny ", "old wooden ", "small "))
    if count == 1:
        article = "an" if not strange and colour[0] in "aeiou" else "a"
        return rng.choice(
            (
                f"{article} {strange}{colour} {single}",
                f"1 {strange}{colour} {single}",
                f"a {strange}{single} that is {colour}",
            )
        )
    number = rng.choice((COUNTED[count], str(count)))
    return rng.choice(
        (
            f"{number} {strange}{colour} {many}",
            f"{number} {strange}{many} that are all {colour}",
            f"{number} {strange}{many}, all {colour}",
        )
    )


@given(scenes())
def test_what_a_caption_of_any_style_tells_of_is_found(scene: tuple[str, list[str], list[str]]) -> None:
    text, expected, denied = scene
    claims = READER.read(text)
    assert named(claims) == expected, text
    assert sorted(claims.denied) == denied, text

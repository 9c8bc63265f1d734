"""Captions of a scene that are right, written from its truth."""

from demo.backgrounds import SETTINGS
from demo.truth import ObjectTruth, SceneTruth

NUMBERS = ("no", "one", "two", "three", "four", "five", "six", "seven", "eight")
SIDES = {"left": "on the left", "centre": "in the centre", "right": "on the right"}
DEPTHS = {"near": "in the foreground", "middle": "in the middle distance", "far": "in the background"}
DENSE_SIDES = SIDES | {"centre": "near the centre"}
_LEFT, _RIGHT = 0.36, 0.64
_NEAR, _FAR = 2 / 3, 0.4


def dense_caption(truth: SceneTruth) -> str:
    """Every object with its colour, place and depth, every sign's text, and how the nearest two lie to each other."""
    sentences = [f"The image shows {SETTINGS[truth.setting].phrase}."]
    count = len(truth.objects)
    if count:
        verb, plural = ("is", "") if count == 1 else ("are", "s")
        sentences.append(f"There {verb} {NUMBERS[count]} object{plural} in view.")
    sentences += [_sentence(o, truth) for o in truth.objects]
    if count >= 2:
        sentences.append(_relation(truth.objects[0], truth.objects[1]))
    return " ".join(sentences)


def brief_caption(truth: SceneTruth) -> str:
    """The setting, and of every object colour, category, side and depth."""
    sentences = [f"The image shows {SETTINGS[truth.setting].phrase}."]
    for item in truth.objects:
        place = f"{SIDES[side_of(item, truth)]} {DEPTHS[depth_of(item, truth)]}"
        sentences.append(_capital(f"{with_article(f'{item.colour} {item.category}')} {place}."))
    return " ".join(sentences)


def name(item: ObjectTruth) -> str:
    """As a caption calls an object, without its article: `small red ball`, or `red ball` for a medium one."""
    size = "" if item.size == "medium" else f"{item.size} "
    return f"{size}{item.colour} {item.category}"


def with_article(phrase: str) -> str:
    return ("an " if phrase[0] in "aeiou" else "a ") + phrase


def side_of(item: ObjectTruth, truth: SceneTruth) -> str:
    """left, centre or right, by the middle of what is seen of it."""
    place = _middle(item) / truth.width
    return "left" if place < _LEFT else "right" if place > _RIGHT else "centre"


def depth_of(item: ObjectTruth, truth: SceneTruth) -> str:
    """near, middle or far, by the row on which it stands between the horizon and the lower edge."""
    share = (item.full_box[3] - truth.horizon) / (truth.height - truth.horizon)
    return "near" if share > _NEAR else "middle" if share > _FAR else "far"


def _sentence(item: ObjectTruth, truth: SceneTruth) -> str:
    text = f"{with_article(name(item))} stands {DEPTHS[depth_of(item, truth)]} {DENSE_SIDES[side_of(item, truth)]}"
    if item.occlusion > 0.05:
        text += ", partly hidden by something nearer"
    if item.text is not None:
        text += f', and it reads "{item.text}"'
    return _capital(text) + "."


def _capital(text: str) -> str:
    return text[0].upper() + text[1:]


def _relation(near: ObjectTruth, far: ObjectTruth) -> str:
    where = "left" if _middle(near) < _middle(far) else "right"
    first, second = f"{near.colour} {near.category}", f"{far.colour} {far.category}"
    return f"The {first} is closer to the camera than the {second}, to the {where} of it."


def _middle(item: ObjectTruth) -> float:
    return (item.visible_box[0] + item.visible_box[2]) / 2

"""A dense caption of a scene that is right, written from its truth."""

from demo.backgrounds import SETTINGS
from demo.truth import ObjectTruth, SceneTruth

_NUMBERS = ("no", "one", "two", "three", "four", "five", "six", "seven", "eight")
_LEFT, _RIGHT = 0.36, 0.64


def dense_caption(truth: SceneTruth) -> str:
    """Every object with its colour, place and depth, every sign's text, and how the nearest two lie to each other."""
    sentences = [f"The image shows {SETTINGS[truth.setting].phrase}."]
    count = len(truth.objects)
    if count:
        verb, plural = ("is", "") if count == 1 else ("are", "s")
        sentences.append(f"There {verb} {_NUMBERS[count]} object{plural} in view.")
    sentences += [_sentence(o, truth) for o in truth.objects]
    if count >= 2:
        sentences.append(_relation(truth.objects[0], truth.objects[1]))
    return " ".join(sentences)


def name(item: ObjectTruth) -> str:
    """As a caption calls an object, without its article: `small red ball`, or `red ball` for a medium one."""
    size = "" if item.size == "medium" else f"{item.size} "
    return f"{size}{item.colour} {item.category}"


def with_article(phrase: str) -> str:
    return ("an " if phrase[0] in "aeiou" else "a ") + phrase


def side(item: ObjectTruth, truth: SceneTruth) -> str:
    """Where its visible part's middle lies: `on the left`, `near the centre` or `on the right`."""
    place = _middle(item) / truth.width
    return "on the left" if place < _LEFT else "on the right" if place > _RIGHT else "near the centre"


def depth(item: ObjectTruth, truth: SceneTruth) -> str:
    """By the row on which it stands: thirds of the ground between the horizon and the lower edge."""
    share = (item.full_box[3] - truth.horizon) / (truth.height - truth.horizon)
    return "in the foreground" if share > 2 / 3 else "in the middle distance" if share > 0.4 else "in the background"


def _sentence(item: ObjectTruth, truth: SceneTruth) -> str:
    text = f"{with_article(name(item))} stands {depth(item, truth)} {side(item, truth)}"
    if item.occlusion > 0.05:
        text += ", partly hidden by something nearer"
    if item.text is not None:
        text += f', and it reads "{item.text}"'
    return text[0].upper() + text[1:] + "."


def _relation(near: ObjectTruth, far: ObjectTruth) -> str:
    where = "left" if _middle(near) < _middle(far) else "right"
    first, second = f"{near.colour} {near.category}", f"{far.colour} {far.category}"
    return f"The {first} is closer to the camera than the {second}, to the {where} of it."


def _middle(item: ObjectTruth) -> float:
    return (item.visible_box[0] + item.visible_box[2]) / 2

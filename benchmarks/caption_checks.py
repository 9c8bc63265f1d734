"""The caption checks: faults planted into right captions of rendered scenes, found and falsely found.

    python -m benchmarks.caption_checks [--json] [--scenes N] [--seed S] [--split test]

Everything is held against priors that are the truth and against priors as wrong as the demo's experts are
(`demo.captioner.noise.MEASURED`). Settings were chosen on the validation split; `test` is what is reported.
"""

import argparse
import json
import random
import re
import statistics
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from rich.console import Console
from rich.table import Table

from benchmarks.machine import machine
from demo.captioner.noise import MEASURED, DetectorNoise, NoiseModel, noisy_priors
from demo.captions import DENSE_SIDES, DEPTHS, NUMBERS, dense_caption, depth_of, side_of, with_article
from demo.palette import OBJECT_COLOURS
from demo.scene import render
from demo.shapes import SHAPES
from demo.signs import words
from demo.split import SPLITS, Split, seeds
from demo.truth import ObjectTruth, SceneTruth
from fusion.checks import Caption, ChecksSection, FindingKind, check
from fusion.priors import Priors

RECALL, FALSE_ALARMS = 0.95, 0.02
"""To be reached by each check, with either kind of priors."""
PLAIN_SHIFT, PLAIN_RATIO = 0.1, 1.25
"""A relation is turned round where nobody would call that a matter of taste: middles this share of the picture apart,
distances in this ratio."""
_EYES = DetectorNoise((0.0, 0.0, 0.0), 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, (1.0, 1.0), (1.0, 1.0))
EXACT = NoiseModel(
    closed_set=_EYES,
    open_set=_EYES,
    missed_tags=0.0,
    false_tags=0.0,
    read={condition: {"exact": 1.0} for condition in MEASURED.read},
    stray=0.0,
    depth=0.0,
)
"""Priors that are the truth."""
WHY = {
    "text left out": "the reader passes over half of the blurred signs and a quarter of the faint ones; what it "
    "did not read is not missed.",
    "unseen_text": "the same signs: a caption that reads them rightly quotes what the reader did not read.",
    "above and below swapped": "a false box of one of the two names, somewhere else, may be the one that is meant; of "
    "much hidden things the box is missing, and then nothing is said.",
    "nearer and farther swapped": "nearness is off by 9 % either way, and two things must differ by 10 % in the wrong "
    "direction; false and missing boxes as above.",
    "foreground and background swapped": "as nearer and farther.",
}
"""Why a target is missed with noisy priors."""
PRIORS: dict[str, NoiseModel] = {"true": EXACT, "noisy": MEASURED}
_SECTION = ChecksSection()


def right_captions(truth: SceneTruth) -> list[str]:
    """The dense caption as it is; and one that says how many there are of each, and what is above what."""
    dense = dense_caption(truth)
    told = re.sub(r"There (?:is|are) \w+ objects? in view\.", _counted(truth), dense)
    pair = _pair(truth)
    if pair and abs(_middle(pair[0], 1, truth) - _middle(pair[1], 1, truth)) > PLAIN_SHIFT:
        first, second = (_named(one) for one in pair)
        higher = _middle(pair[0], 1, truth) < _middle(pair[1], 1, truth)
        told += f" In the picture, the {first} is {'above' if higher else 'below'} the {second}."
    return [dense, told]


def _counted(truth: SceneTruth) -> str:
    counts = Counter(item.category for item in truth.objects)
    parts = [f"{NUMBERS[count]} {name}{'s' if count > 1 else ''}" for name, count in counts.items()]
    verb = "is" if parts[0].startswith("one ") else "are"
    return f"There {verb} {' and '.join([', '.join(parts[:-1]), parts[-1]] if len(parts) > 1 else parts)} in view."


def _named(item: ObjectTruth) -> str:
    return f"{item.colour} {item.category}"


def _middle(item: ObjectTruth, axis: int, truth: SceneTruth) -> float:
    """0..1 of the picture's width (axis 0) or height."""
    return (item.visible_box[axis] + item.visible_box[axis + 2]) / 2 / (truth.width, truth.height)[axis]


def _pair(truth: SceneTruth) -> tuple[ObjectTruth, ObjectTruth] | None:
    """The two that the dense caption relates, unless they have one name: no detector tells colours apart."""
    pair = truth.objects[:2]
    return (pair[0], pair[1]) if len(pair) == 2 and pair[0].category != pair[1].category else None


Plant = Callable[[SceneTruth, str, random.Random], Caption | None]
"""A right caption with one fault; None where the scene gives no occasion."""


def _altered_text(truth: SceneTruth, text: str, rng: random.Random) -> Caption | None:
    """One letter of a sign's text is another, is missing, or is there twice."""
    sign = _sign(truth, rng)
    if sign is None:
        return None
    places = [i for i, c in enumerate(sign) if c.isalpha() and 0 < i < len(sign) - 1]
    i = rng.choice(places)
    other = rng.choice([c for c in "AEKMRTVX" if c != sign[i].upper()])
    other = other if sign[i].isupper() else other.lower()
    return _said(text.replace(f'"{sign}"', f'"{sign[:i]}{rng.choice((other, "", sign[i] + other))}{sign[i + 1 :]}"'))


def _invented_text(truth: SceneTruth, text: str, rng: random.Random) -> Caption | None:
    """A sign's text is another's."""
    sign = _sign(truth, rng)
    if sign is None:
        return None
    own = {word.lower() for word in sign.split()}
    other = " ".join(rng.choice([word for word in words() if word not in own]) for _ in sign.split())
    return _said(text.replace(f'"{sign}"', f'"{other.upper() if sign.isupper() else other.title()}"'))


def _unquoted_text(truth: SceneTruth, text: str, rng: random.Random) -> Caption | None:
    sign = _sign(truth, rng)
    return None if sign is None else _said(text.replace(f', and it reads "{sign}"', ""))


def _sign(truth: SceneTruth, rng: random.Random) -> str | None:
    texts = [item.text for item in truth.objects if item.text is not None and len(item.text) >= 4]
    return rng.choice(texts) if texts else None


_ELSEWHERE = ("dog", "cat", "bicycle", "chair", "horse", "bottle", "clock", "book", "elephant", "airplane")


def _added_object(truth: SceneTruth, text: str, rng: random.Random) -> Caption | None:
    there = {item.category for item in truth.objects}
    category = rng.choice([*(name for name in SHAPES if name not in there), *_ELSEWHERE])
    place = f"{rng.choice(list(DEPTHS.values()))} {rng.choice(list(DENSE_SIDES.values()))}"
    sentence = f"{with_article(f'{rng.choice(list(OBJECT_COLOURS))} {category}').capitalize()} stands {place}."
    sentences = text.split(". ")
    at = rng.randint(2, len(sentences) - 1) if len(sentences) > 2 else len(sentences)
    return _said(". ".join([*sentences[:at], sentence.rstrip("."), *sentences[at:]]))


def _changed_count(truth: SceneTruth, text: str, rng: random.Random) -> Caption | None:
    """One more, or one less of two and more."""
    told = _counted(truth)
    if told not in text:
        return None
    category, count = rng.choice(sorted(Counter(item.category for item in truth.objects).items()))
    other = count + 1 if count == 1 or rng.random() < 0.5 else count - 1
    plural = "s" if count > 1 else ""
    wrong = f"{NUMBERS[other]} {category}{'s' if other > 1 else ''}"
    return _said(text.replace(told, told.replace(f"{NUMBERS[count]} {category}{plural}", wrong, 1)))


def _turned_sideways(truth: SceneTruth, text: str, rng: random.Random) -> Caption | None:
    pair = _pair(truth)
    if pair is None or abs(_middle(pair[0], 0, truth) - _middle(pair[1], 0, truth)) < PLAIN_SHIFT:
        return None
    return _swapped(text, "to the left of it", "to the right of it")


def _turned_over(truth: SceneTruth, text: str, rng: random.Random) -> Caption | None:
    return _swapped(text, " is above the ", " is below the ")


def _swapped_side(truth: SceneTruth, text: str, rng: random.Random) -> Caption | None:
    """One thing on the left is on the right, or the other way round."""
    beside = [item for item in truth.objects if side_of(item, truth) != "centre"]
    if not beside:
        return None
    item = rng.choice(beside)
    own = _sentence_of(text, item, truth)
    changed = _swapped(own, DENSE_SIDES["left"], DENSE_SIDES["right"])
    return _said(text.replace(own, changed.text, 1)) if changed else None


def _swapped_depth(truth: SceneTruth, text: str, rng: random.Random) -> Caption | None:
    pair = _pair(truth)
    if pair is None or pair[1].distance / pair[0].distance < PLAIN_RATIO:
        return None
    return _said(text.replace("closer to the camera than", "farther from the camera than"))


def _swapped_bands(truth: SceneTruth, text: str, rng: random.Random) -> Caption | None:
    """What is in the foreground and what is in the background change places."""
    near = [item for item in truth.objects if depth_of(item, truth) == "near"]
    far = [item for item in truth.objects if depth_of(item, truth) == "far"]
    pairs = [(one, other) for one in near for other in far if one.category != other.category]
    if not pairs:
        return None
    one, other = (_sentence_of(text, item, truth) for item in rng.choice(pairs))
    if not one or not other or one == other:
        return None
    text = text.replace(one, one.replace(DEPTHS["near"], DEPTHS["far"]), 1)
    return _said(text.replace(other, other.replace(DEPTHS["far"], DEPTHS["near"]), 1))


def _sentence_of(text: str, item: ObjectTruth, truth: SceneTruth) -> str:
    """From the name of a thing to its side, as the dense caption has it; empty where two are told alike."""
    found = f"{_named(item)} stands {DEPTHS[depth_of(item, truth)]} {DENSE_SIDES[side_of(item, truth)]}"
    return found if text.count(found) == 1 else ""


def _swapped(text: str, one: str, other: str) -> Caption | None:
    if one in text:
        return _said(text.replace(one, other))
    return _said(text.replace(other, one)) if other in text else None


def _loop(truth: SceneTruth, text: str, rng: random.Random) -> Caption | None:
    """The last sentence, a few words, or one word, again and again; cut off, as loops are, or ended."""
    sentences = text.rstrip(".").split(". ")
    parts = sentences[-1].split()
    unit = rng.choice((f" {sentences[-1]}.", f" {' '.join(parts[-4:])}", f" {parts[-1]}"))
    return Caption(text + unit * rng.randint(5, 20), rng.choice(("stop", "length")))


def _cut(truth: SceneTruth, text: str, rng: random.Random) -> Caption | None:
    """Broken off inside a sentence; half of the engines say that they did."""
    parts = text.split()
    inside = [i for i in range(len(parts) // 3, len(parts)) if re.search(r"\w$", parts[i - 1])]
    return Caption(" ".join(parts[: rng.choice(inside)]), rng.choice(("stop", "length")))


_TALK = (
    ("", " As an AI language model, I cannot verify further details."),
    ("I'm sorry, but I can't help with that. ", ""),
    ("Sure! Here is a detailed description of the image. ", ""),
    ("", " The image shows bounding boxes around each object."),
    ("Based on the provided information, ", ""),
    ("", " According to the alt text, this is a photo from a holiday."),
    ("", " The detected objects are listed above."),
    ("", " The OCR found no further words."),
    ("Certainly! ", ""),
    ("", " The confidence scores suggest that the rest is uncertain."),
    ("", " As requested, no further details are added."),
    ("", " I am unable to determine what lies beyond."),
    ("Here's a caption: ", ""),
    ("", " Let me know if you would like a shorter version."),
    ("", " The notes mention nothing else."),
    ("", " The depth map suggests a wide space."),
    ("", " I hope this description helps!"),
    ("As described in the prompt, ", ""),
)


def _talk(truth: SceneTruth, text: str, rng: random.Random) -> Caption | None:
    before, after = rng.choice(_TALK)
    return _said(f"{before}{text}{after}")


def _leaked_boxes(truth: SceneTruth, text: str, rng: random.Random) -> Caption | None:
    """A thing's box behind its name, as prompts and grounding models write boxes."""
    item = rng.choice(truth.objects)
    shares = [v / (truth.width, truth.height)[i % 2] for i, v in enumerate(item.visible_box)]
    thousandths = [round(999 * v) for v in shares]
    written = rng.choice(
        (
            f"[{', '.join(f'{v:.3f}' for v in shares)}]",
            f"({', '.join(f'{v:.2f}' for v in shares)})",
            f"at {', '.join(f'{v:.3f}' for v in shares)}",
            f"[{', '.join(map(str, item.visible_box))}]",
            "".join(f"<loc_{v}>" for v in thousandths),
            f"<box>{thousandths}</box>",
        )
    )
    return _said(re.sub(rf"{_named(item)} stands", f"{_named(item)} {written} stands", text, count=1))


_FOREIGN = (
    "Im Vordergrund steht ein roter Ball, und dahinter ist ein Baum auf einer Wiese. Der Himmel ist blau.",
    "Au premier plan se trouve un ballon rouge, et derrière il y a un arbre dans un pré. Le ciel est bleu.",
    "En primer plano hay una pelota roja y detrás se ve un árbol en el prado. El cielo es azul.",
    "In primo piano c'è una palla rossa e dietro si vede un albero nel prato. Il cielo è azzurro.",
    "Em primeiro plano há uma bola vermelha e atrás vê-se uma árvore no prado. O céu é azul.",
    "Op de voorgrond ligt een rode bal en daarachter staat een boom in de wei. De lucht is blauw.",
    "前景中有一个红色的球，后面的草地上有一棵树。天空是蓝色的。",
    "На переднем плане лежит красный мяч, а за ним на лугу стоит дерево. Небо голубое.",
    "手前に赤いボールがあり、その後ろの草原に木が立っています。空は青いです。",
    "في المقدمة كرة حمراء وخلفها شجرة في المرج. السماء زرقاء.",
)


def _foreign(truth: SceneTruth, text: str, rng: random.Random) -> Caption | None:
    """From some sentence on, or from the first, another language."""
    sentences = text.split(". ")
    kept = sentences[: rng.randint(0, len(sentences) - 1)]
    return _said(". ".join([*kept, rng.choice(_FOREIGN)]))


def _said(text: str) -> Caption:
    return Caption(text, "stop")


@dataclass(frozen=True)
class Fault:
    """A kind of fault: how it is planted, and the findings of which one is enough."""

    words: str
    plant: Plant
    kinds: tuple[FindingKind, ...]


FAULTS = (
    Fault("quoted text: a letter altered", _altered_text, (FindingKind.MISQUOTED_TEXT, FindingKind.UNSEEN_TEXT)),
    Fault("quoted text: other words", _invented_text, (FindingKind.UNSEEN_TEXT, FindingKind.MISQUOTED_TEXT)),
    Fault("text left out", _unquoted_text, (FindingKind.TEXT_LEFT_OUT,)),
    Fault("an object that is not there", _added_object, (FindingKind.UNSEEN_OBJECT,)),
    Fault("a count changed by one", _changed_count, (FindingKind.WRONG_COUNT,)),
    Fault("left and right of each other swapped", _turned_sideways, (FindingKind.WRONG_RELATION,)),
    Fault("above and below swapped", _turned_over, (FindingKind.WRONG_RELATION,)),
    Fault("left and right of the image swapped", _swapped_side, (FindingKind.WRONG_SIDE,)),
    Fault("nearer and farther swapped", _swapped_depth, (FindingKind.WRONG_DEPTH,)),
    Fault("foreground and background swapped", _swapped_bands, (FindingKind.WRONG_DEPTH,)),
    Fault("a loop", _loop, (FindingKind.REPETITION,)),
    Fault("broken off", _cut, (FindingKind.TRUNCATED,)),
    Fault("refusal or talk of the notes", _talk, (FindingKind.REFUSAL,)),
    Fault("coordinates", _leaked_boxes, (FindingKind.COORDINATES,)),
    Fault("another language", _foreign, (FindingKind.WRONG_LANGUAGE,)),
)


def measure(scenes: int, first: int = 0, split: Split = "test", section: ChecksSection = _SECTION) -> dict[str, Any]:
    """The whole answer: `recall` by fault and `false_alarms` by kind, each by the kind of priors; `milliseconds` of
    CPU time for one caption.

    Args:
        first: number of the split's first scene.
    """
    truths = [truth for seed in seeds(split, scenes, first) if (truth := render(seed).truth).objects]
    found: dict[str, Counter[str]] = {priors: Counter() for priors in PRIORS}
    planted: Counter[str] = Counter()
    alarms: dict[str, Counter[str]] = {priors: Counter() for priors in PRIORS}
    times: list[float] = []
    rights = 0
    for truth in truths:
        seen = {
            name: Priors.of(noisy_priors(truth, random.Random(f"checks {truth.seed}"), noise))
            for name, noise in PRIORS.items()
        }
        for text in right_captions(truth):
            rights += 1
            for name, priors in seen.items():
                started = time.thread_time()
                findings = check(_said(text), priors, section)
                times.append(1000 * (time.thread_time() - started))
                alarms[name].update({finding.kind for finding in findings})
        for fault, caption in _faulty(truth):
            planted[fault.words] += 1
            for name, priors in seen.items():
                kinds = {finding.kind for finding in check(caption, priors, section)}
                found[name][fault.words] += bool(kinds & set(fault.kinds))
    return {
        "benchmark": "caption_checks",
        "machine": machine(),
        "setting": {"split": split, "scenes": scenes, "first": first, "right_captions": rights},
        "targets": {"recall": RECALL, "false_alarms": FALSE_ALARMS},
        "planted": {fault.words: planted[fault.words] for fault in FAULTS},
        "recall": {
            fault.words: {name: found[name][fault.words] / planted[fault.words] for name in PRIORS}
            for fault in FAULTS
            if planted[fault.words]
        },
        "false_alarms": {str(kind): {name: alarms[name][kind] / rights for name in PRIORS} for kind in FindingKind},
        "milliseconds": {"median": statistics.median(times), "95 %": statistics.quantiles(times, n=20)[-1]},
    }


def _faulty(truth: SceneTruth) -> Iterator[tuple[Fault, Caption]]:
    text = right_captions(truth)[1]
    for fault in FAULTS:
        rng = random.Random(f"{fault.words} {truth.seed}")
        caption = fault.plant(truth, text, rng)
        if caption is not None and caption != _said(text):
            yield fault, caption


def tables(answer: dict[str, Any]) -> Iterable[Table]:
    setting = answer["setting"]
    where = f"{setting['scenes']} {setting['split']} scenes from number {setting['first']}"
    found = Table("planted", "how often", *(f"found, {name} priors" for name in PRIORS), title=f"Recall: {where}")
    for name, shares in answer["recall"].items():
        found.add_row(name, str(answer["planted"][name]), *(_mark(v, v >= RECALL) for v in shares.values()))
    alarms = Table(
        "finding", *(f"{name} priors" for name in PRIORS), title=f"False alarms: {setting['right_captions']} captions"
    )
    for name, shares in answer["false_alarms"].items():
        alarms.add_row(name, *(_mark(v, v <= FALSE_ALARMS) for v in shares.values()))
    return found, alarms


def missed(answer: dict[str, Any]) -> list[str]:
    """Faults and findings whose target is not reached with noisy priors."""
    unfound = [name for name, shares in answer["recall"].items() if shares["noisy"] < RECALL]
    return unfound + [name for name, shares in answer["false_alarms"].items() if shares["noisy"] > FALSE_ALARMS]


def _mark(share: float, met: bool) -> str:
    return f"{100 * share:.1f} %{'' if met else '  (missed)'}"


def main(arguments: Sequence[str] | None = None) -> None:
    command = argparse.ArgumentParser(prog="python -m benchmarks.caption_checks", description=__doc__)
    command.add_argument("--json", action="store_true", help="print JSON in place of tables")
    command.add_argument("--scenes", type=int, default=400, help="that captions are of")
    command.add_argument("--seed", type=int, default=0, help="number of the first of them in its split")
    command.add_argument("--split", choices=SPLITS, default="test", help="validation is what settings are chosen on")
    given = command.parse_args(arguments)
    answer = measure(given.scenes, given.seed, given.split)
    if given.json:
        print(json.dumps(answer, indent=2))
        return
    console = Console()
    for table in tables(answer):
        console.print(table)
    for name in missed(answer):
        console.print(f"Missed with noisy priors: {name}: {WHY.get(name, 'not known why.')}")
    spent = answer["milliseconds"]
    console.print(
        f"Targets: found {RECALL:.0%} or more, false alarms {FALSE_ALARMS:.0%} or less. One caption takes "
        f"{spent['median']:.1f} ms of a CPU (median), {spent['95 %']:.1f} ms (95 %)."
    )


if __name__ == "__main__":
    main()

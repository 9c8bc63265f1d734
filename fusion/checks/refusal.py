"""The model speaks of itself, of its task or of its notes instead of the image."""

import re
from collections.abc import Iterator

from fusion.checks.case import Case
from fusion.checks.finding import Finding, FindingKind
from fusion.evaluate.words import QUOTED

_NOT_ABOUT_THE_IMAGE = re.compile(
    r"\bas an? (?:ai|artificial|language|large|virtual|assistant)\b|\blanguage model\b"
    r"|\bi(?:'m| am) (?:sorry|unable|not able|just an?|only an?)\b|\bi can(?:no|')t\b|\bi apologi[sz]e\b"
    r"|\bi (?:do not|don't) (?:have access|see an image)\b"
    r"|\b(?:unable|not possible) to (?:view|see|describe) the image\b"
    r"|\b(?:ocr|bounding[- ]box(?:es)?|alt[- ]text|detected (?:objects|text)|(?:the|provided|given|these|your) notes)\b"
    r"|\b(?:confidence|detection) scores?\b|\b(?:object|text) detect(?:ion|or|ors)\b|\bdepth (?:map|prior)\b"
    r"|\b(?:short caption|the (?:provided|given) (?:caption|tags|information|data|text))\b"
    r"|\byour (?:request|instructions)\b"
    r"|\b(?:based on|according to|as (?:stated|described|mentioned|listed) in) the "
    r"(?:caption|tags|prompt|notes|boxes|coordinates|description)\b|\b(?:the|your|this) prompt\b"
    r"|\bas (?:requested|instructed)\b|^\s*(?:sure|certainly|of course)[,!]|\b(?:i hope this|let me know if)\b"
    r"|\bhere(?:'s| is) (?:a|the|your) (?:\w+ )?(?:description|caption)\b",
    re.IGNORECASE,
)


def refusal(case: Case) -> Iterator[Finding]:
    """Said outside of quotation marks: a sign may say anything."""
    match = _NOT_ABOUT_THE_IMAGE.search(QUOTED.sub('""', case.caption.text))
    if match:
        yield Finding(FindingKind.REFUSAL, f'"{match.group().strip()}" is not about the image.')

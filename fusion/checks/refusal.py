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
    r"|\b(?:ocr|bounding[- ]box(?:es)?|alt[- ]text|detected (?:objects|text)|(?:provided|given|these|your) notes)\b"
    r"|\bthe notes (?:above|provided|given|say|state|mention|list|indicate|suggest|describe|include|claim|are wrong)\b"
    r"|\b(?:from|per|unlike|despite|contrary to) the notes\b|\bthe tags (?:say|mention|list|indicate|suggest|include)\b"
    r"|\b(?:confidence|detection) scores?\b|\b(?:object|text) detect(?:ion|or|ors)\b"
    r"|\bdepth (?:map|prior|information|data|estimates?)\b"
    r"|\bthe caption (?:provided|given|of the web ?page)\b|\bweb ?page(?:'s)? caption\b"
    r"|\b(?:short caption|the (?:provided|given) (?:caption|tags|information|data|text))\b"
    r"|\byour (?:request|instructions)\b"
    r"|\b(?:based on|according to|as (?:stated|described|mentioned|listed) in) the "
    r"(?:caption|tags|prompt|notes|boxes|coordinates|description)\b|\b(?:the|your|this) prompt\b"
    r"|\bas (?:requested|instructed)\b|\A\s*(?:sure|certainly|of course)[,!]|\b(?:i hope this|let me know if)\b"
    r"|\bhere(?:'s| is) (?:a|the|your) (?:[\w-]+ ){0,3}(?:description|caption)\b"
    r"|\A\W*(?:image )?(?:caption|description|answer|response)\W*:"
    r"|<image>|</?s>|<\|\w+\|>|\[/?INST\]|<(?:start|end)_of_\w+>|^\s*(?:user|human|assistant|system):",
    re.IGNORECASE | re.MULTILINE,
)
"""The last line: marks of a chat's turns."""


def refusal(case: Case) -> Iterator[Finding]:
    """Said outside of quotation marks: a sign may say anything."""
    match = _NOT_ABOUT_THE_IMAGE.search(QUOTED.sub('""', case.caption.text))
    if match:
        yield Finding(FindingKind.REFUSAL, f'"{match.group().strip()}" is not about the image.')

"""Numbers of things against boxes."""

from collections.abc import Iterator

from fusion.checks.case import Case
from fusion.checks.finding import Finding, FindingKind


def counts(case: Case) -> Iterator[Finding]:
    """A number of things that is greater than what any detector boxed, or less than what surely is there.

    Less is wrong only where the sentence counts all of them (`There are two dogs.`). Of things that were not boxed at
    all nothing is said, nor of great numbers, which detectors do not count well.
    """
    for one in dict.fromkeys(case.reading.numbers):
        if one.number > case.section.count_limit:
            continue
        things = case.seen.things(one.category)
        most, least = len(things), len(case.seen.sure(one.category))
        if things and one.number > most:
            seen = f"no more than {most}"
        elif one.all and one.number < least:
            seen = f"{least}"
        else:
            continue
        yield Finding(
            FindingKind.WRONG_COUNT,
            f'The description counts {one.number} of the kind "{one.category}", but {seen} can be seen; count again.',
        )

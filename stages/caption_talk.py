"""What is said with the engine about one row: the question, the checks' verdict, and at most one repair."""

from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass, replace

from fusion.checks import Caption, Finding, FindingKind, check, faultiness
from fusion.engine import Answer, Draw, Failure, Question, Talk
from fusion.prompt import Messages
from fusion.request import CaptionRequest, Turns
from stages.answer_book import AnswerBook
from stages.caption_rows import CaptionRows
from stages.caption_section import CaptionSection
from stages.spend import SpendLedger


@dataclass(frozen=True)
class Judged:
    """An answer, the caption in it, and what the checks say of that.

    Attributes:
        repair: how the findings were given back to the model; None where they were not.
        repaired: this is the second answer.
    """

    answer: Answer
    caption: str
    findings: list[Finding]
    repair: "Repair | None" = None
    repaired: bool = False

    def kinds(self) -> set[FindingKind]:
        return {finding.kind for finding in self.findings}


@dataclass(frozen=True)
class Repair:
    """A conversation that went on.

    Attributes:
        asked: what the model was told then.
        answers: what it said to that; none where the engine refused the longer conversation.
    """

    first: Judged
    asked: str
    answers: tuple[Judged, ...]

    @property
    def best(self) -> Judged | None:
        """The earliest of the answers with the fewest findings."""
        return min(self.answers, key=lambda one: faultiness(one.findings), default=None)


class CaptionTalks:
    """Makes the talks of one shard's rows. A talk that is begun again goes over what is in the book, and asks on from
    there.

    Args:
        spend: counts what the answers cost; None counts nothing.
    """

    def __init__(
        self,
        config: CaptionSection,
        request: CaptionRequest,
        rows: CaptionRows,
        book: AnswerBook,
        spend: SpendLedger | None = None,
    ) -> None:
        self._config, self._request, self._rows = config, request, rows
        self._book, self._spend = book, spend

    def begin(self, i: int) -> Callable[[], Talk[Judged | Failure]]:
        """The talk about row `i`, to be begun when its turn comes."""
        return lambda: self._talk(i)

    def from_book(self, i: int) -> Judged | None:
        """What came of row `i` where the book answers everything that is asked about it."""
        talk = self._talk(i, only_known=True)
        try:
            next(talk)
        except StopIteration as end:
            return end.value if isinstance(end.value, Judged) else None
        raise AssertionError("a talk by the book alone asks nothing")

    def _talk(self, i: int, *, only_known: bool = False) -> Talk[Judged | Failure]:
        messages = self._messages(i)
        self._rows.cuts[i] = messages.cut
        first = yield from self._ask(i, messages, only_known=only_known)
        if isinstance(first, Failure):
            return first
        judged = self._judge(i, first)
        faults = [f.detail for f in judged.findings if f.kind in self._config.repair_on]
        if not faults:
            return judged
        again = self._request.prompt.repair(faults)
        turns = [{"role": "assistant", "content": first.text}, {"role": "user", "content": again}]
        longer = self._messages(i, then=(first.text, again))
        answers: list[Judged] = []
        for draw in self._draws():
            said = yield from self._ask(i, longer, turns, draw, only_known=only_known)
            if isinstance(said, Failure):
                if said.own:  # a longer conversation that is refused (it does not fit) leaves what there is
                    break
                return said
            answers.append(self._judge(i, said))
            if not answers[-1].kinds() & set(self._config.repair_on):
                break
        return _better(Repair(judged, again, tuple(answers)))

    def _draws(self) -> Iterator[Draw | None]:
        """How the answers to the findings are sampled: the first as captions are."""
        yield None
        for further in range(1, self._config.repair_tries):
            yield Draw(self._config.repair_temperature, self._config.seed + further)

    def _ask(
        self, i: int, messages: Messages, turns: Turns = (), draw: Draw | None = None, *, only_known: bool
    ) -> Generator[Question, Answer | Failure, Answer | Failure]:
        uid = self._rows.uids[i]
        structured = self._config.structured
        further = structured.decides() if structured is not None else None
        key = self._request.key(messages, self._rows.sha256[i], turns, further, draw)
        if (known := self._book.get(uid, key)) is not None:
            return known
        if only_known:
            return Failure("not answered yet", asked=False)
        url = self._request.image_url(self._rows.image(i))
        question = self._request.question(messages, url, turns, affinity=uid, draw=draw)
        if self._spend is not None and not self._spend.may_ask():
            return Failure("the budget is spent", asked=False, later=True)
        said: Answer | Failure | None = None
        try:
            said = yield question
        finally:
            answer = said if isinstance(said, Answer) else None
            if answer is not None:
                self._book.put(uid, key, answer)
            if self._spend is not None:
                self._spend.settle(self._rows.shard, uid, answer)
        assert said is not None
        return said

    def _messages(self, i: int, then: tuple[str, ...] = ()) -> Messages:
        return self._request.prompt.render(self._rows.alt_texts[i], self._rows.priors_of(i), then=then)

    def _judge(self, i: int, answer: Answer) -> Judged:
        text = answer.text
        if self._config.structured is not None:
            try:
                text = self._config.structured.caption_of(answer.text)
            except ValueError as error:
                return Judged(answer, "", [Finding(FindingKind.MALFORMED, f"The answer is {error}.")])
        caption = Caption(text, answer.finish_reason)
        return Judged(answer, text.strip(), check(caption, self._rows.priors_of(i), self._config.checks))


def _better(repair: Repair) -> Judged:
    """The best answer to the findings where it has fewer of them, else the first; the tokens of all."""
    first, best = repair.first, repair.best
    repaired = best is not None and faultiness(best.findings) < faultiness(first.findings)
    chosen = best if best is not None and repaired else first
    said = [one.answer for one in (first, *repair.answers)]
    answer = replace(
        chosen.answer,
        prompt_tokens=sum(one.prompt_tokens for one in said),
        cached_tokens=sum(one.cached_tokens for one in said),
        completion_tokens=sum(one.completion_tokens for one in said),
    )
    return replace(chosen, answer=answer, repair=repair, repaired=repaired)

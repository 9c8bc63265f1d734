"""Captions in figures: characters, words, sentences, and the shares of word classes, as in Table 1 of DenseFusion-1M.

`package` counts them, shard by shard, into its metrics; the report and the dataset card show what the sums come to.
"""

import hashlib
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from fusion.sentences import sentences, words
from fusion.word_classes import WordClass, word_classes
from schemas.summary import RunSummary

TAGGED = 16
"""Captions of a shard whose words are tagged: one takes as long as the packaging of several samples."""

SHOWN: tuple[WordClass, ...] = tuple(name for name in WordClass if name != WordClass.OTHER)
COLUMNS = ("characters", "words", "sentences", *(f"{name}s" for name in SHOWN))

_LENGTHS = {name: f"caption_{name}" for name in ("characters", "words", "sentences")}
_TAGGED_WORDS = {name: f"tagged_words_{name}" for name in WordClass}


@dataclass(frozen=True)
class CaptionFigures:
    """One dataset's captions.

    Attributes:
        dataset: its name.
        characters, words, sentences: mean of a caption.
        shares: of the words, by class, 0..1; None where they are not known.
    """

    dataset: str
    characters: float
    words: float
    sentences: float
    shares: dict[WordClass, float] | None

    @property
    def cells(self) -> list[str]:
        """Under `COLUMNS`, rounded as the paper does; a dash for what is not known."""
        lengths = [f"{self.characters:,.0f}", f"{self.words:,.0f}", f"{self.sentences:,.1f}"]
        return lengths + [_percent(self.shares[name]) if self.shares else "–" for name in SHOWN]


@dataclass(frozen=True)
class CaptionTable:
    """A run's figures beside the published ones.

    Attributes:
        rows: the run's own, then those of the paper.
        captions: of the run that were counted.
        tagged: captions of these whose words the shares come from.
    """

    rows: tuple[CaptionFigures, ...]
    captions: int
    tagged: int
    columns: tuple[str, ...] = COLUMNS

    @property
    def shares_known(self) -> bool:
        """Whether the run's are."""
        return self.rows[0].shares is not None


def _published(dataset: str, characters: float, words: float, sentences: float, *percent: float) -> CaptionFigures:
    shares = {name: share / 100 for name, share in zip(SHOWN, percent, strict=True)}
    return CaptionFigures(dataset, characters, words, sentences, shares)


PUBLISHED = (
    _published("DenseFusion-4V-100K", 1253, 206, 11.2, 27.9, 10.9, 1.8, 12.0, 0.83),
    _published("DenseFusion-1M", 1130, 191, 11.0, 28.0, 10.6, 1.4, 12.0, 0.85),
)
"""arXiv 2407.08303, Table 1."""


def caption_metrics(uids: Sequence[str], captions: Sequence[str]) -> dict[str, float]:
    """What `caption_table` needs of one shard: sums, so that those of shards add up.

    Characters are Unicode code points, white space with them; words and sentences are those of fusion.sentences. The
    words of at most `TAGGED` captions are tagged, chosen by hash of the uid: whoever counts the shard chooses the same.
    """
    chosen = sorted(range(len(uids)), key=lambda i: hashlib.sha256(uids[i].encode()).digest())[:TAGGED]
    classes = Counter(name for i in chosen for name in word_classes(captions[i]))
    counts = {
        "captions": len(captions),
        _LENGTHS["characters"]: sum(map(len, captions)),
        _LENGTHS["words"]: sum(len(words(caption)) for caption in captions),
        _LENGTHS["sentences"]: sum(1 for caption in captions for _ in sentences(caption)),
        "tagged_captions": len(chosen),
        **{metric: classes[name] for name, metric in _TAGGED_WORDS.items()},
    }
    return {name: float(count) for name, count in counts.items()}


def caption_table(run: RunSummary) -> CaptionTable | None:
    """The run's figures beside the published ones; None where none were counted.

    The shares are known only where all captions are said to be English: the tagger knows no other language.
    """
    metrics = run.metrics_of("package")
    tagged = {name: metrics.get(metric, 0.0) for name, metric in _TAGGED_WORDS.items()}
    total = sum(tagged.values())
    if not total:
        return None
    means = {name: metrics[metric] / metrics["captions"] for name, metric in _LENGTHS.items()}
    shares = {name: count / total for name, count in tagged.items()} if set(run.languages) == {"en"} else None
    own = CaptionFigures(dataset=run.name, shares=shares, **means)
    return CaptionTable((own, *PUBLISHED), int(metrics["captions"]), int(metrics["tagged_captions"]))


def _percent(share: float) -> str:
    return f"{100 * share:.2f} %" if 0 < share < 0.01 else f"{100 * share:.1f} %"

from collections import Counter

import pytest

from fusion.word_classes import WordClass, word_classes
from schemas.summary import RunSummary, StageSummary
from stages.caption_figures import PUBLISHED, TAGGED, caption_metrics, caption_table

CAPTIONS = ["A small cat sleeps. It isn't big!", "", "Three dogs run slowly — 图书馆 🙂."]
UIDS = ["a" * 32, "b" * 32, "c" * 32]
MANY = [f"{i:032x}" for i in range(3 * TAGGED)]


def run(metrics: dict[str, float], languages: tuple[str, ...] = ("en",)) -> RunSummary:
    return RunSummary("tiny", (StageSummary("package", 3, 3, metrics=metrics),), languages=languages)


def test_metrics_are_counts() -> None:
    metrics = caption_metrics(UIDS, CAPTIONS)
    assert (metrics["captions"], metrics["tagged_captions"]) == (3, 3)
    assert metrics["caption_characters"] == sum(map(len, CAPTIONS))
    assert (metrics["caption_words"], metrics["caption_sentences"]) == (7 + 6, 3)
    classes = Counter(name for caption in CAPTIONS for name in word_classes(caption))
    assert {name: metrics[f"tagged_words_{name}"] for name in classes} == classes
    assert sum(metrics[f"tagged_words_{name}"] for name in WordClass) == metrics["caption_words"]


def test_the_words_of_a_few_are_tagged_and_the_same_whatever_the_order() -> None:
    captions = [f"Number {'very ' * i} small." for i in range(len(MANY))]
    metrics = caption_metrics(MANY, captions)
    tagged = sum(metrics[f"tagged_words_{name}"] for name in WordClass)
    assert metrics["tagged_captions"] == TAGGED and 0 < tagged < metrics["caption_words"]
    assert caption_metrics(MANY[::-1], captions[::-1]) == metrics


def test_sums_over_shards_make_the_figures_of_the_run() -> None:
    shards = [caption_metrics(UIDS[i : i + 1], CAPTIONS[i : i + 1]) for i in range(3)]
    summed = {name: sum(shard[name] for shard in shards) for name in shards[0]}
    assert caption_table(run(summed)) == caption_table(run(caption_metrics(UIDS, CAPTIONS)))


def test_the_table_holds_means_and_shares_beside_the_published_ones() -> None:
    table = caption_table(run(caption_metrics(["a"], ["Two cats sleep very near a tree. They dream."])))
    assert table is not None and table.rows[1:] == PUBLISHED and (table.captions, table.tagged) == (1, 1)
    assert table.columns == ("characters", "words", "sentences", "nouns", "adjectives", "adverbs", "verbs", "numbers")
    own = table.rows[0]
    assert (own.characters, own.words, own.sentences) == (44, 9, 2)
    assert own.shares is not None and sum(own.shares.values()) == pytest.approx(1)
    assert own.cells[:4] == ["44", "9", "2.0", "22.2 %"] and own.cells[-2:] == ["22.2 %", "11.1 %"]
    assert PUBLISHED[0].cells == ["1,253", "206", "11.2", "27.9 %", "10.9 %", "1.8 %", "12.0 %", "0.83 %"]


def test_shares_are_told_of_english_alone() -> None:
    metrics = caption_metrics(UIDS, CAPTIONS)
    for languages in [("de",), ("en", "de"), ()]:
        table = caption_table(run(metrics, languages))
        assert table is not None and not table.shares_known
        assert table.rows[0].cells == ["21", "4", "1.0", *["–"] * 5]


@pytest.mark.parametrize("metrics", [{}, {"bytes": 5.0}, caption_metrics([], []), caption_metrics(["a"], ["🙂"])])
def test_there_is_no_table_where_no_word_was_counted(metrics: dict[str, float]) -> None:
    assert caption_table(run(metrics)) is None
    assert caption_table(RunSummary("empty", ())) is None

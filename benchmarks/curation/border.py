"""Copies that fall across the borders of clusters: what the border search finds, and what it costs."""

import statistics
from functools import partial

import numpy as np

from benchmarks.curation.bordering import TAU, Setting, Truth, cpu
from benchmarks.curation.figure import Figure
from benchmarks.curation.losses import losses
from benchmarks.curation.planted import continuous, topics
from benchmarks.threads import torch_threads
from stages.curate.recall import Recall, against_everything
from stages.curate.semantic.border import Border, Visits
from stages.curate.semantic.rules import Rule

SEED = 0
SETS = {"topics": (topics, 0.999, 0.1), "continuous": (continuous, 0.998, 0.5)}
"""Rows, least share of rows with a copy that are found, greatest residual in per cent."""
COST = 3.0
ROUNDS = 3
SAMPLE = 1000
RULES: tuple[Rule, ...] = ("greedy", "semdedup", "components")


def measure(quick: bool) -> list[Figure]:
    rows, k = (10_000, 50) if quick else (200_000, 1000)
    with torch_threads(1):
        return [figure for name in SETS for figure in _of_set(name, rows, k, quick)]


def _of_set(name: str, rows: int, k: int, quick: bool) -> list[Figure]:
    planted, least, most = SETS[name]
    setting = Setting.of(planted(rows, SEED), k)
    truth, brute = cpu(lambda: Truth.of(setting.vectors))
    what = f"{rows:,} rows, {name}, k = {k}"
    seconds: dict[Border, list[float]] = {"none": [], "margin": [], "exact": []}
    figures = []
    for border in seconds:
        for _ in range(1 if border == "exact" else ROUNDS):
            inside = cpu(partial(setting.search, "none"))[1]
            (by, visits), taken = cpu(partial(setting.search, border))
            seconds[border].append(taken / inside)
        figures += _found(border, by, visits, setting, truth, what, None if quick else (least, most))
    ratio = {border: statistics.median(taken) for border, taken in seconds.items()}
    figures += [
        Figure(
            f"cost of the border search, {what}",
            ratio["margin"],
            None if quick else COST,
            at_most=True,
            unit="x",
            against="inside clusters only",
            note=f"with finding out who visits; {len(setting.visits('margin').rows) / rows:.2f} visits a row",
        ),
        Figure(
            f"cost of exact borders, {what}",
            ratio["exact"],
            unit="x",
            against="inside clusters only",
            note=f"brute force over everything with the same kernel takes {brute:.1f} CPU s",
        ),
    ]
    for rule in RULES:
        figures += _left_alone(rule, setting, truth, what)
    return figures


def _found(
    border: Border,
    by: np.ndarray,
    visits: Visits,
    setting: Setting,
    truth: Truth,
    what: str,
    wanted: tuple[float, float] | None,
) -> list[Figure]:
    compared = truth.compared(setting.cluster, visits)
    copied, found = truth.touched(np.ones(len(compared), bool)), truth.touched(compared)
    kept = by < 0
    pairs = kept[truth.one] & kept[truth.other]
    recall, residual = found.sum() / copied.sum(), 100 * truth.touched(pairs).sum() / kept.sum()
    if border == "exact":
        missed = int((~compared).sum() + pairs.sum())
        wrong = int((kept != _greedy_over_everything(setting, truth)).sum())
        return [
            Figure(f"close pairs missed by exact borders, {what}", missed, 0, at_most=True, exact=True),
            Figure(
                f"rows decided otherwise by exact borders, {what}",
                wrong,
                0,
                at_most=True,
                against="greedy over everything",
                exact=True,
            ),
        ]
    target = wanted if border == "margin" else None
    estimate = _estimated(setting, visits, kept).rows
    low, high = estimate.interval()
    words = "with the border search" if border == "margin" else "inside clusters only"
    return [
        Figure(
            f"rows with a copy that are found {words}, {what}",
            float(recall),
            target[0] if target else None,
            against="brute force over everything",
            note=f"the run's own estimate from {SAMPLE} rows: {low:.4f} to {high:.4f}",
        ),
        Figure(
            f"kept rows that still have a kept copy {words}, {what}",
            float(residual),
            target[1] if target else None,
            at_most=True,
            unit="%",
            against="brute force over everything",
        ),
    ]


def _greedy_over_everything(setting: Setting, truth: Truth) -> np.ndarray:
    """A walk in keep order over all close pairs."""
    ahead = setting.rank[truth.one] < setting.rank[truth.other]
    earlier, later = np.where(ahead, truth.one, truth.other), np.where(ahead, truth.other, truth.one)
    order = np.argsort(setting.rank[later], kind="stable")
    kept = np.ones(truth.rows, bool)
    for one, other in zip(earlier[order].tolist(), later[order].tolist(), strict=True):
        if kept[one]:
            kept[other] = False
    return kept


def _estimated(setting: Setting, visits: Visits, kept: np.ndarray) -> Recall:
    """As a run estimates it."""
    place = np.sort(np.random.default_rng(SEED).choice(len(kept), SAMPLE, replace=False))
    keys = np.repeat(np.arange(len(visits.starts) - 1), np.diff(visits.starts)) * len(kept) + visits.rows
    sample = setting.vectors.take(place)
    found = against_everything(sample, place, setting.vectors, 0, setting.cluster, kept, keys, TAU)
    return Recall.of(found, kept[place])


def _left_alone(rule: Rule, setting: Setting, truth: Truth, what: str) -> list[Figure]:
    by, _ = setting.search("margin", rule)
    kept = by < 0
    alone = ~kept & ~truth.beside(kept)
    gone, lost = int((~kept).sum()), int((alone & setting.distinct).sum())
    return losses(rule, "copy", what, gone, int(alone.sum()), lost, int(setting.distinct.sum()))

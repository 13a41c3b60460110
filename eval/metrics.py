"""Metrics of multi-label decisions and probabilities, with bootstrap intervals.

Arrays are `[N, L]` (texts by labels) or `[N]` for one label; targets and decisions are 0 or 1, probabilities in [0, 1].
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.stats import binomtest
from sklearn.metrics import average_precision_score

BoolArray = NDArray[np.bool_]
FloatArray = NDArray[np.float64]

CALIBRATION_BINS = 10


@dataclass(frozen=True, slots=True)
class LabelMetrics:
    """One label on one set of texts. `average_precision` and `calibration_error` are None where undefined."""

    support: int
    precision: float
    recall: float
    f1: float
    average_precision: float | None
    calibration_error: float | None
    review_share: float
    f1_interval: tuple[float, float]
    precision_interval: tuple[float, float]
    recall_interval: tuple[float, float]
    decided_precision: float | None


@dataclass(frozen=True, slots=True)
class Average:
    """An F1 averaged over labels, with its 95 % bootstrap interval."""

    f1: float
    interval: tuple[float, float]


def precision_recall_f1(wanted: BoolArray, decided: BoolArray) -> tuple[float, float, float]:
    """Precision, recall and F1 of one label `[N]`; 0 where a denominator is 0, as scikit-learn's zero_division=0."""
    hits = int((wanted & decided).sum())
    precision = hits / int(decided.sum()) if decided.any() else 0.0
    recall = hits / int(wanted.sum()) if wanted.any() else 0.0
    total = int(decided.sum()) + int(wanted.sum())
    return precision, recall, 2 * hits / total if total else 0.0


def macro_f1(wanted: BoolArray, decided: BoolArray) -> float:
    """Mean over labels `[N, L]` of their F1."""
    hits = (wanted & decided).sum(axis=0)
    total = wanted.sum(axis=0) + decided.sum(axis=0)
    return float(np.mean(2 * hits / np.maximum(total, 1)))


def micro_f1(wanted: BoolArray, decided: BoolArray) -> float:
    """F1 over all (text, label) pairs together."""
    total = int(wanted.sum()) + int(decided.sum())
    return 2 * int((wanted & decided).sum()) / total if total else 0.0


def expected_calibration_error(wanted: BoolArray, probabilities: FloatArray, bins: int = CALIBRATION_BINS) -> float:
    """Mean distance of probability and frequency over equal-width bins, weighted by rows (Naeini et al. 2015)."""
    index = np.minimum((probabilities * bins).astype(int), bins - 1)
    error = 0.0
    for bin_index in range(bins):
        inside = index == bin_index
        if inside.any():
            error += inside.mean() * abs(probabilities[inside].mean() - wanted[inside].mean())
    return float(error)


def bootstrap_samples(
    statistic: Callable[[NDArray[np.intp]], float | FloatArray], rows: int, *, samples: int = 1_000, seed: int = 1
) -> FloatArray:
    """A statistic of resampled row indices, `samples` times: `[samples, ...]` (Efron's bootstrap)."""
    generator = np.random.default_rng(seed)
    return np.asarray([statistic(generator.integers(0, rows, rows)) for _ in range(samples)], dtype=np.float64)


def bootstrap_interval(
    statistic: Callable[[NDArray[np.intp]], float | FloatArray],
    rows: int,
    *,
    level: float = 0.95,
    samples: int = 1_000,
    seed: int = 1,
) -> FloatArray:
    """The middle `level` `[2, ...]` of the bootstrap samples of a statistic (Efron's percentile interval)."""
    tail = 50 * (1 - level)
    drawn = bootstrap_samples(statistic, rows, samples=samples, seed=seed)
    return np.asarray(np.percentile(drawn, [tail, 100 - tail], axis=0))


def mean_at(values: FloatArray, rows: NDArray[np.intp]) -> FloatArray:
    """The mean `[...]` of chosen rows of `[N, ...]`."""
    return np.asarray(values[rows].mean(axis=0))


def group_sums(values: NDArray[Any], groups: NDArray[Any]) -> FloatArray:
    """The sums `[G, ...]` over the rows of `[N, ...]` that are of one group; `groups` `[N]` holds the group of each row.

    Rows that depend on each other are resampled together by resampling these sums (cluster bootstrap, Davison and Hinkley
    1997).
    """
    _, index = np.unique(groups, return_inverse=True)
    sums = np.zeros((index.max() + 1, *values.shape[1:]))
    np.add.at(sums, index, values)
    return sums


def mcnemar(wanted: BoolArray, first: BoolArray, second: BoolArray) -> tuple[int, int, float]:
    """McNemar's exact test of two models' decisions `[N]` on one label (McNemar 1947; exact by the binomial distribution).

    Returns on how many texts only the first is right, on how many only the second, and the two-sided p value.
    """
    only_first = int(((first == wanted) & (second != wanted)).sum())
    only_second = int(((first != wanted) & (second == wanted)).sum())
    if only_first + only_second == 0:
        return 0, 0, 1.0
    return only_first, only_second, float(binomtest(only_first, only_first + only_second, 0.5).pvalue)


def label_metrics(
    wanted: BoolArray, decided: BoolArray, probabilities: FloatArray, review: BoolArray, *, seed: int = 1
) -> LabelMetrics:
    """All metrics of one label `[N]`: `decided` at the threshold, `review` where a person should look.

    `decided_precision` is the share of right answers, yes and no alike, among the texts outside the review band.
    """
    precision, recall, f1 = precision_recall_f1(wanted, decided)
    interval = bootstrap_interval(
        lambda rows: np.array(precision_recall_f1(wanted[rows], decided[rows])), len(wanted), seed=seed
    )
    mixed = bool(wanted.any() and not wanted.all())
    outside = ~review
    return LabelMetrics(
        support=int(wanted.sum()),
        precision=precision,
        recall=recall,
        f1=f1,
        average_precision=float(average_precision_score(wanted, probabilities)) if mixed else None,
        calibration_error=expected_calibration_error(wanted, probabilities),
        review_share=float(review.mean()),
        precision_interval=(float(interval[0, 0]), float(interval[1, 0])),
        recall_interval=(float(interval[0, 1]), float(interval[1, 1])),
        f1_interval=(float(interval[0, 2]), float(interval[1, 2])),
        decided_precision=float((wanted == decided)[outside].mean()) if outside.any() else None,
    )


def averages(wanted: BoolArray, decided: BoolArray, *, seed: int = 1) -> dict[str, Average]:
    """Macro and micro averaged F1 of `[N, L]`."""

    def average(function: Callable[[BoolArray, BoolArray], float]) -> Average:
        low, high = bootstrap_interval(lambda rows: function(wanted[rows], decided[rows]), len(wanted), seed=seed)
        return Average(function(wanted, decided), (float(low), float(high)))

    return {"macro": average(macro_f1), "micro": average(micro_f1)}

"""Calibration, thresholds and the review band, from validation logits alone.

Platt scaling (Platt 1999, with his smoothed targets) per language and label. A label's threshold is the one with the best
F1 on validation rows, averaged over bootstrap samples so that a handful of rows does not decide it; where a language has
few positives of a label, its slope, intercept and threshold lean towards those of all languages together. The review band
reaches from the threshold to where decided rows are right often enough, by an exact lower bound. Rows whose reader was
unsure count for less.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.stats import beta
from sklearn.linear_model import LogisticRegression

from models.decision import UNDETERMINED, DecisionRule, LabelRule
from models.errors import InputError
from models.taxonomy import Taxonomy

FloatArray = NDArray[np.float64]
_PRIOR_POSITIVES = 40.0  # a language with this many positives of a label weighs as much as all languages together
_BOOTSTRAP = 200


@dataclass(frozen=True, slots=True, kw_only=True)
class DecisionTargets:
    """What the review band should leave: the least precision of `yes` and of `no` outside it, at this confidence."""

    yes_precision: float = 0.95
    no_precision: float = 0.95
    confidence: float = 0.9


def calibrate(
    logits: NDArray[np.float32],
    wanted: NDArray[np.float32],
    languages: Sequence[str],
    taxonomy: Taxonomy,
    *,
    weights: FloatArray | None = None,
    aims: DecisionTargets = DecisionTargets(),
    seed: int = 1,
) -> DecisionRule:
    """The decision rule for validation logits `[N, L]` with targets `[N, L]` (0 or 1) of texts in `languages` (`N`).

    `weights` `[N]` says how much each row counts (1 by default). Raises InputError where a label has no positive or no
    negative validation row.
    """
    generator = np.random.default_rng(seed)
    rules: dict[str, dict[str, LabelRule]] = {language: {} for language in (*taxonomy.languages, UNDETERMINED)}
    spoken = np.asarray(languages)
    w = np.ones(len(spoken)) if weights is None else weights
    for column, label in enumerate(taxonomy.label_ids):
        x, y = logits[:, column].astype(np.float64), wanted[:, column].astype(np.float64)
        positives = int(y.sum())
        if positives in (0, len(y)):
            raise InputError(
                f"expected validation rows with and without {label}, got {positives} of {len(y)} with; "
                "add rows that carry it and rows that do not, or give a validation file (--validation)"
            )
        slope, intercept = platt(x, y, w)
        pooled = steady_threshold(_sigmoid(slope * x + intercept), y, w, generator)
        rules[UNDETERMINED][label] = _rule(slope, intercept, pooled, x, y, w, aims)
        for language in taxonomy.languages:
            own = spoken == language
            count = float(y[own].sum())
            if count == 0 or count == own.sum():
                rules[language][label] = rules[UNDETERMINED][label]
                continue
            own_slope, own_intercept = platt(x[own], y[own], w[own])
            mixed_slope = lean(own_slope, slope, count)
            mixed_intercept = lean(own_intercept, intercept, count)
            own_threshold = steady_threshold(_sigmoid(mixed_slope * x[own] + mixed_intercept), y[own], w[own], generator)
            threshold = lean(own_threshold, pooled, count)
            rules[language][label] = _rule(mixed_slope, mixed_intercept, threshold, x[own], y[own], w[own], aims)
    return DecisionRule(rules=rules)


@dataclass(frozen=True, slots=True, kw_only=True)
class BandCheck:
    """What the review band leaves of one label in one language on the rows it was fitted to.

    `yes` and `no` count the rows decided so, `yes_right` and `no_right` those rightly, all unweighted; `yes_bound` is the
    lower bound of the precision of `yes` at 90 % confidence, which is what these rows promise for others like them.
    """

    language: str
    label: str
    rows: int
    yes: int
    yes_right: int
    yes_bound: float
    no: int
    no_right: int


def check_bands(
    rule: DecisionRule,
    logits: NDArray[np.float32],
    wanted: NDArray[np.float32],
    languages: Sequence[str],
    taxonomy: Taxonomy,
) -> list[BandCheck]:
    """Count the decisions of a rule on logits `[N, L]` with targets `[N, L]`, by language and label."""
    spoken = np.asarray(languages)
    probabilities = rule.probabilities(logits, languages, taxonomy.label_ids)
    found = []
    for language in taxonomy.languages:
        own = np.flatnonzero(spoken == language)
        for column, label in enumerate(taxonomy.label_ids):
            decisions = np.array([rule.decide(p, language, label) for p in probabilities[own, column]])
            truth = wanted[own, column] > 0.5
            yes, no = decisions == "yes", decisions == "no"
            right = int((yes & truth).sum())
            bound = lower_bound(right, int(yes.sum()), 0.9)
            found.append(
                BandCheck(
                    language=language,
                    label=label,
                    rows=len(own),
                    yes=int(yes.sum()),
                    yes_right=right,
                    yes_bound=bound,
                    no=int(no.sum()),
                    no_right=int((no & ~truth).sum()),
                )
            )
    return found


def lean(own: float, common: float, positives: float) -> float:
    """A figure found on rows with this many positives, drawn towards the one found elsewhere the fewer they are."""
    weight = positives / (positives + _PRIOR_POSITIVES)
    return float(weight * own + (1 - weight) * common)


def platt(x: FloatArray, y: FloatArray, w: FloatArray) -> tuple[float, float]:
    """Slope (positive) and intercept of Platt scaling for logits `x`, targets `y`, weights `w`, all `[N]`."""
    positives, negatives = y.sum(), (1 - y).sum()
    high, low = (positives + 1) / (positives + 2), 1 / (negatives + 2)
    smoothed = np.where(y > 0.5, high, low)
    rows = np.concatenate([x, x])[:, None]
    classes = np.concatenate([np.ones_like(y), np.zeros_like(y)])
    fitted = LogisticRegression(C=1e6, max_iter=1_000).fit(
        rows, classes, sample_weight=np.concatenate([w * smoothed, w * (1 - smoothed)])
    )
    return max(float(fitted.coef_[0, 0]), 1e-3), float(fitted.intercept_[0])


def best_threshold(probabilities: FloatArray, y: FloatArray, w: FloatArray) -> float:
    """The threshold with the highest weighted F1, midway between the two probabilities it separates."""
    order = np.argsort(-probabilities, kind="stable")
    f1 = 2 * np.cumsum((y * w)[order]) / (np.cumsum(w[order]) + (y * w).sum())
    cut = int(np.argmax(f1))
    above = probabilities[order[cut]]
    below = probabilities[order[cut + 1]] if cut + 1 < len(y) else 0.0
    return float((above + below) / 2)


def steady_threshold(probabilities: FloatArray, y: FloatArray, w: FloatArray, generator: np.random.Generator) -> float:
    """The mean of the best thresholds of bootstrap samples, kept within 0.15 and 0.85."""
    found = []
    for _ in range(_BOOTSTRAP):
        sample = generator.integers(0, len(y), len(y))
        if y[sample].any():
            found.append(best_threshold(probabilities[sample], y[sample], w[sample]))
    return float(np.clip(np.mean(found), 0.15, 0.85)) if found else 0.5


def review_band(
    probabilities: FloatArray, y: FloatArray, w: FloatArray, threshold: float, aims: DecisionTargets
) -> tuple[float, float]:
    """The narrowest band around the threshold outside of which both precisions are reached on these rows.

    A precision is reached where its exact lower bound (`lower_bound`) at the confidence asked for reaches the aim, each cut
    taken by itself: few rows promise little. Where no end of the band reaches the aim, it lies where the bound is highest:
    the label must stay decidable.
    """
    above = np.unique(np.concatenate([[threshold], probabilities[probabilities >= threshold]]))
    below = np.unique(np.concatenate([[threshold], probabilities[probabilities < threshold]]))[::-1]
    yes = [_bound(y, w, probabilities >= cut, aims.confidence) for cut in above]
    no = [_bound(1 - y, w, probabilities < cut, aims.confidence) for cut in below]
    return _first_reaching(below, no, aims.no_precision), _first_reaching(above, yes, aims.yes_precision)


def lower_bound(hits: float, rows: float, confidence: float) -> float:
    """The exact one-sided lower bound of a share seen in `hits` of `rows` (Clopper and Pearson 1934); 0 without hits.

    Weighted counts, which need not be whole, are taken as they are.
    """
    return float(beta.ppf(1 - confidence, hits, rows - hits + 1)) if hits > 0 else 0.0


def _bound(hits: FloatArray, w: FloatArray, chosen: NDArray[np.bool_], confidence: float) -> float:
    return lower_bound(float((hits * w)[chosen].sum()), float(w[chosen].sum()), confidence)


def _first_reaching(cuts: FloatArray, precisions: list[float], aim: float) -> float:
    for cut, precision in zip(cuts, precisions, strict=True):
        if precision >= aim:
            return float(cut)
    return float(cuts[int(np.argmax(precisions))])


def _rule(
    slope: float,
    intercept: float,
    threshold: float,
    x: FloatArray,
    y: FloatArray,
    w: FloatArray,
    aims: DecisionTargets,
) -> LabelRule:
    low, high = review_band(_sigmoid(slope * x + intercept), y, w, threshold, aims)
    low, threshold, high = round(low, 4), round(threshold, 4), round(high, 4)
    return LabelRule(
        slope=slope,
        intercept=intercept,
        threshold=threshold,
        review_low=min(low, threshold),
        review_high=max(high, threshold),
    )


def _sigmoid(x: FloatArray) -> FloatArray:
    return 1.0 / (1.0 + np.exp(-x))

"""Where a model fails: by kind of text, by the label it gives instead, and what another threshold would cost."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np

from eval.metrics import BoolArray, bootstrap_interval, micro_f1, precision_recall_f1
from eval.scoring import Scored
from models.example import LabelledExample

MIN_TEXTS = 15  # a group of fewer texts says nothing
MIN_SUPPORT = 5  # nor does the F1 of a label with fewer positives
SHIFTS = (-0.2, -0.1, 0.0, 0.1, 0.2)
_LENGTHS = ((15, "up to 15 words"), (30, "16-30 words"), (60, "31-60 words"), (10**9, "over 60 words"))


@dataclass(frozen=True, slots=True)
class Group:
    """The texts that share a trait: F1 over all their (text, label) pairs, and by label where it has MIN_SUPPORT positives."""

    by: str
    name: str
    texts: int
    micro_f1: float
    interval: tuple[float, float]
    f1: dict[str, float | None]


@dataclass(frozen=True, slots=True)
class Confusion:
    """What texts of each kind are given. Rows: the labels, and `none` for texts without any.

    `given[row][column]`: the share of the row's texts that were decided for the column's label, rightly where they carry it
    (`right`), wrongly where they do not (`wrong`); `nothing[row]`: the share that was decided for no label at all.
    """

    labels: tuple[str, ...]
    texts: dict[str, int]
    right: dict[str, dict[str, float]]
    wrong: dict[str, dict[str, float]]
    nothing: dict[str, float]


@dataclass(frozen=True, slots=True)
class ThresholdCost:
    """One label in one language with its threshold moved by `shift`: what is found, and what is wrong, in 100 texts."""

    language: str
    label: str
    shift: float
    threshold: float
    precision: float
    recall: float
    f1: float
    missed_per_100: float
    false_per_100: float


def _length(example: LabelledExample) -> str:
    words = len(example.text.split())
    return next(name for limit, name in _LENGTHS if words <= limit)


_TRAITS: dict[str, Callable[[LabelledExample], str]] = {
    "source": lambda example: example.source,
    "length": _length,
    "register": lambda example: str(example.extra.get("register") or ""),
    "dialect": lambda example: str(example.extra.get("dialect") or ""),
    "reader": lambda example: "was unsure" if example.unsure else "was sure",
}


def groups(scored: Scored, *, seed: int = 1) -> Iterator[Group]:
    """The groups of MIN_TEXTS texts or more of every trait that at least two values of are known."""
    for trait, of in _TRAITS.items():
        rows: dict[str, list[int]] = defaultdict(list)
        for row, example in enumerate(scored.examples):
            if value := of(example):
                rows[value].append(row)
        if len(rows) < 2:
            continue
        order = [name for _, name in _LENGTHS if name in rows] if trait == "length" else sorted(rows)
        for name in order:
            if len(rows[name]) >= MIN_TEXTS:
                yield _group(trait, name, scored.part(np.array(rows[name])), seed)


def _group(trait: str, name: str, part: Scored, seed: int) -> Group:
    low, high = bootstrap_interval(lambda r: micro_f1(part.wanted[r], part.decided[r]), len(part), samples=500, seed=seed)
    f1 = {
        label: precision_recall_f1(part.wanted[:, i], part.decided[:, i])[2] if part.wanted[:, i].sum() >= MIN_SUPPORT else None
        for i, label in enumerate(part.labels)
    }
    return Group(trait, name, len(part), micro_f1(part.wanted, part.decided), (float(low), float(high)), f1)


def confusion(scored: Scored) -> Confusion:
    """What the texts that carry each label, and those that carry none, were decided for."""
    kinds: dict[str, BoolArray] = {label: scored.wanted[:, i] for i, label in enumerate(scored.labels)}
    kinds["none"] = np.asarray(~scored.wanted.any(axis=1))
    right: dict[str, dict[str, float]] = {}
    wrong: dict[str, dict[str, float]] = {}
    nothing: dict[str, float] = {}
    for kind, rows in kinds.items():
        part = scored.part(rows)
        count = max(1, len(part))
        right[kind] = {n: float((part.decided & part.wanted)[:, i].sum() / count) for i, n in enumerate(scored.labels)}
        wrong[kind] = {n: float((part.decided & ~part.wanted)[:, i].sum() / count) for i, n in enumerate(scored.labels)}
        nothing[kind] = float((~part.decided.any(axis=1)).sum() / count)
    return Confusion(scored.labels, {kind: int(rows.sum()) for kind, rows in kinds.items()}, right, wrong, nothing)


def threshold_costs(scored: Scored) -> Iterator[ThresholdCost]:
    """For each language and label: the figures at its threshold and with it moved by each of SHIFTS, kept in 0.01-0.99."""
    for language in sorted(set(scored.languages.tolist())):
        part = scored.part(scored.languages == language)
        for column, label in enumerate(scored.labels):
            wanted, thresholds = part.wanted[:, column], part.thresholds[:, column]
            for shift in SHIFTS:
                moved = np.clip(thresholds + shift, 0.01, 0.99)
                decided = part.probabilities[:, column] >= moved
                precision, recall, f1 = precision_recall_f1(wanted, decided)
                yield ThresholdCost(
                    language,
                    label,
                    shift,
                    float(np.median(moved)),
                    precision,
                    recall,
                    f1,
                    missed_per_100=float(100 * (wanted & ~decided).mean()),
                    false_per_100=float(100 * (decided & ~wanted).mean()),
                )

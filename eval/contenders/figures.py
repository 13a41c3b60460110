"""From timings to figures: throughput, latency, ratios by round, agreement.

Contenders take turns within a round and all of them get the same texts, so a ratio is formed for each round before the median
is taken: what slows the machine down for a while slows both sides of it.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import combinations

import numpy as np

from eval.contenders.arithmetic import Operations
from eval.contenders.process import Timing

ALL = "all"


@dataclass(frozen=True, slots=True)
class Spread:
    """A figure over the rounds: median, smallest, largest."""

    median: float
    low: float
    high: float


@dataclass(frozen=True, slots=True)
class Cell:
    """One length in one batch size: the tokens of each round's texts, and each contender's timing of each round."""

    length: str
    batch: int
    tokens: list[list[int]] = field(default_factory=list)
    timings: dict[str, list[Timing]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Row:
    """What a contender did in a cell. `texts` is a measurement's; latency, in milliseconds, is given for single texts only.

    `limit_share`, in [0, 1], is the part of the arithmetic limit that was reached; given for the int8 model alone.
    """

    length: str
    batch: int
    contender: str
    texts: int
    mean_tokens: float
    texts_per_second: Spread
    tokens_per_second: Spread
    latency_p50_ms: float | None
    latency_p99_ms: float | None
    limit_share: Spread | None


@dataclass(frozen=True, slots=True)
class Ratio:
    """How many times the texts a second of `against` the first contender does; `length` "all": geometric mean of the cells."""

    length: str
    batch: int | None
    against: str
    times: Spread


@dataclass(frozen=True, slots=True)
class Agreement:
    """Decisions that two contenders share: `differing` counts yes, no and review, `flipped` the side of the threshold."""

    first: str
    second: str
    decisions: int
    differing: float
    flipped: float


def spread(values: Sequence[float]) -> Spread:
    """Median and ends of at least one value."""
    return Spread(statistics.median(values), min(values), max(values))


def rows_of(cells: Sequence[Cell], limited: str, operations: Operations, peak: float) -> list[Row]:
    """One row for each cell and contender; `peak` are the operations a second that `limited` could do at best."""
    rows = []
    for cell in cells:
        for name, timings in cell.timings.items():
            rates = [len(tokens) / timing.seconds for tokens, timing in zip(cell.tokens, timings, strict=True)]
            token_rates = [sum(tokens) / timing.seconds for tokens, timing in zip(cell.tokens, timings, strict=True)]
            shares = [operations.of(t) / timing.seconds / peak for t, timing in zip(cell.tokens, timings, strict=True)]
            single = [1_000 * one for timing in timings for one in timing.batch_seconds] if cell.batch == 1 else []
            rows.append(
                Row(
                    length=cell.length,
                    batch=cell.batch,
                    contender=name,
                    texts=len(cell.tokens[0]),
                    mean_tokens=statistics.fmean(token for tokens in cell.tokens for token in tokens),
                    texts_per_second=spread(rates),
                    tokens_per_second=spread(token_rates),
                    latency_p50_ms=float(np.percentile(single, 50)) if single else None,
                    latency_p99_ms=float(np.percentile(single, 99)) if single else None,
                    limit_share=spread(shares) if name == limited else None,
                )
            )
    return rows


def unsteadiness(rows: Sequence[Row]) -> float:
    """How many times as fast the best round was as the worst, in tokens a second: what a quarter of the rows exceed."""
    return float(np.percentile([row.tokens_per_second.high / row.tokens_per_second.low for row in rows], 75))


def ratios_of(cells: Sequence[Cell], first: str) -> list[Ratio]:
    """How many times as fast as each other contender `first` was, by cell and over all cells."""
    found = []
    by_round: dict[str, list[list[float]]] = {}
    for cell in cells:
        for name in (name for name in cell.timings if name != first):
            pairs = zip(cell.timings[name], cell.timings[first], strict=True)
            times = [theirs.seconds / ours.seconds for theirs, ours in pairs]
            by_round.setdefault(name, []).append(times)
            found.append(Ratio(cell.length, cell.batch, name, spread(times)))
    for name, cells_times in by_round.items():
        means = [math.exp(statistics.fmean(map(math.log, one_round))) for one_round in zip(*cells_times, strict=True)]
        found.append(Ratio(ALL, None, name, spread(means)))
    return found


def agreements_of(cells: Sequence[Cell]) -> list[Agreement]:
    """For every two contenders the share of (text, label) decisions that differ, over all measurements."""
    names = list(cells[0].timings) if cells else []
    found = []
    for first, second in combinations(names, 2):
        answers = [_joined(cells, name, "decisions") for name in (first, second)]
        sides = [_joined(cells, name, "sides") for name in (first, second)]
        found.append(Agreement(first, second, len(answers[0]), _differing(*answers), _differing(*sides)))
    return found


def peak_memory_of(cells: Sequence[Cell]) -> Mapping[str, float]:
    """The largest memory that each contender's process reached, in MB."""
    peaks: dict[str, float] = {}
    for cell in cells:
        for name, timings in cell.timings.items():
            peaks[name] = max(peaks.get(name, 0.0), *(timing.peak_memory_mb for timing in timings))
    return peaks


def _joined(cells: Sequence[Cell], name: str, letters: str) -> list[str]:
    """All letters of a contender; an unanswered text stands for one decision that no answer agrees with."""
    texts = (text for cell in cells for timing in cell.timings[name] for text in getattr(timing, letters))
    return [letter for text in texts for letter in (text or "-")]


def _differing(first: Sequence[str], second: Sequence[str]) -> float:
    return statistics.fmean(one != other for one, other in zip(first, second, strict=True))

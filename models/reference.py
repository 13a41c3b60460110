"""What a model's probabilities looked like when it was calibrated, and how far those of now are from it."""

from __future__ import annotations

import math
from collections.abc import Sequence

BINS = 10
_SMOOTHING = 0.5  # counts added to each bin, so that an empty one does not make the index infinite


def bin_of(probability: float) -> int:
    """The tenth of 0..1 that a probability lies in, 0 to 9."""
    return min(BINS - 1, int(probability * BINS))


def stability_index(reference: Sequence[int], recent: Sequence[int]) -> float:
    """Population stability index of two histograms of BINS counts: 0 for the same shape; above 0.25 is usually called a shift.

    Siddiqi, Credit Risk Scorecards (2006). Of the same distribution it is about 9 (1/N + 1/M) for N and M texts.
    """
    total, now = sum(reference) + BINS * _SMOOTHING, sum(recent) + BINS * _SMOOTHING
    shares = (((a + _SMOOTHING) / total, (b + _SMOOTHING) / now) for a, b in zip(reference, recent, strict=True))
    return sum((b - a) * math.log(b / a) for a, b in shares)

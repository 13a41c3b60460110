"""Parity: does the exported int8 model say what the PyTorch model says?"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from sklearn.metrics import f1_score

from models.decision import DecisionRule
from models.taxonomy import Taxonomy


@dataclass(frozen=True, slots=True)
class Parity:
    """How two sets of logits for the same texts differ, decided by one rule.

    `flipped` is the share of (text, label) decisions at the threshold that differ; the F1 figures are in [0, 1].
    """

    texts: int
    macro_f1_reference: float
    macro_f1_exported: float
    flipped: float
    largest_probability_difference: float
    mean_probability_difference: float


def compare_logits(
    reference: NDArray[np.float32],
    exported: NDArray[np.float32],
    wanted: NDArray[np.float32],
    languages: Sequence[str],
    rule: DecisionRule,
    taxonomy: Taxonomy,
) -> Parity:
    """Compare logits `[N, L]` of the reference and the exported model for texts with targets `[N, L]`."""
    labels = taxonomy.label_ids
    thresholds = np.array([[rule.rules[language][label].threshold for label in labels] for language in languages])
    before = rule.probabilities(reference, languages, labels)
    after = rule.probabilities(exported, languages, labels)
    scores = [f1_score(wanted, p >= thresholds, average="macro", zero_division=0.0) for p in (before, after)]
    difference = np.abs(before - after)
    return Parity(
        texts=len(reference),
        macro_f1_reference=round(float(scores[0]), 4),
        macro_f1_exported=round(float(scores[1]), 4),
        flipped=round(float(((before >= thresholds) != (after >= thresholds)).mean()), 5),
        largest_probability_difference=round(float(difference.max()), 4),
        mean_probability_difference=round(float(difference.mean()), 5),
    )

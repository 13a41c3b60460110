"""Does a passage get the same labels in both languages? Needs translations, and nobody's labels."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from eval.metrics import BoolArray
from eval.scoring import Progress, no_progress, score
from models.classifier import Classifier
from models.errors import InputError
from models.example import LabelledExample
from models.translations import LANGUAGES, Translation


@dataclass(frozen=True, slots=True)
class LabelAgreement:
    """One label over the pairs: how many carry it on both sides, on one alone, and on neither.

    `agreement` is the share of the sides that carry the label whose other side does too (positive agreement, Cicchetti and
    Feinstein 1990; the F1 of one side by the other), None where no side carries it. `contradictions` counts the pairs of which
    one side says yes and the other no, neither left to a person. `probability_difference` is the mean over pairs, English
    minus Arabic.
    """

    both: int
    english_only: int
    arabic_only: int
    neither: int
    agreement: float | None
    contradictions: int
    probability_difference: float


@dataclass(frozen=True, slots=True)
class TranslationAgreement:
    """`exact_match` is the share of pairs with the same labels, or none, on both sides; `agreement` is over all labels."""

    pairs: int
    left_out: int
    exact_match: float
    agreement: float | None
    labels: dict[str, LabelAgreement]


def measure_translations(
    classifier: Classifier, translations: Sequence[Translation], *, progress: Progress = no_progress
) -> TranslationAgreement:
    """Score both sides of every pair as passages and compare the decisions at the thresholds.

    Pairs of which a side is detected as another language than it is said to be are left out and counted: they are decided by
    other thresholds, and a file with the languages mixed up should be seen. Raises InputError where a side has nothing
    visible or no pair is left.
    """
    sides = [LabelledExample(one.id, text, frozenset()) for one in translations for text in (one.en, one.ar)]
    scored = score(classifier, sides, progress=progress)
    if len(scored) != len(sides):
        raise InputError(f"expected texts with something visible, {len(sides) - len(scored)} of {len(sides)} have nothing")
    kept = (scored.languages.reshape(-1, 2) == np.array(LANGUAGES)).all(axis=1)
    if not kept.any():
        raise InputError(f"expected passages in en and ar, none of {len(kept)} pairs is detected as such")
    decided, review = scored.decided.reshape(len(kept), 2, -1)[kept], scored.review.reshape(len(kept), 2, -1)[kept]
    probabilities = scored.probabilities.reshape(len(kept), 2, -1)[kept]
    difference = (probabilities[:, 0] - probabilities[:, 1]).mean(axis=0)
    clear = ~review.any(axis=1)
    labels = {
        label: LabelAgreement(
            both=int(decided[:, :, at].all(axis=1).sum()),
            english_only=int((decided[:, 0, at] & ~decided[:, 1, at]).sum()),
            arabic_only=int((decided[:, 1, at] & ~decided[:, 0, at]).sum()),
            neither=int((~decided[:, :, at].any(axis=1)).sum()),
            agreement=positive_agreement(decided[:, 0, at], decided[:, 1, at]),
            contradictions=int(((decided[:, 0, at] != decided[:, 1, at]) & clear[:, at]).sum()),
            probability_difference=float(difference[at]),
        )
        for at, label in enumerate(scored.labels)
    }
    return TranslationAgreement(
        pairs=len(decided),
        left_out=int((~kept).sum()),
        exact_match=float((decided[:, 0] == decided[:, 1]).all(axis=1).mean()),
        agreement=positive_agreement(decided[:, 0], decided[:, 1]),
        labels=labels,
    )


def positive_agreement(first: BoolArray, second: BoolArray) -> float | None:
    """Twice what both have over the sum of what each has; None where neither has anything."""
    said = int(first.sum()) + int(second.sum())
    return 2 * int((first & second).sum()) / said if said else None

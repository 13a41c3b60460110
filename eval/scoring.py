"""Scoring texts with a bundle, through the same classifier that serves: from labelled examples to arrays."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import NDArray

from eval.metrics import BoolArray, FloatArray
from models.classifier import Classifier, TextItem
from models.decision import UNDETERMINED
from models.example import LabelledExample
from models.prediction import Granularity, Prediction

CHUNK = 256
Progress = Callable[[int], object]


def no_progress(_done: int) -> None:
    """Tell nobody."""


@dataclass(frozen=True, slots=True)
class Scored:
    """`N` labelled texts and what a model says of them. Arrays are `[N, L]` in the order of `labels`.

    `decided` holds at or above the `thresholds`; `review` where the answer was left to a person. `languages` `[N]` are those
    that the examples state, or the detected ones.
    """

    labels: tuple[str, ...]
    examples: tuple[LabelledExample, ...]
    languages: NDArray[np.str_]
    wanted: BoolArray
    probabilities: FloatArray
    thresholds: FloatArray
    decided: BoolArray
    review: BoolArray

    def __len__(self) -> int:
        return len(self.examples)

    def part(self, rows: BoolArray | NDArray[np.intp]) -> Self:
        """The texts that a mask `[N]` or indices choose."""
        chosen = np.flatnonzero(rows) if rows.dtype == np.bool_ else rows
        return type(self)(
            labels=self.labels,
            examples=tuple(self.examples[index] for index in chosen),
            languages=self.languages[chosen],
            wanted=self.wanted[chosen],
            probabilities=self.probabilities[chosen],
            thresholds=self.thresholds[chosen],
            decided=self.decided[chosen],
            review=self.review[chosen],
        )


def score(classifier: Classifier, examples: Sequence[LabelledExample], *, progress: Progress = no_progress) -> Scored:
    """Score every example as a passage. Those that the classifier rejects (nothing visible) are left out."""
    kept: list[LabelledExample] = []
    answers: list[Prediction] = []
    for start in range(0, len(examples), CHUNK):
        part = examples[start : start + CHUNK]
        for example, answer in zip(part, classifier.classify([TextItem(e.id, e.text) for e in part]), strict=True):
            if isinstance(answer, Prediction):
                kept.append(example)
                answers.append(answer)
        progress(len(part))
    labels = classifier.labels
    probabilities = _floats(([a.labels[label].probability for label in labels] for a in answers), len(labels))
    thresholds = thresholds_of(classifier, [answer.language for answer in answers])
    return Scored(
        labels=labels,
        examples=tuple(kept),
        languages=np.array([e.lang or a.language for e, a in zip(kept, answers, strict=True)], dtype=np.str_),
        wanted=_truths(([label in example.labels for label in labels] for example in kept), len(labels)),
        probabilities=probabilities,
        thresholds=thresholds,
        decided=probabilities >= thresholds,
        review=_truths(([a.labels[label].decision == "review" for label in labels] for a in answers), len(labels)),
    )


def thresholds_of(classifier: Classifier, languages: Sequence[str], granularity: Granularity = "passage") -> FloatArray:
    """The thresholds `[N, L]` of passages or articles whose detected languages are given."""
    rules = classifier.bundle.decision.rules
    found = (
        [rules.get(lang, rules[UNDETERMINED])[label].threshold_of(granularity) for label in classifier.labels]
        for lang in languages
    )
    return _floats(found, len(classifier.labels))


def _floats(rows: Iterable[list[float]], width: int) -> FloatArray:
    return np.array(list(rows), dtype=np.float64).reshape(-1, width)


def _truths(rows: Iterable[list[bool]], width: int) -> BoolArray:
    return np.array(list(rows), dtype=np.bool_).reshape(-1, width)

"""What classifiers say of the passages of a pool, which is read as a stream."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from models.classifier import Classifier
from models.errors import InputError
from models.prediction import Prediction
from training.pool import PoolPassage, indexed_passages
from training.selection import FloatArray

_CHUNK = 1_024


def common_labels(classifiers: Sequence[Classifier]) -> tuple[str, ...]:
    """The labels of all classifiers, in order. Raises InputError where they differ."""
    labels = classifiers[0].labels
    for other in classifiers[1:]:
        if other.labels != labels:
            raise InputError(
                f"expected bundles with the same labels, got {', '.join(labels)} and {', '.join(other.labels)}; use each alone"
            )
    return labels


def score_passages(
    pool: Sequence[Path], positions: NDArray[np.int64], classifiers: Sequence[Classifier], show_progress: bool
) -> tuple[FloatArray, FloatArray]:
    """Probabilities and thresholds `[B, N, L]` of `B` classifiers for the `N` passages at the positions of a pool."""
    shape = len(classifiers), len(positions), len(classifiers[0].labels)
    probabilities, thresholds = np.empty(shape, dtype=np.float32), np.empty(shape, dtype=np.float32)
    total = len(positions) * len(classifiers)
    at = 0
    with tqdm(total=total, desc="scoring", unit=" passages", disable=not show_progress, dynamic_ncols=True) as bar:
        for part in _parts(indexed_passages(pool, positions)):
            for number, classifier in enumerate(classifiers):
                rules = classifier.bundle.decision.rules
                for row, answer in enumerate(classifier.classify([passage.text for passage in part]), at):
                    if not isinstance(answer, Prediction):  # the index has no text that a classifier rejects
                        raise InputError(f"row {positions[row] + 1} of the pool cannot be classified: {answer.error.detail}")
                    probabilities[number, row] = [answer.labels[label].probability for label in classifier.labels]
                    thresholds[number, row] = [rules[answer.language][label].threshold for label in classifier.labels]
                bar.update(len(part))
            at += len(part)
    return probabilities, thresholds


def _parts(passages: Iterator[PoolPassage]) -> Iterator[list[PoolPassage]]:
    while part := list(islice(passages, _CHUNK)):
        yield part

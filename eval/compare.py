"""Is B better than A? Two models on the same texts: paired bootstrap of the difference in F1, McNemar's test of decisions."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from eval.metrics import BoolArray, FloatArray, bootstrap_samples, group_sums, macro_f1, mcnemar, precision_recall_f1
from eval.run import Stage, silent, slice_masks
from eval.scoring import Scored, score
from models.bundle import Bundle
from models.classifier import Classifier
from models.errors import InputError
from models.example import read_examples


@dataclass(frozen=True, slots=True)
class Difference:
    """One label (or `macro`) in one slice: F1 of both, B minus A with its 95 % paired bootstrap interval.

    `only_first` and `only_second` count the texts on which one model alone decides the label rightly, `p_value` is McNemar's
    (exact, two-sided); all three are None for `macro`.
    """

    slice: str
    label: str
    support: int
    first_f1: float
    second_f1: float
    difference: float
    interval: tuple[float, float]
    only_first: int | None
    only_second: int | None
    p_value: float | None


def compare(first: Classifier, second: Classifier, data: Path, *, stage: Stage = silent, seed: int = 1) -> list[Difference]:
    """Compare two classifiers on a labelled file.

    Raises InputError where their labels differ, ExampleFormatError where the file breaks the format.
    """
    check_comparable(first.bundle, second.bundle)
    examples = read_examples(data, first.bundle.taxonomy)
    scored = []
    for name, classifier in (("A", first), ("B", second)):
        with stage(f"{name}: {classifier.bundle.manifest.name} {classifier.bundle.manifest.version}") as progress:
            scored.append(score(classifier, examples, progress=progress))
    if not len(scored[0]):
        raise InputError(f"{data}: none of the {len(examples)} texts could be scored")
    return list(differences(scored[0], scored[1], seed=seed))


def check_comparable(first: Bundle, second: Bundle) -> None:
    """Raise InputError where two bundles do not answer the same labels in the same order."""
    if first.taxonomy.label_ids != second.taxonomy.label_ids:
        raise InputError(
            f"expected two bundles of one taxonomy, got {', '.join(first.taxonomy.label_ids)} in {first.path.name} and "
            f"{', '.join(second.taxonomy.label_ids)} in {second.path.name}"
        )


def differences(first: Scored, second: Scored, *, seed: int = 1) -> Iterator[Difference]:
    """The differences of two models on the same texts, over all and per language, each label and `macro`."""
    for name, rows in slice_masks(first).items():
        a, b = first.part(rows), second.part(rows)
        for column, label in enumerate(a.labels):
            wanted = a.wanted[:, column]
            only_a, only_b, p_value = mcnemar(wanted, a.decided[:, column], b.decided[:, column])
            low, high = _interval(a, b, column, seed)
            ours = precision_recall_f1(wanted, a.decided[:, column])[2]
            theirs = precision_recall_f1(wanted, b.decided[:, column])[2]
            difference = theirs - ours
            yield Difference(name, label, int(wanted.sum()), ours, theirs, difference, (low, high), only_a, only_b, p_value)
        low, high = _interval(a, b, None, seed)
        ours, theirs = macro_f1(a.wanted, a.decided), macro_f1(b.wanted, b.decided)
        support = int(a.wanted.sum())
        yield Difference(name, "macro", support, ours, theirs, theirs - ours, (low, high), None, None, None)


def f1_differences(
    wanted: BoolArray, first: BoolArray, second: BoolArray, groups: NDArray[Any], *, samples: int = 1_000, seed: int = 1
) -> FloatArray:
    """B's macro F1 minus A's over the labels given `[N, L]`, in `samples` paired bootstrap samples of groups of rows."""
    counted = [found for made in (first, second) for found in (2 * (wanted & made), wanted.astype(int) + made)]
    counts = group_sums(np.stack(counted, axis=1), groups)

    def difference(chosen: NDArray[np.intp]) -> float:
        hits_a, total_a, hits_b, total_b = counts[chosen].sum(axis=0)
        return float(np.mean(hits_b / np.maximum(total_b, 1) - hits_a / np.maximum(total_a, 1)))

    return bootstrap_samples(difference, len(counts), samples=samples, seed=seed)


def _interval(a: Scored, b: Scored, column: int | None, seed: int) -> tuple[float, float]:
    columns = slice(None) if column is None else [column]
    drawn = f1_differences(a.wanted[:, columns], a.decided[:, columns], b.decided[:, columns], np.arange(len(a)), seed=seed)
    low, high = np.percentile(drawn, [2.5, 97.5])
    return float(low), float(high)

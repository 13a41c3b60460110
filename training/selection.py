"""Which passages of a pool are worth a person's time: the mix of reasons, and the choice.

A fifth is drawn at random, and before anything else, so that it stands for the pool (but for the limit a document and what is
excluded): estimate prevalence and agreement from these rows, and from these alone. The rest goes where a label teaches most:
passages near a label's threshold (uncertainty sampling, Lewis and Gale 1994), passages that two models decide differently
(query by committee, Seung et al. 1992), likely carriers of the rarest labels, and passages from the clusters that labelled
texts cover least.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

FloatArray = NDArray[np.float32]

UNCERTAIN, DISAGREEMENT, RARE, CLUSTER, RANDOM = "uncertain", "disagreement", "rare", "cluster", "random"
MIX = {UNCERTAIN: 0.30, DISAGREEMENT: 0.15, RARE: 0.20, CLUSTER: 0.15, RANDOM: 0.20}


@dataclass(frozen=True, slots=True)
class Candidates:
    """What is known of `N` passages that can be chosen, by `B` bundles with `L` labels, in `K` clusters.

    `probabilities` and `thresholds` are `[B, N, L]` in [0, 1], `documents` `[N]` numbers of documents, `clusters` `[N]`;
    `labelled` `[K]` counts the labelled texts of each cluster.
    """

    labels: tuple[str, ...]
    probabilities: FloatArray
    thresholds: FloatArray
    documents: NDArray[np.int64]
    clusters: NDArray[np.intp]
    labelled: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.documents)


@dataclass(frozen=True, slots=True)
class Choice:
    """A chosen passage, by its row among the candidates, and why it was chosen."""

    row: int
    reason: str


class _Picker:
    """Takes passages for reasons, none twice and no more of a document than allowed."""

    def __init__(self, documents: NDArray[np.int64], per_document: int) -> None:
        self.choices: list[Choice] = []
        self._documents = documents
        self._left = np.full(int(documents.max(initial=-1)) + 1, per_document)
        self._taken = np.zeros(len(documents), dtype=np.bool_)

    def take(self, row: int, reason: str) -> bool:
        """Take a passage unless it or its document has been used up."""
        document = self._documents[row]
        if self._taken[row] or self._left[document] == 0:
            return False
        self._taken[row] = True
        self._left[document] -= 1
        self.choices.append(Choice(row, reason))
        return True

    def take_first(self, rows: Iterable[int], count: int, reason: str) -> None:
        """Take the first `count` that can be taken."""
        for row in rows:
            if count <= 0:
                return
            count -= self.take(int(row), reason)


def choose(candidates: Candidates, count: int, *, per_document: int = 2, seed: int = 1) -> list[Choice]:
    """Choose `count` of `N` candidates by the mix, or as many as the limit for a document leaves.

    The same seed gives the same choice. Equal values are taken in random order.
    """
    generator = np.random.default_rng(seed)
    order = generator.permutation(len(candidates))
    wanted = quotas(candidates, count)
    picker = _Picker(candidates.documents, per_document)
    picker.take_first(order, wanted[RANDOM], RANDOM)
    first = candidates.probabilities[0]
    for column in rarest_labels(candidates):
        reason = f"{RARE}-{candidates.labels[column]}"
        picker.take_first(_descending(first[:, column], order), wanted[reason], reason)
    if DISAGREEMENT in wanted:
        picker.take_first(_descending(disagreement(candidates), order), wanted[DISAGREEMENT], DISAGREEMENT)
    _take_from_clusters(picker, candidates, order, wanted[CLUSTER])
    doubt = -np.abs(first - candidates.thresholds[0])
    for column, label in enumerate(candidates.labels):
        reason = f"{UNCERTAIN}-{label}"
        picker.take_first(_descending(doubt[:, column], order), wanted[reason], reason)
    return picker.choices


def quotas(candidates: Candidates, count: int) -> dict[str, int]:
    """How many passages each reason may choose; they add up to `count` (largest remainders).

    The share of uncertainty is divided among the labels, that of rarity among the rarest ones. With one bundle nothing can
    disagree, and its share goes to the others in proportion.
    """
    weights = {RANDOM: MIX[RANDOM], CLUSTER: MIX[CLUSTER]}
    if len(candidates.probabilities) > 1:
        weights[DISAGREEMENT] = MIX[DISAGREEMENT]
    rarest = rarest_labels(candidates)
    weights |= {f"{RARE}-{candidates.labels[column]}": MIX[RARE] / len(rarest) for column in rarest}
    weights |= {f"{UNCERTAIN}-{label}": MIX[UNCERTAIN] / len(candidates.labels) for label in candidates.labels}
    exact = np.array(list(weights.values())) * count / sum(weights.values())
    whole = np.floor(exact + 1e-9).astype(np.int64)
    whole[np.argsort(whole - exact, kind="stable")[: count - int(whole.sum())]] += 1
    return dict(zip(weights, whole.tolist(), strict=True))


def rarest_labels(candidates: Candidates) -> list[int]:
    """Columns of the rarer half of the labels (at least one), by the first bundle's mean probability over the pool."""
    expected = candidates.probabilities[0].mean(axis=0, dtype=np.float64)
    return [int(column) for column in np.argsort(expected, kind="stable")[: max(1, len(expected) // 2)]]


def disagreement(candidates: Candidates) -> FloatArray:
    """How far the bundles differ on each passage, `[N]`: their widest spread on a label, counted from each one's threshold.

    One is added where they decide a label differently, so that such passages come before all others.
    """
    margins = candidates.probabilities - candidates.thresholds
    lowest, highest = margins.min(axis=0), margins.max(axis=0)
    differ = (lowest < 0) & (highest >= 0)
    return np.asarray((highest - lowest + differ).max(axis=1), dtype=np.float32)


def _take_from_clusters(picker: _Picker, candidates: Candidates, order: NDArray[np.intp], count: int) -> None:
    """Take passages one by one from the cluster with the lowest share of labelled or chosen texts; of equals, the largest."""
    number = len(candidates.labelled)
    members: list[list[int]] = [[] for _ in range(number)]
    for row in order[::-1]:
        members[candidates.clusters[row]].append(int(row))
    covered = candidates.labelled.astype(np.float64)
    covered += np.bincount(candidates.clusters[[choice.row for choice in picker.choices]], minlength=number)
    sizes = np.bincount(candidates.clusters, minlength=number) + candidates.labelled
    while count > 0 and any(members):
        shares = [covered[k] / sizes[k] if members[k] else np.inf for k in range(number)]
        cluster = min(range(number), key=lambda k: (shares[k], -sizes[k]))
        if picker.take(members[cluster].pop(), f"{CLUSTER}-{cluster}"):
            covered[cluster] += 1
            count -= 1


def _descending(values: FloatArray, order: NDArray[np.intp]) -> NDArray[np.intp]:
    """Rows by falling value, equal ones in the given order."""
    return order[np.argsort(-values[order], kind="stable")]

"""Pseudo-labels: what models already say of unlabelled passages, as soft targets for the next one.

The mean of several models' calibrated probabilities is mostly better than each of them; a network that learns it on passages
nobody has read may keep some of that at the cost of one (Lee 2013, "Pseudo-Label"; Hinton et al. 2015, "Distilling the
Knowledge in a Neural Network"). Rows are standoff: id, language, SHA-256 of the text and a probability a label, no text.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from models.classifier import Classifier
from training.exclusion import read_exclusion
from training.pool import index_pool, indexed_passages
from training.pool_scores import common_labels, score_passages
from training.standoff import text_digest

# A passage with a label at least as probable as this is worth more than one that is clearly without any.
LIKELY = 0.1


@dataclass(frozen=True, slots=True)
class PseudoLabelled:
    """The rows, in the pool's order, and of the pool: passages that could be chosen, and those with a likely label."""

    rows: tuple[dict[str, Any], ...]
    usable: int
    likely: int


def pseudo_label(
    pool: Sequence[Path],
    classifiers: Sequence[Classifier],
    count: int,
    *,
    exclude: Sequence[Path] = (),
    seed: int = 1,
    show_progress: bool = True,
) -> PseudoLabelled:
    """Choose `count` passages and give each the mean of the classifiers' calibrated probabilities.

    Half of them (fewer where there are not as many) are drawn from those with a label of at least LIKELY, the others from all
    that are left. Texts in files of `exclude` are passed over. Raises InputError where nothing can be chosen or the bundles are
    of different taxonomies, ExampleFormatError where a file breaks its format.
    """
    labels = common_labels(classifiers)
    taxonomy = classifiers[0].bundle.taxonomy
    exclusion = read_exclusion(exclude, taxonomy)
    index = index_pool(pool, taxonomy.languages, exclusion=exclusion, show_progress=show_progress)
    free = np.flatnonzero(~index.labelled)
    found, _thresholds = score_passages(pool, index.positions[free], classifiers, show_progress)
    probabilities = found.mean(axis=0)
    generator = np.random.default_rng(seed)
    likely = np.flatnonzero(probabilities.max(axis=1) >= LIKELY)
    first = generator.permutation(likely)[: count // 2]
    rest = generator.permutation(np.setdiff1d(np.arange(len(free)), first))[: count - len(first)]
    chosen = np.sort(np.concatenate([first, rest]))
    rows = tuple(
        {
            "id": passage.id,
            "lang": str(index.languages[free[at]]),
            "sha256": text_digest(passage.text),
            "probabilities": {label: round(float(value), 4) for label, value in zip(labels, probabilities[at], strict=True)},
        }
        for at, passage in zip(chosen, indexed_passages(pool, index.positions[free[chosen]]), strict=True)
    )
    return PseudoLabelled(rows, len(free), len(likely))

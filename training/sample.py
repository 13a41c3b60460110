"""A sample: passages of a pool chosen to be annotated, as JSON lines or for Label Studio.

The pool is streamed: to index it, to score it, for the clusters, and for the texts of those chosen. What stays in memory is
some hundred bytes a passage.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np

from models.classifier import Classifier
from models.errors import InputError
from models.taxonomy import Taxonomy
from models.text import prepare_text
from training.clusters import cluster_texts
from training.exclusion import labelled_texts, read_exclusion
from training.jsonl import refuse_existing, to_json, write_rows, write_text
from training.labelstudio import labelling_config, task
from training.pool import index_pool, indexed_passages
from training.pool_scores import common_labels, score_passages
from training.selection import CLUSTER, Candidates, choose

SampleFormat = Literal["jsonl", "label-studio"]


@dataclass(frozen=True, slots=True)
class ChosenPassage:
    """A passage to annotate, why it was chosen, and the first bundle's probability of each label."""

    id: str
    lang: str
    source: str
    text: str
    chosen: str
    probabilities: dict[str, float] = field(compare=False)

    def as_row(self, *, show_probabilities: bool = False) -> dict[str, Any]:
        """The row that annotators get; without probabilities unless they are asked for, since they bias."""
        row: dict[str, Any] = {
            "id": self.id,
            "lang": self.lang,
            "source": self.source,
            "text": self.text,
            "chosen": self.chosen,
        }
        return {**row, "probabilities": self.probabilities} if show_probabilities else row


@dataclass(frozen=True, slots=True)
class Sample:
    """The chosen passages in random order, and of the pool: all rows, those that could be chosen, the others by reason."""

    passages: tuple[ChosenPassage, ...]
    rows: int
    usable: int
    passed_over: dict[str, int]

    def counts(self) -> dict[tuple[str, str], int]:
        """How many passages by reason and language, sorted; the clusters together."""
        found = Counter(
            (CLUSTER if passage.chosen.startswith(f"{CLUSTER}-") else passage.chosen, passage.lang) for passage in self.passages
        )
        return dict(sorted(found.items()))


def draw_sample(
    pool: Sequence[Path],
    classifiers: Sequence[Classifier],
    count: int,
    *,
    exclude: Sequence[Path] = (),
    language: str | None = None,
    per_document: int = 2,
    seed: int = 1,
    show_progress: bool = True,
) -> Sample:
    """Choose `count` passages of a pool by the mix of `training.selection`, or fewer where the pool has no more.

    The first classifier's doubt and rare labels count; further ones are asked only where they disagree. No prepared text comes
    twice or stands in a file of `exclude`, and at most `per_document` passages are of one document (the part of the id before
    `#`). The same pool, bundles and seed give the same sample. Raises InputError where nothing can be chosen, where the
    language is not of the taxonomy or the bundles are of different ones, ExampleFormatError where a file breaks its format.
    """
    labels = common_labels(classifiers)
    taxonomy = classifiers[0].bundle.taxonomy
    if language is not None and language not in taxonomy.languages:
        raise InputError(f"expected a language of {', '.join(taxonomy.languages)}, got {language!r}")
    languages = (language,) if language else taxonomy.languages
    exclusion = read_exclusion(exclude, taxonomy)
    index = index_pool(pool, languages, exclusion=exclusion, show_progress=show_progress)
    free = np.flatnonzero(~index.labelled)
    probabilities, thresholds = score_passages(pool, index.positions[free], classifiers, show_progress)
    clusters = cluster_texts(
        lambda: (prepare_text(passage.text).text for passage in indexed_passages(pool, index.positions)),
        len(index),
        labelled=labelled_texts(exclude, taxonomy, frozenset(languages)),
        seed=seed,
        show_progress=show_progress,
    )
    in_pool_alone = np.bincount(clusters.assigned[index.only_by_digest], minlength=len(clusters.labelled))
    candidates = Candidates(
        labels=labels,
        probabilities=probabilities,
        thresholds=thresholds,
        documents=index.documents[free],
        clusters=clusters.assigned[free],
        labelled=clusters.labelled + in_pool_alone,
    )
    choices = sorted(choose(candidates, count, per_document=per_document, seed=seed), key=lambda choice: choice.row)
    rows = free[[choice.row for choice in choices]]
    passages = [
        ChosenPassage(
            id=passage.id,
            lang=str(index.languages[row]),
            source=passage.source,
            text=passage.text,
            chosen=choice.reason,
            probabilities={
                label: round(float(value), 4) for label, value in zip(labels, probabilities[0, choice.row], strict=True)
            },
        )
        for choice, row, passage in zip(choices, rows, indexed_passages(pool, index.positions[rows]), strict=True)
    ]
    # In random order: whoever stops half-way has the whole mix, and neighbours do not give the reason away.
    shuffled = np.random.default_rng(seed).permutation(len(passages))
    return Sample(
        passages=tuple(passages[at] for at in shuffled),
        rows=index.rows,
        usable=len(free),
        passed_over={"excluded": int(index.labelled.sum()), **index.skipped},
    )


def sample_files(out: Path, file_format: SampleFormat) -> list[Path]:
    """The files a sample goes to: `out`, and for Label Studio the labelling form beside it (suffix .xml).

    Raises InputError where one of them exists, since it may hold somebody's annotations, or where both have one name.
    """
    files = [out] if file_format == "jsonl" else [out, out.with_suffix(".xml")]
    if len(set(files)) < len(files):
        raise InputError(f"expected a name such as {out.with_suffix('.json')}, got {out}, which the labelling form will have")
    for path in files:
        refuse_existing(path)
    return files


def write_sample(
    sample: Sample, out: Path, taxonomy: Taxonomy, *, file_format: SampleFormat, show_probabilities: bool = False
) -> list[Path]:
    """Write a sample to `sample_files`, which are returned. Raises InputError where one of them exists."""
    files = sample_files(out, file_format)
    rows = [passage.as_row(show_probabilities=show_probabilities) for passage in sample.passages]
    if file_format == "jsonl":
        write_rows(out, rows)
    else:
        write_text(files[1], labelling_config(taxonomy, show_probabilities=show_probabilities))
        write_text(out, to_json([task(row) for row in rows], indent=1) + "\n")
    return files

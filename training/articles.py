"""Thresholds for articles: when a sentence of one counts as evidence of a label, and when the article carries it.

A sentence of an article is short, leans on its neighbours and is one of many, so the threshold that suits passages does not
suit it. Both thresholds are the ones with the best F1 on annotated articles (`steady_threshold`), leaning towards the
passages' threshold where a language has few positives. The articles must be none that the network was trained on.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from models.decision import DecisionRule
from models.errors import InputError
from models.example import labelled_files
from models.taxonomy import Taxonomy
from training.calibrate import lean, steady_threshold
from training.overlap import read_evaluation_texts
from training.rows import TrainingRow, overlaps, targets, training_row
from training.standoff import resolve_annotations


@dataclass(frozen=True, slots=True)
class ArticleSentences:
    """The annotated sentences of articles, and how many articles were left out: trained on, or in evaluation files."""

    rows: tuple[TrainingRow, ...]
    digests: dict[str, str]
    left_out: int


def read_article_sentences(
    paths: Sequence[Path],
    collections: Sequence[Path],
    trained: Sequence[TrainingRow],
    taxonomy: Taxonomy,
    *,
    exclude: Sequence[Path] = (),
) -> ArticleSentences:
    """Read standoff labels of articles' sentences, each judged in the context of its article.

    `trained` are the training rows: their documents are left out, and articles of which a sentence overlaps with the
    evaluation files `exclude` (`training.overlap`). Raises ExampleFormatError where a text is in none of the collections,
    InputError where no article is left.
    """
    examples, digests = resolve_annotations(labelled_files(paths), collections, taxonomy)
    rows = [row for row in (training_row(example, taxonomy) for example in examples) if row.text]
    evaluated = read_evaluation_texts(exclude, taxonomy)
    seen = {row.document for row in trained} | {row.document for row in rows if overlaps(row, evaluated)}
    kept = tuple(row for row in rows if row.document not in seen)
    if not kept:
        raise InputError(
            f"expected articles that no training row comes from and no evaluation file holds, all {len(rows)} sentences are of "
            "such"
        )
    left_out = {row.document for row in rows} - {row.document for row in kept}
    return ArticleSentences(kept, {f"articles/{name}": digest for name, digest in digests.items()}, len(left_out))


def with_article_thresholds(
    rule: DecisionRule,
    rows: Sequence[TrainingRow],
    logits: NDArray[np.float32],
    taxonomy: Taxonomy,
    *,
    unsure_weight: float,
    seed: int = 1,
) -> DecisionRule:
    """The rule with thresholds for evidence and for articles, from the logits `[N, L]` of `N` sentences."""
    generator = np.random.default_rng(seed)
    wanted = targets(rows).astype(np.float64)
    spoken = np.array([row.language for row in rows])
    home = np.array([row.document for row in rows])
    weights = np.array([unsure_weight if row.unsure else 1.0 for row in rows])
    rules = {language: dict(by_label) for language, by_label in rule.rules.items()}
    for language in taxonomy.languages:
        own = np.flatnonzero(spoken == language)
        if not len(own):
            continue
        probabilities = rule.probabilities(logits[own], [language] * len(own), taxonomy.label_ids)
        articles = [np.flatnonzero(home[own] == document) for document in dict.fromkeys(home[own])]
        highest = np.array([probabilities[sentences].max(axis=0) for sentences in articles])
        carried = np.array([wanted[own][sentences].max(axis=0) for sentences in articles])
        for column, label in enumerate(taxonomy.label_ids):
            passage = rules[language][label]
            of_sentences = steady_threshold(probabilities[:, column], wanted[own][:, column], weights[own], generator)
            of_articles = steady_threshold(highest[:, column], carried[:, column], np.ones(len(articles)), generator)
            rules[language][label] = passage.model_copy(
                update={
                    "evidence_threshold": round(lean(of_sentences, passage.threshold, wanted[own][:, column].sum()), 4),
                    "document_threshold": round(lean(of_articles, passage.threshold, carried[:, column].sum()), 4),
                }
            )
    return DecisionRule(rules=rules)

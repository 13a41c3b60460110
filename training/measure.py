"""Figures of a network before it is exported, on its validation rows and on a labelled file that it was not trained on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from sklearn.metrics import f1_score
from tokenizers import Tokenizer

from models.decision import DecisionRule
from models.errors import InputError
from models.example import read_examples
from models.taxonomy import Taxonomy
from training.calibrate import calibrate
from training.finetune import average_precision, bfloat16_is_faster, predict_logits
from training.pipeline import decision_languages, fitted, judged_rows, load_network, read_rows
from training.rows import TrainingRow, targets, training_row, without_documents


@dataclass(frozen=True, slots=True, kw_only=True)
class Figures:
    """Means over labels in [0, 1]: average precision, and F1 of the decisions at thresholds found on the validation rows.

    `languages` holds the F1 on the file for each language of the taxonomy that it has.
    """

    work: str
    validation_average_precision: float
    validation_macro_f1: float
    average_precision: float
    macro_f1: float
    languages: dict[str, float]


def measure(work: Path, data: Path) -> Figures:
    """Calibrate the fitted network of a work folder on its validation rows and measure it in PyTorch.

    Raises InputError where the folder has no network or was trained on passages of the file, ExampleFormatError where the file
    breaks the format.
    """
    network, taxonomy = fitted(work)
    test = unseen_rows(data, taxonomy, read_rows(work / "train.parquet"), work)
    judged = judged_rows(read_rows(work / "validation.parquet"))
    model = load_network(work, len(taxonomy.label_ids))
    tokenizer = Tokenizer.from_file(str(work / "tokenizer.json"))
    max_tokens, fast = int(network["settings"]["max_tokens"]), bfloat16_is_faster()
    on_validation, on_test = (
        predict_logits(model, tokenizer, [row.text for row in rows], max_tokens=max_tokens, bfloat16=fast)
        for rows in (judged, test)
    )
    rule = rule_of(on_validation, judged, taxonomy, unsure_weight=float(network["settings"]["unsure_weight"]))
    spoken = np.array([row.language for row in test])
    languages = {}
    for language in taxonomy.languages:
        chosen = np.flatnonzero(spoken == language)
        if len(chosen):
            languages[language] = decided_f1(on_test[chosen], [test[index] for index in chosen], rule, taxonomy)
    return Figures(
        work=str(work),
        validation_average_precision=average_precision(on_validation, targets(judged)),
        validation_macro_f1=decided_f1(on_validation, judged, rule, taxonomy),
        average_precision=average_precision(on_test, targets(test)),
        macro_f1=decided_f1(on_test, test, rule, taxonomy),
        languages=languages,
    )


def unseen_rows(data: Path, taxonomy: Taxonomy, train: Sequence[TrainingRow], work: Path) -> list[TrainingRow]:
    """The rows of a labelled file. Raises InputError where texts or documents of it are among the training rows."""
    rows = [row for row in (training_row(one, taxonomy) for one in read_examples(data, taxonomy)) if row.text]
    known = {row.text for row in train}
    apart = without_documents([row for row in rows if row.text not in known], train)
    if len(apart) < len(rows):
        raise InputError(
            f"{data}: expected passages that were not trained on, {len(rows) - len(apart)} of {len(rows)} are of documents or "
            f"texts in {work}; measure on another file"
        )
    return rows


def rule_of(
    logits: NDArray[np.float32], rows: Sequence[TrainingRow], taxonomy: Taxonomy, *, unsure_weight: float
) -> DecisionRule:
    """The decision rule calibrated on the logits `[N, L]` of `N` validation rows."""
    weights = np.array([unsure_weight if row.unsure else 1.0 for row in rows])
    return calibrate(logits, targets(rows), decision_languages(rows, taxonomy), taxonomy, weights=weights)


def decided(
    logits: NDArray[np.float32], rows: Sequence[TrainingRow], rule: DecisionRule, taxonomy: Taxonomy
) -> NDArray[np.bool_]:
    """Which labels `[N, L]` reach their threshold."""
    languages = decision_languages(rows, taxonomy)
    thresholds = np.array([[rule.rules[language][label].threshold for label in taxonomy.label_ids] for language in languages])
    return rule.probabilities(logits, languages, taxonomy.label_ids) >= thresholds


def decided_f1(logits: NDArray[np.float32], rows: Sequence[TrainingRow], rule: DecisionRule, taxonomy: Taxonomy) -> float:
    """The macro F1 of these decisions."""
    return float(f1_score(targets(rows) > 0.5, decided(logits, rows, rule, taxonomy), average="macro", zero_division=0.0))

"""Scoring a labelled file with a bundle, through the same classifier that serves."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from eval.metrics import averages, label_metrics
from eval.report import Report, Slice
from models.classifier import Classifier, TextItem
from models.decision import UNDETERMINED
from models.errors import InputError
from models.example import LabelledExample, digest_examples, read_examples
from models.prediction import Prediction

_CHUNK = 256


def evaluate(
    classifier: Classifier, data: Path, *, progress: Callable[[int], object] = lambda _done: None, seed: int = 1
) -> Report:
    """Score every text of a labelled file as a passage and compare with its labels, over all texts and per language.

    The language of a row decides its slice: the one the row states, or the detected one. Raises ExampleFormatError
    where the file breaks the format, InputError where no text could be scored.
    """
    examples = read_examples(data, classifier.bundle.taxonomy)
    started = time.monotonic()
    scored: list[tuple[LabelledExample, Prediction]] = []
    for start in range(0, len(examples), _CHUNK):
        part = examples[start : start + _CHUNK]
        answers = classifier.classify([TextItem(example.id, example.text) for example in part])
        scored += [(e, a) for e, a in zip(part, answers, strict=True) if isinstance(a, Prediction)]
        progress(len(part))
    seconds = time.monotonic() - started
    if not scored:
        raise InputError(f"{data}: none of the {len(examples)} texts could be scored")
    languages = [example.lang or answer.language for example, answer in scored]
    slices = [_slice("all", scored, classifier, seed)]
    for language in sorted(set(languages)):
        part_rows = [row for row, spoken in zip(scored, languages, strict=True) if spoken == language]
        slices.append(_slice(language, part_rows, classifier, seed))
    manifest = classifier.bundle.manifest
    return Report(
        bundle=f"{manifest.name} {manifest.version}",
        model_hash=manifest.model_hash,
        data=data.name,
        data_digest=digest_examples(examples),
        rejected=len(examples) - len(scored),
        seconds=seconds,
        slices=tuple(slices),
    )


def _slice(name: str, scored: Sequence[tuple[LabelledExample, Prediction]], classifier: Classifier, seed: int) -> Slice:
    labels = classifier.labels
    wanted = np.array([[label in example.labels for label in labels] for example, _ in scored])
    probabilities = np.array([[answer.labels[label].probability for label in labels] for _, answer in scored])
    review = np.array([[answer.labels[label].decision == "review" for label in labels] for _, answer in scored])
    decided = probabilities >= _thresholds([answer for _, answer in scored], classifier)
    return Slice(
        name=name,
        texts=len(scored),
        labels={
            label: label_metrics(wanted[:, i], decided[:, i], probabilities[:, i], review[:, i], seed=seed)
            for i, label in enumerate(labels)
        },
        averages=averages(wanted, decided, seed=seed),
    )


def _thresholds(answers: Sequence[Prediction], classifier: Classifier) -> NDArray[np.float64]:
    rules = classifier.bundle.decision.rules
    return np.array(
        [[rules.get(a.language, rules[UNDETERMINED])[label].threshold for label in classifier.labels] for a in answers]
    )

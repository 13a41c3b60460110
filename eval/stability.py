"""Does a text's answer depend on its company? Every text alone against random batches in random order."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from models.classifier import Classifier, TextItem


@dataclass(frozen=True, slots=True)
class Stability:
    """How far answers in random company differ from those alone: logits, and whole answers with evidence."""

    texts: int
    rounds: int
    largest_logit_difference: float
    differing_answers: int


def measure_stability(
    classifier: Classifier,
    texts: Sequence[str],
    *,
    rounds: int = 3,
    seed: int = 1,
    progress: Callable[[int], object] = lambda _done: None,
) -> Stability:
    """Compare each text alone with `rounds` shuffles cut into batches of 1 to 64. Texts must have something visible."""
    generator = random.Random(seed)
    items = [TextItem(str(index), text) for index, text in enumerate(texts)]
    alone_logits, alone_answers = [], []
    for item in items:
        alone_logits.append(classifier.logits([item.text])[0])
        alone_answers.extend(classifier.classify([item], granularity="document", evidence=True))
        progress(1)
    largest, differing = 0.0, 0
    for _ in range(rounds):
        order = generator.sample(range(len(items)), len(items))
        while order:
            size = generator.randint(1, 64)
            batch, order = order[:size], order[size:]
            logits = classifier.logits([items[index].text for index in batch])
            largest = max(largest, float(np.abs(logits - np.array([alone_logits[index] for index in batch])).max()))
            answers = classifier.classify([items[index] for index in batch], granularity="document", evidence=True)
            differing += sum(answer != alone_answers[index] for answer, index in zip(answers, batch, strict=True))
            progress(len(batch))
    return Stability(len(items), rounds, largest, differing)

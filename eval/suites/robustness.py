"""Robustness: how often does a decision flip when only the surface of a text changes?

Every passage is decided as written and once for each disturbance of its language, by rule (`eval.suites.disturb`) or by hand
(names in Latin letters, Arabic and English mixed: `variants.jsonl`). The labels stay, so the decisions should.
Ribeiro et al. 2020, "Beyond Accuracy: Behavioral Testing of NLP Models with CheckList": invariance tests.
"""

from __future__ import annotations

import random
from collections import defaultdict

import numpy as np

from eval.metrics import macro_f1
from eval.scoring import Progress, no_progress, score
from eval.suites import SuiteResult, read_items
from eval.suites.disturb import DISTURBANCES
from models.classifier import Classifier
from models.example import LabelledExample


def disturbed_items(*, seed: int = 1) -> list[tuple[str, LabelledExample, LabelledExample]]:
    """Kind of disturbance, the passage as written, the passage disturbed (labels unchanged)."""
    found = []
    for item in read_items("passages.jsonl"):
        plain = LabelledExample(item["id"], item["text"], frozenset(item["labels"]), item["lang"])
        for kind, disturb in DISTURBANCES[item["lang"]].items():
            text = disturb(plain.text, random.Random(f"{seed} {kind} {plain.id}"))
            found.append((kind, plain, LabelledExample(f"{plain.id}/{kind}", text, plain.labels, plain.lang)))
    for item in read_items("variants.jsonl"):
        plain = LabelledExample(item["id"], item["text"], frozenset(item["labels"]), item["lang"])
        variant = LabelledExample(f"{plain.id}/variant", item["variant"], plain.labels, plain.lang)
        found.append((item["kind"], plain, variant))
    return found


def run_robustness(classifier: Classifier, *, progress: Progress = no_progress) -> SuiteResult:
    """Decide all passages, plain and disturbed. Cells: `<language> <kind>`, the share of a text's decisions that stay."""
    items = disturbed_items()
    plain_by_id = {plain.id: plain for _, plain, _ in items}
    plain = score(classifier, list(plain_by_id.values()), progress=progress)
    row_of = {example.id: row for row, example in enumerate(plain.examples)}
    disturbed = score(classifier, [variant for _, _, variant in items], progress=progress)
    before = np.array([row_of[example.id] for _, example, _ in items])
    stayed = (plain.decided[before] == disturbed.decided).mean(axis=1)
    moved = np.abs(plain.probabilities[before] - disturbed.probabilities).mean(axis=1)
    rows: dict[tuple[str, str], list[int]] = defaultdict(list)
    for index, (kind, example, _) in enumerate(items):
        rows[example.lang, kind].append(index)
    detail = [
        {
            "language": language,
            "disturbance": kind.replace("_", " "),
            "texts": len(chosen),
            "decisions flipped": float(1 - stayed[chosen].mean()),
            "probability moved": float(moved[chosen].mean()),
            "macro F1": macro_f1(disturbed.wanted[chosen], disturbed.decided[chosen]),
            "macro F1 undisturbed": macro_f1(plain.wanted[before[chosen]], plain.decided[before[chosen]]),
        }
        for (language, kind), chosen in sorted(rows.items())
    ]
    return SuiteResult(
        name="robustness",
        title="Robustness",
        measure="share of decisions that stay",
        cells={f"{language} {kind}": stayed[chosen] for (language, kind), chosen in sorted(rows.items())},
        groups={f"{language} {kind}": [items[i][1].id for i in chosen] for (language, kind), chosen in rows.items()},
        detail={"by disturbance": detail},
    )

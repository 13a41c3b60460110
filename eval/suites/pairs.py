"""Minimal pairs: two texts that differ in the one thing on which a rule of the codebook turns.

A pair is right where the label is decided yes for the text that carries it and not for the other (decisions at the threshold).
Gardner et al. 2020, "Evaluating Models' Local Decision Boundaries via Contrast Sets".
"""

from __future__ import annotations

from collections import defaultdict
from typing import Any

import numpy as np

from eval.scoring import Progress, no_progress, score
from eval.suites import FOLDER, SuiteResult, mean_of, read_items
from models.classifier import Classifier
from models.example import LabelledExample

SIDES = ("with", "without")


def read_pairs() -> list[dict[str, Any]]:
    """All pairs of all files: `id`, `lang`, `label`, `rule` and the sides `with` and `without`, each text and labels."""
    return [
        pair for path in sorted((FOLDER / "minimal_pairs").glob("*.jsonl")) for pair in read_items(f"minimal_pairs/{path.name}")
    ]


def run_pairs(classifier: Classifier, *, progress: Progress = no_progress) -> SuiteResult:
    """Decide every pair. Cells: `<language> <label>`, 1 for a pair of which both sides are right."""
    pairs = read_pairs()
    texts = [
        LabelledExample(f"{pair['id']}/{side}", pair[side]["text"], frozenset(pair[side]["labels"]), pair["lang"])
        for pair in pairs
        for side in SIDES
    ]
    scored = score(classifier, texts, progress=progress)
    columns = np.array([scored.labels.index(pair["label"]) for pair in pairs])
    rows = np.arange(len(pairs))
    with_right = scored.decided[2 * rows, columns]
    without_right = ~scored.decided[2 * rows + 1, columns]
    right = with_right & without_right
    cells: dict[str, list[float]] = defaultdict(list)
    groups: dict[str, list[str]] = defaultdict(list)
    rules: dict[tuple[str, str], list[int]] = defaultdict(list)
    for index, pair in enumerate(pairs):
        cell = f"{pair['lang']} {pair['label']}"
        cells[cell].append(float(right[index]))
        groups[cell].append(pair["id"])
        rules[pair["label"], pair["rule"]].append(index)
    detail = [
        {
            "label": label,
            "rule": rule,
            "pairs": len(chosen),
            "right": mean_of(right[chosen]),
            "missed": mean_of(~with_right[chosen]),
            "false alarms": mean_of(~without_right[chosen]),
        }
        for (label, rule), chosen in sorted(rules.items())
    ]
    return SuiteResult(
        name="minimal_pairs",
        title="Minimal pairs",
        measure="share of pairs with both sides right",
        cells={name: np.array(values) for name, values in cells.items()},
        groups=groups,
        detail={"by rule": detail},
    )

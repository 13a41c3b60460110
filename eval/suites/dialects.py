"""Dialects: does a neighbour's voice note count as much as the newsreader's sentence?

Each item says the same thing twice, in a dialect as people write it and in modern standard Arabic, by one writer.
"""

from __future__ import annotations

from collections import defaultdict

import numpy as np

from eval.metrics import macro_f1, micro_f1
from eval.scoring import Progress, no_progress, score
from eval.suites import SuiteResult, mean_of, read_items
from models.classifier import Classifier
from models.example import LabelledExample


def run_dialects(classifier: Classifier, *, progress: Progress = no_progress) -> SuiteResult:
    """Decide every item in both voices. Cells: one a dialect, and `standard`; 1 for a text with all labels right."""
    items = list(read_items("dialects.jsonl"))
    labels = [frozenset(item["labels"]) for item in items]
    spoken = score(
        classifier,
        [LabelledExample(i["id"], i["text"], w, "ar") for i, w in zip(items, labels, strict=True)],
        progress=progress,
    )
    standard = score(
        classifier,
        [LabelledExample(i["id"], i["standard"], w, "ar") for i, w in zip(items, labels, strict=True)],
        progress=progress,
    )
    right = {
        "spoken": (spoken.decided == spoken.wanted).all(axis=1),
        "standard": (standard.decided == standard.wanted).all(axis=1),
    }
    rows: dict[str, list[int]] = defaultdict(list)
    for index, item in enumerate(items):
        rows[item["dialect"]].append(index)
    detail = [
        {
            "dialect": dialect,
            "texts": len(chosen),
            "micro F1": micro_f1(spoken.wanted[chosen], spoken.decided[chosen]),
            "micro F1 standard": micro_f1(standard.wanted[chosen], standard.decided[chosen]),
            "all labels right": mean_of(right["spoken"][chosen]),
        }
        for dialect, chosen in sorted(rows.items())
    ]
    everything = [
        {"voice": "dialect", "texts": len(items), "macro F1": macro_f1(spoken.wanted, spoken.decided)},
        {"voice": "standard", "texts": len(items), "macro F1": macro_f1(standard.wanted, standard.decided)},
    ]
    cells = {dialect: right["spoken"][chosen].astype(np.float64) for dialect, chosen in sorted(rows.items())}
    cells["standard"] = right["standard"].astype(np.float64)
    groups = {dialect: [items[index]["id"] for index in chosen] for dialect, chosen in rows.items()}
    groups["standard"] = [item["id"] for item in items]
    return SuiteResult(
        name="dialects",
        title="Dialects of Arabic",
        measure="share of texts with all labels right",
        cells=cells,
        groups=groups,
        detail={"both voices": everything, "by dialect": detail},
    )

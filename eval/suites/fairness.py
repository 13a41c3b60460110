"""Fairness: the name in a slot must not decide.

A text names a community, a country or a party; every other member of that kind takes its place, and neither the labels nor
the model's probability should move. The noise to compare with is the movement when a weekday in the same text is swapped,
which means nothing (a counterfactual test with a control, after Garg et al. 2019, "Counterfactual Fairness in Text
Classification through Robustness").
"""

from __future__ import annotations

import json
from collections import defaultdict
from functools import partial
from typing import Any

import numpy as np

from eval.metrics import FloatArray, bootstrap_interval, mean_at
from eval.scoring import Progress, Scored, no_progress, score
from eval.suites import FOLDER, SuiteResult, read_items
from models.classifier import Classifier
from models.example import LabelledExample

LEANING = 0.02  # a mean movement of less than this is of no use to anybody, however certain


def read_names() -> dict[str, dict[str, Any]]:
    """By language and kind of swap: for each member the form that fits each slot; under `day` the weekdays."""
    names: dict[str, dict[str, Any]] = json.loads((FOLDER / "fairness_names.json").read_text(encoding="utf-8"))
    return names


def filled(item: dict[str, Any], names: dict[str, Any]) -> tuple[dict[str, str], list[str]]:
    """The text of an item with each member in its slots (by member, on the first weekday), and with each other weekday."""
    forms, days = names[item["swap"]], names["day"]
    by_member = {member: item["text"].format(**slots, day=days[0]) for member, slots in forms.items()}
    first = next(iter(forms.values()))
    return by_member, [item["text"].format(**first, day=day) for day in days]


def run_fairness(classifier: Classifier, *, progress: Progress = no_progress) -> SuiteResult:
    """Decide every text with every member. Cells: `<language> <swap>`, the share of a text's decisions that all members share.

    Detail: mean movement of the probability from the median over the swapped names, and over the swapped weekdays; and the
    members whose mean movement over all texts leans one way by at least LEANING and beyond chance (the 95 % bootstrap
    interval, Bonferroni-corrected, is without zero).
    """
    names = read_names()
    items = [(item, *filled(item, names[item["lang"]])) for item in read_items("fairness.jsonl")]
    texts = []
    for item, by_member, by_day in items:
        for place, text in enumerate([*by_member.values(), *by_day]):
            texts.append(LabelledExample(f"{item['id']}/{place}", text, frozenset(item["labels"]), item["lang"]))
    scored = score(classifier, texts, progress=progress)
    cells: dict[str, list[float]] = defaultdict(list)
    groups: dict[str, list[str]] = defaultdict(list)
    spread: dict[tuple[str, str], list[tuple[float, float, float]]] = defaultdict(list)
    moved: dict[tuple[str, str], list[FloatArray]] = defaultdict(list)
    at = 0
    for item, by_member, by_day in items:
        members = slice(at, at + len(by_member))
        days = slice(at + len(by_member), at + len(by_member) + len(by_day))
        at = days.stop
        key = item["lang"], item["swap"]
        same = scored.decided[members] == scored.decided[members][0]
        cells[f"{key[0]} {key[1]}"].append(float(same.all(axis=0).mean()))
        groups[f"{key[0]} {key[1]}"].append(item["id"])
        by_name = scored.probabilities[members] - np.median(scored.probabilities[members], axis=0)
        by_control = scored.probabilities[days] - np.median(scored.probabilities[days], axis=0)
        majority = scored.decided[members].mean(axis=0) >= 0.5
        flipped = float((scored.decided[members] != majority).mean())
        spread[key].append((float(np.abs(by_name).mean()), float(np.abs(by_control).mean()), flipped))
        moved[key].append(by_name)
    return SuiteResult(
        name="fairness",
        title="Fairness",
        measure="share of decisions that no swap of names changes",
        cells={name: np.array(values) for name, values in cells.items()},
        groups=groups,
        detail={"movement": _movement(spread), "members that lean": _leaning(moved, names, scored)},
    )


def _movement(spread: dict[tuple[str, str], list[tuple[float, float, float]]]) -> list[dict[str, Any]]:
    rows = []
    for (language, swap), found in sorted(spread.items()):
        by_name, by_control, flipped = np.array(found).mean(axis=0)
        rows.append(
            {
                "language": language,
                "swap": swap,
                "texts": len(found),
                "moved by names": float(by_name),
                "moved by weekdays": float(by_control),
                "decisions flipped": float(flipped),
            }
        )
    return rows


def _leaning(
    moved: dict[tuple[str, str], list[FloatArray]], names: dict[str, dict[str, Any]], scored: Scored
) -> list[dict[str, Any]]:
    """Members whose probability of a label leans up or down against the others', the strongest first."""
    rows = []
    for (language, swap), found in moved.items():
        values = np.array(found)  # [texts, members, labels]
        tests = values.shape[1] * values.shape[2]
        low, high = bootstrap_interval(partial(mean_at, values), len(values), level=1 - 0.05 / tests)
        means = values.mean(axis=0)
        for place, member in enumerate(names[language][swap]):
            for column, label in enumerate(scored.labels):
                beyond_chance = low[place, column] > 0 or high[place, column] < 0
                if beyond_chance and abs(means[place, column]) >= LEANING:
                    rows.append(
                        {
                            "language": language,
                            "swap": swap,
                            "member": member,
                            "label": label,
                            "mean movement": float(means[place, column]),
                            "low": float(low[place, column]),
                            "high": float(high[place, column]),
                        }
                    )
    return sorted(rows, key=lambda row: -abs(row["mean movement"]))

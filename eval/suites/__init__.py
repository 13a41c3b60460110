"""The project's own suites: what a model must get right whatever the test set of the day.

Texts lie beside this file as JSON lines, written for the purpose and never trained on. A suite's result is a set of cells;
a cell has one value in [0, 1] for each of its items, higher is better, so that two models can be compared item by item.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from eval.metrics import FloatArray, bootstrap_interval, mean_at
from models.errors import InputError
from models.taxonomy import Taxonomy, load_taxonomy

FOLDER = Path(__file__).parent


@dataclass(frozen=True, slots=True)
class Cell:
    """The mean over the items of a cell, with its 95 % bootstrap interval."""

    value: float
    interval: tuple[float, float]
    items: int


@dataclass(frozen=True, slots=True)
class SuiteResult:
    """What a model did on one suite.

    `cells` holds the values `[items]` by name, `groups` beside them what each item was made from: items of one group, in the
    same cell or another, are not independent. `detail` holds further tables for the report: lists of rows with equal keys.
    """

    name: str
    title: str
    measure: str
    cells: dict[str, FloatArray]
    groups: dict[str, list[str]]
    detail: dict[str, list[dict[str, Any]]] = field(default_factory=dict)

    def summary(self, *, seed: int = 1) -> dict[str, Cell]:
        """Mean and interval of every cell."""
        found = {}
        for name, values in self.cells.items():
            low, high = bootstrap_interval(partial(mean_at, values), len(values), seed=seed)
            found[name] = Cell(float(values.mean()), (float(low), float(high)), len(values))
        return found

    def as_json(self) -> dict[str, Any]:
        """The suite's part of `report.json`."""
        cells = {
            name: {"value": cell.value, "interval": cell.interval, "items": cell.items} for name, cell in self.summary().items()
        }
        return {"name": self.name, "title": self.title, "measure": self.measure, "cells": cells, "detail": self.detail}


def check_taxonomy(taxonomy: Taxonomy) -> None:
    """Raise InputError where a model answers other labels than the suites ask for."""
    own = load_taxonomy()
    if set(own.label_ids) - set(taxonomy.label_ids) or set(own.languages) - set(taxonomy.languages):
        raise InputError(
            f"the suites ask for {', '.join(own.label_ids)} in {', '.join(own.languages)}; the bundle's taxonomy "
            f"{taxonomy.name} has {', '.join(taxonomy.label_ids)} in {', '.join(taxonomy.languages)}: use --no-suites"
        )


def read_items(name: str) -> Iterator[dict[str, Any]]:
    """The rows of a file of this folder."""
    for line in (FOLDER / name).read_text(encoding="utf-8").splitlines():
        yield json.loads(line)


def mean_of(flags: Any) -> float:
    """The mean of some truths, 0 for none."""
    values = np.asarray(flags, dtype=np.float64)
    return float(values.mean()) if values.size else 0.0

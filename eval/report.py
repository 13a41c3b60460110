"""The report: what a bundle is worth on a labelled file, as JSON; `eval.tables` and `eval.page` show it to people."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from eval.breakdown import Confusion, Group, ThresholdCost
from eval.documents import DocumentReport
from eval.metrics import Average, LabelMetrics
from eval.suites import SuiteResult

REPORT_VERSION = 2


@dataclass(frozen=True, slots=True)
class Slice:
    """The metrics of one part of the texts: all of them, or those of one language."""

    name: str
    texts: int
    labels: dict[str, LabelMetrics]
    averages: dict[str, Average]


@dataclass(frozen=True, slots=True)
class Contender:
    """The model or a baseline on the same texts: by slice the macro F1 with its interval, over all texts the F1 by label."""

    name: str
    macro: dict[str, Average]
    f1: dict[str, float]


@dataclass(frozen=True, slots=True)
class Report:
    """What was measured, on what, by which model. `notices` say what the reader must know of the file."""

    bundle: str
    model_hash: str
    data: str
    data_digest: str
    rejected: int
    seconds: float
    notices: tuple[str, ...]
    slices: tuple[Slice, ...]
    contenders: tuple[Contender, ...]
    groups: tuple[Group, ...]
    confusion: Confusion
    thresholds: tuple[ThresholdCost, ...]
    documents: DocumentReport | None
    suites: tuple[SuiteResult, ...]

    def as_json(self) -> dict[str, Any]:
        """The content of `report.json`, numbers rounded to 4 decimals."""
        content = {name: getattr(self, name) for name in ("bundle", "model_hash", "data", "data_digest", "rejected", "seconds")}
        content["notices"] = list(self.notices)
        content["report_version"] = REPORT_VERSION
        content["created"] = datetime.now(UTC).isoformat(timespec="seconds")
        for name in ("slices", "contenders", "groups", "thresholds"):
            content[name] = [asdict(part) for part in getattr(self, name)]
        content["confusion"] = asdict(self.confusion)
        content["documents"] = asdict(self.documents) if self.documents else None
        content["suites"] = [suite.as_json() for suite in self.suites]
        rounded: dict[str, Any] = rounded_numbers(content)
        return rounded


def write_report(report: Report, path: Path) -> None:
    """Write `report.json`."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(report.as_json(), ensure_ascii=False, indent=2) + "\n", encoding="utf-8")


def rounded_numbers(content: Any) -> Any:
    """The same JSON with its numbers rounded to 4 decimals."""
    if isinstance(content, float):
        return round(content, 4)
    if isinstance(content, dict):
        return {key: rounded_numbers(value) for key, value in content.items()}
    if isinstance(content, list | tuple):
        return [rounded_numbers(value) for value in content]
    return content

"""The report: what a bundle is worth on a labelled file, as JSON for machines and as a table for people."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table

from eval.metrics import Average, LabelMetrics

REPORT_VERSION = 1


@dataclass(frozen=True, slots=True)
class Slice:
    """The metrics of one part of the texts: all of them, or those of one language."""

    name: str
    texts: int
    labels: dict[str, LabelMetrics]
    averages: dict[str, Average]


@dataclass(frozen=True, slots=True)
class Report:
    """What was measured, on what, by which model."""

    bundle: str
    model_hash: str
    data: str
    data_digest: str
    rejected: int
    seconds: float
    slices: tuple[Slice, ...]

    def as_json(self) -> dict[str, Any]:
        """The content of `report.json`."""
        content = asdict(self)
        content["report_version"] = REPORT_VERSION
        content["created"] = datetime.now(UTC).isoformat(timespec="seconds")
        return content


def write_report(report: Report, path: Path) -> None:
    """Write `report.json`, numbers rounded to 4 decimals."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(_rounded(report.as_json()), ensure_ascii=False, indent=2) + "\n", encoding="utf-8")


def print_report(report: Report, console: Console) -> None:
    """Print one table a slice. `review` is the share sent to review, `right else` the share of right answers elsewhere."""
    console.print(f"[bold]{report.bundle}[/bold] on {report.data}: {report.rejected} rejected, {report.seconds:.1f} s")
    for part in report.slices:
        table = Table(title=f"{part.name}: {part.texts} texts", title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False)
        for column in ("label", "support", "prec.", "recall", "F1", "95 %", "AP", "ECE", "review", "right else"):
            table.add_column(column, justify="left" if column == "label" else "right", no_wrap=True)
        for label, found in part.labels.items():
            table.add_row(
                label,
                str(found.support),
                f"{found.precision:.3f}",
                f"{found.recall:.3f}",
                f"{found.f1:.3f}",
                _interval(found.f1_interval),
                _optional(found.average_precision),
                _optional(found.calibration_error),
                f"{found.review_share:.1%}",
                _optional(found.decided_precision),
            )
        for name, average in part.averages.items():
            table.add_row(f"{name} average", "", "", "", f"{average.f1:.3f}", _interval(average.interval), style="bold")
        console.print(table)


def _interval(interval: tuple[float, float]) -> str:
    return f"{interval[0]:.3f}-{interval[1]:.3f}"


def _optional(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"


def _rounded(content: Any) -> Any:
    if isinstance(content, float):
        return round(content, 4)
    if isinstance(content, dict):
        return {key: _rounded(value) for key, value in content.items()}
    if isinstance(content, list | tuple):
        return [_rounded(value) for value in content]
    return content

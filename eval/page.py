"""The report as one self-contained HTML file: no script, no network, fit for paper and for a phone."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from jinja2 import Environment, FileSystemLoader, StrictUndefined

from eval.plots import coverage_plot, precision_recall_plot, reliability_plot, threshold_plot
from eval.run import Evaluation
from eval.scoring import Scored

WORST = 15  # mistakes shown of each label
_TEMPLATES = Path(__file__).with_name("templates")

_LANGUAGE_NAMES = {"ar": "Arabic", "en": "English"}


def write_page(evaluation: Evaluation, path: Path, *, show_text: bool = False) -> None:
    """Write `report.html`. The texts of the worst mistakes are in it only with `show_text`; their ids always are."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(render_page(evaluation, show_text=show_text), encoding="utf-8")


def render_page(evaluation: Evaluation, *, show_text: bool = False) -> str:
    """The page as a string."""
    environment = Environment(
        loader=FileSystemLoader(_TEMPLATES), autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters |= {
        "words": lambda name: str(name).replace("_", " "),
        "share": share,
        "figure": figure,
        "language": language_name,
    }
    scored = evaluation.scored
    languages = sorted(set(scored.languages.tolist()))
    return environment.get_template("report.html.j2").render(
        report=evaluation.report.as_json(),
        labels=scored.labels,
        languages=languages,
        plots={
            "precision_recall": [precision_recall_plot(scored, label) for label in scored.labels],
            "reliability": [reliability_plot(scored, label) for label in scored.labels],
            "coverage": [coverage_plot(scored, label) for label in scored.labels],
            "threshold": [threshold_plot(scored, label, lang) for label in scored.labels for lang in languages],
        },
        mistakes={label: worst_mistakes(scored, label, show_text=show_text) for label in scored.labels},
        show_text=show_text,
    )


def worst_mistakes(scored: Scored, label: str, *, show_text: bool, count: int = WORST) -> list[dict[str, Any]]:
    """The wrongly decided texts of a label, the most certain first; `text` is None unless `show_text`."""
    column = scored.labels.index(label)
    wrong = scored.wanted[:, column] != scored.decided[:, column]
    distance = np.abs(scored.probabilities[:, column] - scored.wanted[:, column])
    order = [int(row) for row in np.argsort(-distance, kind="stable") if wrong[row]][:count]
    return [
        {
            "id": scored.examples[row].id,
            "language": str(scored.languages[row]),
            "kind": "missed" if scored.wanted[row, column] else "false alarm",
            "probability": float(scored.probabilities[row, column]),
            "review": bool(scored.review[row, column]),
            "unsure": scored.examples[row].unsure,
            "text": scored.examples[row].text if show_text else None,
        }
        for row in order
    ]


def language_name(code: str) -> str:
    """A slice's name for the page: a language by its English name, everything else as it is."""
    return _LANGUAGE_NAMES.get(code, code)


def share(value: float | None) -> str:
    """A share in per cent, one decimal."""
    return "–" if value is None else f"{100 * value:.1f} %"


def figure(value: float | None) -> str:
    """A figure between 0 and 1, three decimals."""
    return "–" if value is None else f"{value:.3f}"

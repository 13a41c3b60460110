"""The curves of the report's page, as SVG. One figure a label, small enough for a phone, one line a language."""

from __future__ import annotations

import io
from collections.abc import Callable
from typing import Any, Literal

import numpy as np
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from sklearn.metrics import average_precision_score, precision_recall_curve

from eval.metrics import CALIBRATION_BINS, BoolArray, FloatArray
from eval.scoring import Scored

COLOURS = {"ar": "#b3432b", "en": "#1f5fa8", "all": "#444444"}
_STYLE: Any = {
    "svg.fonttype": "path",
    "svg.hashsalt": "rasid",
    "font.size": 9.5,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": "#777777",
    "axes.grid": True,
    "grid.color": "#e4e4e4",
    "grid.linewidth": 0.7,
    "legend.frameon": False,
}
_SIZE = (4.1, 3.2)
_STEPS = 201


def precision_recall_plot(scored: Scored, label: str) -> str:
    """Precision against recall over all thresholds; a dot where the threshold is."""

    def draw(axes: Axes, part: Scored, column: int, colour: str, language: str) -> None:
        wanted, probabilities = part.wanted[:, column], part.probabilities[:, column]
        precision, recall, _ = precision_recall_curve(wanted, probabilities)
        area = average_precision_score(wanted, probabilities)
        axes.step(recall, precision, where="post", color=colour, label=f"{language}: AP {area:.2f}")
        decided = part.decided[:, column]
        hits = (wanted & decided).sum()
        axes.plot(hits / wanted.sum(), hits / max(1, decided.sum()), "o", color=colour, markersize=6)

    return _by_language(scored, label, draw, "recall", "precision", legend="lower left")


def reliability_plot(scored: Scored, label: str) -> str:
    """How often a label holds where its probability is p; on the diagonal it is calibrated. Dots grow with their texts."""

    def draw(axes: Axes, part: Scored, column: int, colour: str, language: str) -> None:
        wanted, probabilities = part.wanted[:, column], part.probabilities[:, column]
        index = np.minimum((probabilities * CALIBRATION_BINS).astype(int), CALIBRATION_BINS - 1)
        bins = [index == place for place in range(CALIBRATION_BINS) if (index == place).any()]
        x = [float(probabilities[inside].mean()) for inside in bins]
        y = [float(wanted[inside].mean()) for inside in bins]
        sizes = [8 + 90 * float(inside.mean()) ** 0.5 for inside in bins]
        axes.plot([0, 1], [0, 1], color="#999999", linewidth=0.8, linestyle="--", zorder=1)
        axes.plot(x, y, color=colour, linewidth=1, alpha=0.6)
        axes.scatter(x, y, s=sizes, color=colour, alpha=0.85, label=f"{language}: {len(part)} texts", zorder=3)

    return _by_language(scored, label, draw, "probability", "share that carries the label", legend="upper left")


def threshold_plot(scored: Scored, label: str, language: str) -> str:
    """Precision, recall and F1 against the threshold in one language; a line where it is, a shade over the review band."""
    part = scored.part(scored.languages == language)
    column = scored.labels.index(label)
    wanted, probabilities = part.wanted[:, column], part.probabilities[:, column]
    grid = np.linspace(0.01, 0.99, _STEPS)
    decided = probabilities[None, :] >= grid[:, None]
    hits = (decided & wanted).sum(axis=1)
    with np.errstate(invalid="ignore"):
        precision = np.where(decided.any(axis=1), hits / np.maximum(decided.sum(axis=1), 1), np.nan)
    recall = hits / max(1, wanted.sum())
    f1 = 2 * hits / np.maximum(decided.sum(axis=1) + wanted.sum(), 1)

    def draw(axes: Axes) -> None:
        axes.plot(grid, precision, color="#7a5195", label="precision")
        axes.plot(grid, recall, color="#2f8f6b", label="recall")
        axes.plot(grid, f1, color="#222222", linewidth=2, label="F1")
        in_review = probabilities[part.review[:, column]]
        if len(in_review):
            axes.axvspan(float(in_review.min()), float(in_review.max()), color="#f2c14e", alpha=0.25, label="in review")
        axes.axvline(float(np.median(part.thresholds[:, column])), color="#444444", linewidth=1, linestyle=":")
        axes.set_xlabel("threshold")
        axes.legend(loc="lower left", fontsize=8)

    return _figure(draw, title=f"{label.replace('_', ' ')}, {language}")


def coverage_plot(scored: Scored, label: str) -> str:
    """What a wider or narrower review band would leave decided, and how often that is right; a dot where it is now.

    The band grows from the threshold to both ends in proportion (selective classification, El-Yaniv and Wiener 2010).
    """

    def draw(axes: Axes, part: Scored, column: int, colour: str, language: str) -> None:
        coverage, right = coverage_curve(part.wanted[:, column], part.probabilities[:, column], part.thresholds[:, column])
        axes.plot(coverage, right, color=colour, label=language)
        outside = ~part.review[:, column]
        if outside.any():
            correct = (part.wanted == part.decided)[:, column]
            axes.plot(outside.mean(), correct[outside].mean(), "o", color=colour, markersize=6)

    return _by_language(
        scored, label, draw, "share of texts decided", "share of these decided rightly", legend="lower left", low=None
    )


def coverage_curve(wanted: BoolArray, probabilities: FloatArray, thresholds: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Share decided and share of the decided that is right, as texts are left to review from the least certain on.

    A text's certainty is the distance of its probability from its threshold, relative to the end of the scale.
    """
    above = probabilities >= thresholds
    certainty = np.where(
        above,
        (probabilities - thresholds) / np.maximum(1 - thresholds, 1e-9),
        (thresholds - probabilities) / np.maximum(thresholds, 1e-9),
    )
    order = np.argsort(-certainty, kind="stable")
    right = np.cumsum((above == wanted)[order]) / np.arange(1, len(wanted) + 1)
    coverage = np.arange(1, len(wanted) + 1) / len(wanted)
    start = max(0, len(wanted) // 20 - 1)  # the first twentieth is noise
    return coverage[start:], right[start:]


def _by_language(
    scored: Scored,
    label: str,
    draw: Callable[[Axes, Scored, int, str, str], None],
    x_name: str,
    y_name: str,
    *,
    legend: Literal["lower left", "upper left"],
    low: float | None = 0.0,
) -> str:
    """A figure with one line a language in which the label both occurs and lacks."""
    column = scored.labels.index(label)

    def draw_all(axes: Axes) -> None:
        drawn = False
        for language in sorted(set(scored.languages.tolist())):
            part = scored.part(scored.languages == language)
            wanted = part.wanted[:, column]
            if wanted.any() and not wanted.all():
                draw(axes, part, column, COLOURS.get(language, COLOURS["all"]), language)
                drawn = True
        axes.set_xlabel(x_name)
        axes.set_ylabel(y_name)
        if low is not None:
            axes.set_ylim(low, 1.03)
        if drawn:
            axes.legend(loc=legend, fontsize=8)
        else:
            axes.text(0.5, 0.5, "too few texts", ha="center", transform=axes.transAxes, color="#777777")

    return _figure(draw_all, title=label.replace("_", " "))


def _figure(draw: Callable[[Axes], None], *, title: str) -> str:
    with rc_context(_STYLE):
        figure = Figure(figsize=_SIZE, layout="constrained")
        axes = figure.subplots()
        axes.set_xlim(-0.02, 1.02)
        draw(axes)
        axes.set_title(title, fontsize=10.5, loc="left")
        out = io.StringIO()
        figure.savefig(
            out, format="svg", metadata={"Date": None, "Creator": None, "Format": None, "Type": None}, transparent=True
        )
    svg = out.getvalue()
    return svg[svg.index("<svg") :].replace("<svg ", f'<svg role="img" aria-label="{title}" ', 1)

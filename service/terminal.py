"""Predictions as people read them in a terminal, in both directions of writing."""

from __future__ import annotations

import os
import textwrap
from collections.abc import Mapping, Sequence
from functools import cache
from typing import Literal

import arabic_reshaper
from bidi.algorithm import get_display
from rich.console import Console
from rich.table import Table
from rich.text import Text

from models.prediction import Answer, Prediction, Rejection
from models.taxonomy import Taxonomy

Bidi = Literal["auto", "terminal", "rasid"]

_STYLES = {"yes": "bold green", "review": "bold yellow", "no": "dim"}
# Terminals known to lay out right-to-left text themselves; all others print characters from left to right, unjoined.
_CAPABLE_VARIABLES = ("VTE_VERSION", "KONSOLE_VERSION", "MLTERM")
_CAPABLE_PROGRAMS = frozenset({"Apple_Terminal", "mintty"})


@cache
def _reshaper() -> arabic_reshaper.ArabicReshaper:
    return arabic_reshaper.ArabicReshaper({"delete_harakat": False, "support_ligatures": True})


def terminal_is_bidirectional(environment: Mapping[str, str] = os.environ) -> bool:
    """Whether the terminal joins and orders Arabic by itself, judged by what it says of itself."""
    if environment.get("TMUX") or environment.get("STY"):
        return False
    named = environment.get("TERM_PROGRAM") in _CAPABLE_PROGRAMS
    return named or any(environment.get(name) for name in _CAPABLE_VARIABLES)


def lines_for_terminal(text: str, width: int, *, right_to_left: bool, reorder: bool) -> list[str]:
    """Wrap a text to `width` columns; with `reorder` join and order its Arabic for a terminal that does neither.

    Wrapping comes before ordering, so the first line holds the beginning of the text. Right-to-left lines are set flush
    right.
    """
    shaped = _reshaper().reshape(text) if reorder else text
    lines = textwrap.wrap(" ".join(shaped.split()), width) or [""]
    if reorder:
        lines = [str(get_display(line, base_dir="R" if right_to_left else "L")) for line in lines]
    return [line.rjust(width) for line in lines] if right_to_left and reorder else lines


def print_answers(answers: Sequence[Answer], taxonomy: Taxonomy, console: Console, *, bidi: Bidi = "auto") -> None:
    """Print each answer as a table of labels with its evidence below."""
    reorder = not terminal_is_bidirectional() if bidi == "auto" else bidi == "rasid"
    for answer in answers:
        if isinstance(answer, Rejection):
            console.print(Text(f"{answer.id}: not answered: {answer.error.detail}", style="red"))
            continue
        _print_prediction(answer, taxonomy, console, reorder=reorder)


def _print_prediction(prediction: Prediction, taxonomy: Taxonomy, console: Console, *, reorder: bool) -> None:
    notes = [*prediction.flags, *(["truncated"] if prediction.truncated else [])]
    title = f"{prediction.id}  language: {prediction.language}" + (f"  ({', '.join(notes)})" if notes else "")
    table = Table(title=Text(title), title_justify="left")
    table.add_column("label")
    table.add_column("التصنيف" if not reorder else lines_for_terminal("التصنيف", 12, right_to_left=False, reorder=True)[0])
    table.add_column("probability", justify="right")
    table.add_column("decision")
    for label in taxonomy.labels:
        found = prediction.labels[label.id]
        arabic = label.name.get("ar", "")
        arabic = lines_for_terminal(arabic, 40, right_to_left=False, reorder=True)[0] if reorder else arabic
        style = _STYLES[found.decision]
        table.add_row(
            Text(label.name.get("en", label.id)), Text(arabic), f"{found.probability:.4f}", Text(found.decision, style=style)
        )
    console.print(table)
    width = max(20, min(console.width, 100) - 4)
    for piece in prediction.evidence:
        head = f"  {piece.label} {piece.probability:.4f} [{piece.start}:{piece.end}]"
        console.print(Text(head, style=_STYLES[prediction.labels[piece.label].decision]))
        for line in lines_for_terminal(piece.text, width, right_to_left=prediction.language == "ar", reorder=reorder):
            console.print(Text("    " + line), soft_wrap=True)

"""Rows in windows: what is read, classified and put on disk as one piece, whoever computes it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import islice
from typing import Any, Protocol

from models.bundle import Bundle
from models.prediction import Answer, Granularity, Rejection
from service.score.rows import Columns, Row
from service.score.sources import Source

WINDOW_ROWS = 1_024
WINDOW_CHARACTERS = 2_000_000  # of articles fewer fit

Entry = dict[str, Any]
"""A scored row as it is written, or `{"rejected": ...}`."""


@dataclass(frozen=True, slots=True)
class ScoreOptions:
    """What is asked for, beside input and output."""

    columns: Columns = field(default_factory=Columns)
    granularity: Granularity = "passage"
    evidence: bool = False
    keep_columns: bool = False
    max_characters: int = 200_000


class Scorer(Protocol):
    """Whoever computes: this process, or a Ray cluster."""

    @property
    def bundle(self) -> Bundle:
        """The model."""
        ...

    def score(self, sources: list[Source], options: ScoreOptions, *, done: int) -> Iterator[list[Entry]]:
        """The rows of the sources behind the first `done`, in order, window by window. Raises InputError or EngineError."""
        ...


def cut_windows(rows: Iterator[Row]) -> Iterator[list[Row]]:
    """The rows in windows that fit in memory, whatever their number and lengths."""
    while window := list(_window(rows)):
        yield window


def make_entry(row: Row, answer: Answer, model: str, options: ScoreOptions) -> Entry:
    """What is written of a row that was classified."""
    if isinstance(answer, Rejection):
        return make_reject(row, answer.error.code, answer.error.detail)
    entry: Entry = {**answer.model_dump(), "model": model}
    if options.keep_columns:
        entry["columns"] = row.columns
    return entry


def make_reject(row: Row, code: str, detail: str) -> Entry:
    """What is written of a row that could not be classified, without its text."""
    return {"rejected": {"row": row.number, "place": row.place, "id": row.id, "code": code, "detail": detail}}


def _window(rows: Iterator[Row]) -> Iterator[Row]:
    characters = 0
    for row in islice(rows, WINDOW_ROWS):
        yield row
        characters += len(row.item.text) if row.item else 0
        characters += sum(len(value) for value in row.columns.values() if isinstance(value, str))
        if characters > WINDOW_CHARACTERS:
            return

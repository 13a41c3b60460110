"""Texts as lines of JSON: what one line holds, or why it cannot be used."""

from __future__ import annotations

import json

from models.classifier import TextItem
from models.prediction import Problem, Rejection
from models.text import replace_surrogates


def read_line(raw: bytes, number: int) -> TextItem | Rejection:
    """The text of line `number`: a JSON object with `text` and perhaps `id` (else the number), or a JSON string.

    A line that holds none comes back as its rejection, so that it can be answered in its place and stops nothing.
    """
    try:
        row = json.loads(raw.decode("utf-8-sig"))
    except UnicodeDecodeError:
        return _bad(number, "expected UTF-8; convert the input first")
    except (ValueError, RecursionError) as error:
        where = f"{error.msg} at column {error.colno}" if isinstance(error, json.JSONDecodeError) else "it nests too deep"
        return _bad(number, f"expected a JSON object, {where}")
    if isinstance(row, str):
        return TextItem(str(number), replace_surrogates(row))
    if not isinstance(row, dict) or not isinstance(row.get("text"), str):
        return _bad(number, "expected an object with a string 'text'")
    return TextItem(replace_surrogates(str(row.get("id", number))), replace_surrogates(row["text"]))


def _bad(number: int, detail: str) -> Rejection:
    return Rejection(id=str(number), error=Problem(code="invalid_line", detail=f"line {number}: {detail}"))

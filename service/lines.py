"""Texts as lines of JSON: what one line holds, or why it cannot be used."""

from __future__ import annotations

import json

from models.classifier import TextItem
from models.prediction import Problem, Rejection
from models.text import replace_surrogates

MAX_ID_CHARACTERS = 256


def read_line(raw: bytes, number: int) -> TextItem | Rejection:
    """The text of line `number`: a JSON object with `text` and perhaps `id`, or a JSON string.

    The id is a string or a number; where it is missing, null or empty it is the number of the line.

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
    given = number if row.get("id") in (None, "") else row["id"]
    if isinstance(given, bool) or not isinstance(given, str | int | float):
        return _bad(number, "expected an 'id' that is a string or a number")
    identity = replace_surrogates(str(given))
    if len(identity) > MAX_ID_CHARACTERS:
        return _bad(number, f"expected an 'id' of at most {MAX_ID_CHARACTERS} characters, got {len(identity)}")
    return TextItem(identity, replace_surrogates(row["text"]))


def _bad(number: int, detail: str) -> Rejection:
    return Rejection(id=str(number), error=Problem(code="invalid_line", detail=f"line {number}: {detail}"))

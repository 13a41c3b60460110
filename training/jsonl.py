"""JSON and JSON lines, written in one step."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from models.errors import InputError


def write_rows(path: Path, rows: Iterable[dict[str, Any]]) -> None:
    """Write one JSON object a line."""
    write_text(path, "".join(to_json(row) + "\n" for row in rows))


def write_text(path: Path, text: str) -> None:
    """Write a text file in one step: a reader sees all of it or nothing."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(path.name + ".part")
    partial.write_text(text, encoding="utf-8")
    partial.replace(path)


def to_json(value: object, *, indent: int | None = None) -> str:
    """JSON with letters as they are; escaped throughout where a text has half a surrogate pair, which UTF-8 cannot hold."""
    text = json.dumps(value, ensure_ascii=False, indent=indent)
    try:
        text.encode()
    except UnicodeEncodeError:
        return json.dumps(value, indent=indent)
    return text


def refuse_existing(path: Path) -> None:
    """Raise InputError where a file exists: somebody may have annotated it."""
    if path.exists():
        raise InputError(f"{path} exists and is not overwritten: choose another name, or remove it first")

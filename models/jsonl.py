"""JSON lines: rows read with file and line for every complaint."""

from __future__ import annotations

import gzip
import json
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from models.errors import ExampleFormatError


def read_rows(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """Line numbers and objects of a JSONL file (UTF-8, a byte order mark is allowed, gzip where it ends in .gz).

    Blank lines are passed over; nothing is kept in memory. Raises ExampleFormatError naming file and line where the file is
    missing, damaged or breaks the format.
    """
    if not path.is_file():
        raise ExampleFormatError(f"{path}: expected a JSONL file, found none")
    number = 0
    try:
        with gzip.open(path, "rb") if path.suffix == ".gz" else path.open("rb") as handle:
            for number, raw in enumerate(handle, 1):
                if raw.strip():
                    yield number, _row(raw, f"{path}:{number}", first=number == 1)
    except (gzip.BadGzipFile, EOFError, zlib.error):
        raise ExampleFormatError(f"{path}: damaged after line {number}, or no gzip file; fetch or pack it again") from None


def _row(raw: bytes, where: str, *, first: bool) -> dict[str, Any]:
    try:
        row = json.loads(raw.decode("utf-8-sig" if first else "utf-8"))
    except UnicodeDecodeError as error:
        raise ExampleFormatError(f"{where}: expected UTF-8, byte {error.start} of the line is not; convert the file") from None
    except json.JSONDecodeError as error:
        raise ExampleFormatError(f"{where}: expected a JSON object, {error.msg} at column {error.colno}") from None
    if not isinstance(row, dict):
        raise ExampleFormatError(f"{where}: expected a JSON object, got {type(row).__name__}")
    return row

"""How scored rows are written: JSONL, CSV, TSV, Parquet or Excel, whole or not at all."""

from __future__ import annotations

import csv
import gzip
import io
import itertools
import json
import os
import sys
import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path, PurePath
from typing import IO, Any

import pyarrow as pa

from models.errors import InputError
from service.score.stores import check_url, is_url, upload

STANDARD_OUTPUT = "-"
_DANGEROUS = ("=", "+", "-", "@", "\t", "\r", "\n")
EXCEL_ROWS = 1_048_575
_EXCEL_CELL = 32_767
_PARQUET_ROWS = 4_096

Entry = dict[str, Any]


def check_output(path: str) -> None:
    """Raise InputError where an output of this name cannot be written."""
    _writer(path)
    if path != STANDARD_OUTPUT:
        check_folder(path)


def check_folder(path: str) -> None:
    """Raise InputError where there is no folder for a file of this name."""
    if is_url(path):
        check_url(path)
    elif not Path(path).parent.is_dir():
        raise InputError(f"there is no folder {Path(path).parent} to write {Path(path).name} into; make it first")


def write_output(path: str, entries: Iterable[Entry], labels: Sequence[str], kept: Sequence[str] = ()) -> None:
    """Write scored rows, a table with the columns `kept` of the input. A file appears under its name only when it is whole."""
    writer = _writer(path)
    if path == STANDARD_OUTPUT:
        writer(sys.stdout.buffer, entries, Columns(labels, kept))
        sys.stdout.flush()
    else:
        _put(path, lambda file: writer(file, entries, Columns(labels, kept)))


def write_rejects(path: str, entries: Iterable[Entry]) -> None:
    """Write a line of JSON for each rejected row."""
    _put(path, lambda file: _jsonl(file, entries, None))


class Columns:
    """The columns of a table: those kept of the input, then ours.

    A kept one with a name of ours gets `input_` before it, as often as it takes to be the only one of its name.
    """

    def __init__(self, labels: Sequence[str], kept: Sequence[str] = ()) -> None:
        self.labels = labels
        scores = [f"{label}_{what}" for label in labels for what in ("probability", "decision")]
        own = ["id", "language", "flags", *scores, "evidence", "truncated", "model"]
        taken = {*kept, *own}
        self._kept: dict[str, str] = {}
        for name in kept:
            new = name
            while new in own or (new != name and new in taken):
                new = f"input_{new}"
            taken.add(new)
            self._kept[name] = new
        self.names = [*self._kept.values(), *own]

    def row(self, entry: Entry) -> dict[str, Any]:
        """A scored row as one line of the table."""
        columns = entry.get("columns") or {}
        row = {name: _scalar(columns.get(given)) for given, name in self._kept.items()}
        row.update({"id": entry["id"], "language": entry["language"], "flags": " ".join(entry["flags"])})
        for label in self.labels:
            given = entry["labels"][label]
            row[f"{label}_probability"], row[f"{label}_decision"] = given["probability"], given["decision"]
        row["evidence"] = json.dumps(entry["evidence"], ensure_ascii=False) if entry["evidence"] else ""
        row["truncated"] = entry["truncated"]
        row["model"] = entry["model"]
        return row


def _scalar(value: Any) -> Any:
    return json.dumps(value, ensure_ascii=False) if isinstance(value, dict | list) else value


def harmless(value: Any) -> Any:
    """A cell that no spreadsheet takes for a formula: text that begins like one gets an apostrophe in front (OWASP)."""
    return f"'{value}" if isinstance(value, str) and value.startswith(_DANGEROUS) else value


def _writer(path: str) -> _Writer:
    name = PurePath(path.partition("?")[0] if is_url(path) else path).name.lower()
    if path == STANDARD_OUTPUT or name.endswith((".jsonl", ".ndjson")):
        return _jsonl
    if name.endswith((".jsonl.gz", ".ndjson.gz")):
        return _packed(_jsonl)
    if name.endswith(".csv"):
        return _table(",")
    if name.endswith(".csv.gz"):
        return _packed(_table(","))
    if name.endswith(".tsv"):
        return _table("\t")
    if name.endswith(".parquet"):
        return _parquet
    if name.endswith(".xlsx"):
        return _excel
    raise InputError(f"{path}: expected an output named .jsonl, .csv, .tsv, .parquet or .xlsx (.gz for the first two), or -")


def _put(path: str, write: Callable[[IO[bytes]], None]) -> None:
    if not is_url(path):
        with _beside(Path(path)) as file:
            write(file)
        return
    with tempfile.TemporaryDirectory() as folder:  # a store shows a file that breaks off as a whole one
        whole = Path(folder) / "whole"
        with whole.open("wb") as file:
            write(file)
        upload(whole, path)


@contextmanager
def _beside(path: Path) -> Iterator[IO[bytes]]:
    beside = path.with_name(f".{path.name}.writing")
    try:
        with beside.open("wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        beside.replace(path)
    except BaseException:
        beside.unlink(missing_ok=True)
        raise


def _packed(writer: _Writer) -> _Writer:
    def write(file: IO[bytes], entries: Iterable[Entry], columns: Columns) -> None:
        with gzip.GzipFile(fileobj=file, mode="wb", mtime=0) as packed:
            writer(packed, entries, columns)  # type: ignore[arg-type]

    return write


def _jsonl(file: IO[bytes], entries: Iterable[Entry], _columns: Columns | None) -> None:
    for entry in entries:
        file.write(json.dumps(entry, ensure_ascii=False, separators=(",", ":")).encode() + b"\n")


def _table(delimiter: str) -> _Writer:
    def write(file: IO[bytes], entries: Iterable[Entry], columns: Columns) -> None:
        text = io.TextIOWrapper(file, encoding="utf-8-sig", newline="", write_through=True)  # the mark is for Excel
        writer = csv.writer(text, delimiter=delimiter)
        writer.writerow([harmless(name) for name in columns.names])
        for entry in entries:
            writer.writerow([harmless(value) for value in columns.row(entry).values()])
        text.flush()
        text.detach()

    return write


def _parquet(file: IO[bytes], entries: Iterable[Entry], columns: Columns) -> None:
    import pyarrow.parquet as pq  # noqa: PLC0415 - takes a while

    types = {f"{label}_probability": pa.float64() for label in columns.labels} | {"truncated": pa.bool_()}
    schema = pa.schema([(name, types.get(name, pa.string())) for name in columns.names])
    rows = (columns.row(entry) for entry in entries)
    with pq.ParquetWriter(file, schema) as writer:
        while waiting := list(itertools.islice(rows, _PARQUET_ROWS)):
            cells = [[_typed(row[name], name in types) for row in waiting] for name in columns.names]
            writer.write_table(
                pa.table([pa.array(c, type=field.type) for c, field in zip(cells, schema, strict=True)], schema=schema)
            )


def _typed(value: Any, has_type: bool) -> Any:
    return value if has_type or value is None else str(value)


def _excel(file: IO[bytes], entries: Iterable[Entry], columns: Columns) -> None:
    import openpyxl  # noqa: PLC0415 - takes a while
    from openpyxl.cell.cell import ILLEGAL_CHARACTERS_RE  # noqa: PLC0415

    book = openpyxl.Workbook(write_only=True)
    sheet = book.create_sheet("rasid")
    sheet.append([harmless(name) for name in columns.names])
    for number, entry in enumerate(entries, 1):
        if number > EXCEL_ROWS:
            raise InputError(f"an Excel sheet holds {EXCEL_ROWS} rows, there are more; write .csv or .parquet")
        cells = columns.row(entry).values()
        sheet.append([harmless(ILLEGAL_CHARACTERS_RE.sub(" ", c)[:_EXCEL_CELL]) if isinstance(c, str) else c for c in cells])
    book.save(file)


_Writer = Callable[[IO[bytes], Iterable[Entry], Columns], None]

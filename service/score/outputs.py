"""How scored rows are written: JSONL, CSV, TSV, Parquet or Excel, whole or not at all."""

from __future__ import annotations

import csv
import gzip
import io
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
_EXCEL_CELL, _EXCEL_ROWS = 32_767, 1_048_575
_PARQUET_ROWS = 4_096

Entry = dict[str, Any]


def check_output(path: str) -> None:
    """Raise InputError where an output of this name cannot be written."""
    _writer(path)
    if is_url(path):
        check_url(path)
    elif path != STANDARD_OUTPUT and not Path(path).parent.is_dir():
        raise InputError(f"there is no folder {Path(path).parent} to write {Path(path).name} into; make it first")


def write_output(path: str, entries: Iterable[Entry], labels: Sequence[str]) -> None:
    """Write scored rows. A file appears under its name only when it is whole."""
    writer = _writer(path)
    if path == STANDARD_OUTPUT:
        writer(sys.stdout.buffer, entries, labels)
        sys.stdout.flush()
    else:
        _put(path, lambda file: writer(file, entries, labels))


def write_rejects(path: str, entries: Iterable[Entry]) -> None:
    """Write a line of JSON for each rejected row."""
    _put(path, lambda file: _jsonl(file, entries, ()))


def flat(entry: Entry, labels: Sequence[str]) -> dict[str, Any]:
    """A scored row as one line of a table: the kept columns, then a probability and a decision a label."""
    row = dict(entry.get("columns") or {})
    row.update({"id": entry["id"], "language": entry["language"], "flags": " ".join(entry["flags"])})
    for label in labels:
        given = entry["labels"][label]
        row[f"{label}_probability"], row[f"{label}_decision"] = given["probability"], given["decision"]
    row["evidence"] = json.dumps(entry["evidence"], ensure_ascii=False) if entry["evidence"] else ""
    row["truncated"] = entry["truncated"]
    row["model"] = entry["model"]
    return row


def harmless(value: Any) -> Any:
    """A cell that no spreadsheet takes for a formula: text that begins like one gets an apostrophe in front (OWASP)."""
    return f"'{value}" if isinstance(value, str) and value.startswith(_DANGEROUS) else value


def _writer(path: str) -> Callable[[IO[bytes], Iterable[Entry], Sequence[str]], None]:
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


def _packed(
    writer: Callable[[IO[bytes], Iterable[Entry], Sequence[str]], None],
) -> Callable[[IO[bytes], Iterable[Entry], Sequence[str]], None]:
    def write(file: IO[bytes], entries: Iterable[Entry], labels: Sequence[str]) -> None:
        with gzip.GzipFile(fileobj=file, mode="wb", mtime=0) as packed:
            writer(packed, entries, labels)  # type: ignore[arg-type]

    return write


def _jsonl(file: IO[bytes], entries: Iterable[Entry], _labels: Sequence[str]) -> None:
    for entry in entries:
        file.write(json.dumps(entry, ensure_ascii=False, separators=(",", ":")).encode() + b"\n")


def _table(delimiter: str) -> Callable[[IO[bytes], Iterable[Entry], Sequence[str]], None]:
    def write(file: IO[bytes], entries: Iterable[Entry], labels: Sequence[str]) -> None:
        text = io.TextIOWrapper(file, encoding="utf-8-sig", newline="", write_through=True)  # the mark is for Excel
        rows = (flat(entry, labels) for entry in entries)
        first = next(rows, None)
        names = list(first) if first else ["id"]
        writer = csv.DictWriter(text, names, delimiter=delimiter, extrasaction="ignore", restval="")
        writer.writerow({name: harmless(name) for name in names})
        for row in [first] if first else []:
            writer.writerow({name: harmless(value) for name, value in row.items()})
        for row in rows:
            writer.writerow({name: harmless(value) for name, value in row.items()})
        text.flush()
        text.detach()

    return write


def _parquet(file: IO[bytes], entries: Iterable[Entry], labels: Sequence[str]) -> None:
    import pyarrow.parquet as pq  # noqa: PLC0415 - takes a while

    names: list[str] | None = None
    types: dict[str, pa.DataType] = {f"{label}_probability": pa.float64() for label in labels} | {"truncated": pa.bool_()}
    writer: pq.ParquetWriter | None = None
    waiting: list[Entry] = []

    def flush() -> None:
        nonlocal writer, names
        if names is None:
            names = list(waiting[0]) if waiting else ["id"]
        schema = pa.schema([(name, types.get(name, pa.string())) for name in names])
        columns = [[row.get(n) if n in types or row.get(n) is None else str(row[n]) for row in waiting] for n in names]
        if writer is None:
            writer = pq.ParquetWriter(file, schema)
        writer.write_table(
            pa.table([pa.array(c, type=schema.field(n).type) for n, c in zip(names, columns, strict=True)], names)
        )
        waiting.clear()

    for entry in entries:
        waiting.append(flat(entry, labels))
        if len(waiting) == _PARQUET_ROWS:
            flush()
    if waiting or writer is None:
        flush()
    if writer is not None:
        writer.close()


def _excel(file: IO[bytes], entries: Iterable[Entry], labels: Sequence[str]) -> None:
    import openpyxl  # noqa: PLC0415 - takes a while
    from openpyxl.cell.cell import ILLEGAL_CHARACTERS_RE  # noqa: PLC0415

    book = openpyxl.Workbook(write_only=True)
    sheet = book.create_sheet("rasid")
    names: list[str] | None = None
    for number, entry in enumerate(entries, 1):
        if number > _EXCEL_ROWS:
            raise InputError(f"an Excel sheet holds {_EXCEL_ROWS} rows, there are more; write .csv or .parquet")
        row = flat(entry, labels)
        if names is None:
            names = list(row)
            sheet.append([harmless(name) for name in names])
        cells = (row.get(name) for name in names)
        sheet.append([harmless(ILLEGAL_CHARACTERS_RE.sub(" ", c)[:_EXCEL_CELL]) if isinstance(c, str) else c for c in cells])
    book.save(file)

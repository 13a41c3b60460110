"""Reading rows: JSONL, CSV, TSV, Parquet, Excel, plain text, packed or not.

Every reader gives its records in order and goes on after a broken one: what cannot be read is given as a `Broken` in its place.
"""

from __future__ import annotations

import csv
import io
import itertools
import json
import sys
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any, Self
from xml.etree.ElementTree import ParseError

from models.errors import InputError
from service.score.sources import STANDARD_INPUT, Source

_MAGIC = {b"\x1f\x8b": "gzip", b"\x28\xb5\x2f\xfd": "zstd"}
_MARKS = {b"\xff\xfe": "utf-16", b"\xfe\xff": "utf-16", b"\xef\xbb\xbf": "utf-8-sig"}
_LINE_LIMIT = 32 * 1024 * 1024  # characters: what is longer is no text of anybody, and must not fill the memory
_EXCEL_ROWS = 1_048_576
_PARQUET_ROWS = 1_024


@dataclass(frozen=True, slots=True)
class Broken:
    """A record that could not be read, and why."""

    code: str
    detail: str


DAMAGE = (ValueError, KeyError, IndexError, NotImplementedError, EOFError, zipfile.BadZipFile, zlib.error, ParseError)
"""What readers raise over files that are damaged or of another kind; pyarrow's errors are ValueErrors."""
_TOO_LONG = Broken("line_too_long", f"expected lines and cells of at most {_LINE_LIMIT} characters, got a longer one")


@dataclass(frozen=True, slots=True)
class Record:
    """One record of a file: where it stands (`file:row`), and its columns or why there are none."""

    place: str
    content: dict[str, Any] | Broken


class TooMuchError(InputError):
    """A file unpacks to more than is allowed."""

    code = "unpacks_to_too_much"


class _Bounded(io.RawIOBase):
    """Reads a stream, and no further than a limit."""

    def __init__(self, stream: Any, limit: int) -> None:
        self._stream, self._limit, self._left = stream, limit, limit

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        content = self._stream.read(len(buffer))
        self._left -= len(content)
        if self._left < 0:
            raise TooMuchError(f"expected a file that unpacks to at most {self._limit} bytes, got more")
        buffer[: len(content)] = content
        return len(content)


def read_start(source: Source, count: int) -> bytes:
    """The first bytes of a source, unpacked, `count` at most. Raises InputError where it cannot be unpacked."""
    with _bytes(source) as binary:
        return binary.read(count)


def read_records(source: Source) -> Iterator[Record]:
    """The records of a source. Raises InputError where it is nothing of its format at all."""
    readers = {"jsonl": _jsonl, "csv": _delimited, "tsv": _delimited, "parquet": _parquet, "xlsx": _excel, "txt": _plain}
    name = source.name
    try:
        for number, content in readers[source.format](source):
            yield Record(f"{name}:{number}", content)
    except DAMAGE as error:
        raise InputError(
            f"{source.path}: expected a whole {source.format} file, it is damaged: {type(error).__name__}"
        ) from None


@contextmanager
def _bytes(source: Source) -> Iterator[io.BufferedReader]:
    """The unpacked bytes; what is packed is known by its first bytes, whatever the file is called."""
    import pyarrow as pa  # noqa: PLC0415 - takes memory that the service needs for jobs alone

    stack = ExitStack()
    with stack:
        standard = source.path == STANDARD_INPUT
        raw: Any = sys.stdin.buffer if standard else stack.enter_context(source.open())
        raw = raw if hasattr(raw, "peek") else io.BufferedReader(raw)
        start = raw.peek(4)[:4]
        packing = next((kind for magic, kind in _MAGIC.items() if start.startswith(magic)), None)
        try:
            if packing is not None:
                packed: Any = stack.enter_context(pa.CompressedInputStream(pa.PythonFile(raw, mode="r"), packing))
                yield io.BufferedReader(packed if source.max_bytes is None else _Bounded(packed, source.max_bytes))
            else:
                yield raw
        except (pa.ArrowInvalid, OSError) as error:
            if isinstance(error, OSError) and error.errno is not None:
                raise  # the machine's fault, not the file's
            raise InputError(f"{source.path}: cannot be read or unpacked: {type(error).__name__}") from None


@contextmanager
def _text(source: Source, newline: str | None) -> Iterator[io.TextIOWrapper]:
    """The text; bytes that are not UTF-8 come through as lone surrogates, so that their record alone is rejected."""
    with _bytes(source) as binary:
        start = binary.peek(3)[:3]
        encoding = next((name for mark, name in _MARKS.items() if start.startswith(mark)), "utf-8")
        errors = "replace" if encoding == "utf-16" else "surrogateescape"
        text = io.TextIOWrapper(binary, encoding=encoding, errors=errors, newline=newline)
        try:
            yield text
        finally:
            text.detach()


def _lines(text: io.TextIOWrapper) -> Iterator[tuple[str, bool]]:
    """The lines with their ends; of one that is too long the beginning, and that it was cut."""
    while line := text.readline(_LINE_LIMIT):
        is_cut = len(line) >= _LINE_LIMIT and not line.endswith(("\n", "\r"))
        rest = line if is_cut else "\n"
        while rest and not rest.endswith(("\n", "\r")):
            rest = text.readline(_LINE_LIMIT)
        yield line, is_cut


def _jsonl(source: Source) -> Iterator[tuple[int, dict[str, Any] | Broken]]:
    with _text(source, newline=None) as text:
        for number, (line, is_cut) in enumerate(_lines(text), 1):
            if line.strip():
                yield number, _TOO_LONG if is_cut else _json_row(line)


def _json_row(line: str) -> dict[str, Any] | Broken:
    if not _is_clean(line):
        return Broken("not_utf8", "expected UTF-8; convert the file first")
    try:
        row = json.loads(line)
    except (ValueError, RecursionError) as error:
        where = f"{error.msg} at column {error.colno}" if isinstance(error, json.JSONDecodeError) else "it cannot be parsed"
        return Broken("invalid_json", f"expected a JSON object, {where}")
    if isinstance(row, str):
        return {"text": row}
    return row if isinstance(row, dict) else Broken("invalid_json", f"expected a JSON object, got {type(row).__name__}")


class _Records:
    """The lines of a table, for a reader that puts records together from them; one record may not fill the memory."""

    def __init__(self, text: io.TextIOWrapper) -> None:
        self._lines = _lines(text)
        self._characters = 0
        self.was_cut = False

    def begin(self) -> None:
        """A record begins."""
        self._characters, self.was_cut = 0, False

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> str:
        line, is_cut = next(self._lines)
        self.was_cut |= is_cut
        self._characters += len(line)
        if self._characters > 2 * _LINE_LIMIT:
            raise _EndlessRecordError
        return line


class _EndlessRecordError(Exception):
    """A record does not end: a quotation mark was left open."""


def _delimited(source: Source) -> Iterator[tuple[int, dict[str, Any] | Broken]]:
    csv.field_size_limit(_LINE_LIMIT)
    with _text(source, newline="") as text:
        lines = _Records(text)
        delimiter = "\t" if source.format == "tsv" else ","
        reader = csv.reader(lines, delimiter=delimiter)
        header: list[str] | None = None
        number = 0
        while True:
            number += 1
            lines.begin()
            try:
                cells = next(reader)
            except StopIteration:
                return
            except _EndlessRecordError:
                yield number, _TOO_LONG
                reader = csv.reader(lines, delimiter=delimiter)
                continue
            except csv.Error as error:
                yield number, Broken("invalid_csv", f"up to line {reader.line_num}: {error}; is a quotation mark left open?")
                continue
            if not any(cell.strip() for cell in cells):
                continue
            if header is None:
                if not all(map(_is_clean, cells)):
                    raise InputError(
                        f"{source.path}: expected a header in UTF-8 or UTF-16 with its mark; convert the file first"
                    )
                header = [cell.strip() for cell in cells]
                continue
            if lines.was_cut:
                yield number, _TOO_LONG
            elif not all(map(_is_clean, cells)):
                yield number, Broken("not_utf8", "expected UTF-8 or UTF-16 with its mark; convert the file first")
            elif len(cells) != len(header):
                yield number, Broken("invalid_csv", f"expected {len(header)} cells as in the header, got {len(cells)}")
            else:
                yield number, dict(zip(header, cells, strict=True))


def _parquet(source: Source) -> Iterator[tuple[int, dict[str, Any] | Broken]]:
    import pyarrow as pa  # noqa: PLC0415
    import pyarrow.parquet as pq  # noqa: PLC0415 - takes a while

    if source.path == STANDARD_INPUT:
        raise InputError("Parquet cannot be read from standard input; give a file")
    with ExitStack() as stack:
        try:
            file = stack.enter_context(pq.ParquetFile(stack.enter_context(source.open())))
        except (pa.ArrowInvalid, OSError) as error:
            raise InputError(f"{source.path}: expected a Parquet file: {type(error).__name__}") from None
        number = 0
        for batch in file.iter_batches(batch_size=_PARQUET_ROWS):
            for row in batch.to_pylist():
                number += 1
                yield number, row


def _excel(source: Source) -> Iterator[tuple[int, dict[str, Any] | Broken]]:
    import openpyxl  # noqa: PLC0415 - takes a while
    from openpyxl.utils.exceptions import InvalidFileException  # noqa: PLC0415

    with ExitStack() as stack:
        try:
            book = openpyxl.load_workbook(stack.enter_context(source.open()), read_only=True, data_only=True)
        except (InvalidFileException, zipfile.BadZipFile, KeyError, OSError) as error:
            raise InputError(f"{source.path}: expected an Excel file (.xlsx): {type(error).__name__}") from None
        stack.callback(book.close)
        header: list[str] | None = None
        sheet = book.worksheets[0]
        sheet.reset_dimensions()  # some programs write wrong ones, and rows beyond them would be left out
        for number, cells in enumerate(sheet.iter_rows(values_only=True), 1):
            if number > _EXCEL_ROWS:
                raise InputError(f"{source.path}: expected at most {_EXCEL_ROWS} rows in a sheet, got more")
            if all(cell is None or not str(cell).strip() for cell in cells):
                continue
            if header is None:
                header = ["" if cell is None else str(cell).strip() for cell in cells]
                continue
            whole = itertools.chain(cells, itertools.repeat(None))  # a row ends with its last cell that is not empty
            yield number, {name: cell for name, cell in zip(header, whole, strict=False) if name}


def _plain(source: Source) -> Iterator[tuple[int, dict[str, Any] | Broken]]:
    with _text(source, newline=None) as text:
        content = text.read(_LINE_LIMIT + 1)
    if len(content) > _LINE_LIMIT:
        yield 1, _TOO_LONG
    elif not _is_clean(content):
        yield 1, Broken("not_utf8", "expected UTF-8 or UTF-16 with its mark; convert the file first")
    else:
        yield 1, {"id": source.name, "text": content}


def _is_clean(text: str) -> bool:
    """Whether all bytes were text of the encoding."""
    return text.isascii() or not any("\udc80" <= char <= "\udcff" for char in text)

"""What an uploaded file is: by its content, and by its name where texts could be several things (CSV, TSV, plain text)."""

from __future__ import annotations

import re
import zipfile
from pathlib import Path, PurePath

from models.errors import InputError
from service.score.readers import DAMAGE, TooMuchError, read_start
from service.score.sources import Format, Source, format_named

_START_BYTES = 64 * 1024
_EXCEL_BYTES = 1024**3  # openpyxl keeps the strings of a workbook in memory
MOST_ROWS = 10_000_000
_JSON_ROW = re.compile(r'\s*\{\s*"[^"]*"\s*:')
_DIRECTORY_BYTES = 4 * 1024**2  # of an archive: what is larger would fill the memory of whoever opens it


class UnknownFileError(InputError):
    """A file is nothing that can be scored."""

    code = "unknown_file_type"


def find_format(path: Path, name: str) -> Format:
    """The format of a file that was sent as `name`. Raises UnknownFileError, or InputError where it is empty or damaged."""
    with path.open("rb") as file:
        start = file.read(4)
    if start == b"PAR1":
        return "parquet"
    if start == b"PK\x03\x04":
        return _archive(path)
    try:
        text = _as_text(read_start(Source(str(path), "txt"), _START_BYTES))
    except UnknownFileError:
        raise
    except InputError:  # its words name the path
        raise UnknownFileError("expected a file that unpacks, as its first bytes say; is it damaged?") from None
    lines = [line for line in text.splitlines() if line.strip()]
    if not lines:
        raise UnknownFileError("expected rows of text, the file is empty")
    if _JSON_ROW.match(lines[0]):
        return "jsonl"
    named = format_named(PurePath(name))
    if named in ("csv", "tsv", "txt", "jsonl"):
        return named
    if lines[0].lstrip().startswith("{"):
        return "jsonl"
    return "tsv" if "\t" in lines[0] else "csv"


def check_size(source: Source) -> None:
    """Raise TooMuchError where a Parquet or Excel file unpacks to too much by its own account; streams are counted."""
    import pyarrow.parquet as pq  # noqa: PLC0415 - takes a while

    limit = source.max_bytes
    if limit is None:
        return
    try:
        if source.format == "xlsx":
            limit = min(limit, _EXCEL_BYTES)
            _check_directory(Path(source.path))
            with zipfile.ZipFile(source.path) as archive:
                size = sum(entry.file_size for entry in archive.infolist())
        elif source.format == "parquet":
            with pq.ParquetFile(source.path) as file:
                groups = (file.metadata.row_group(number) for number in range(file.metadata.num_row_groups))
                size = sum(group.total_byte_size for group in groups)
        else:
            return
    except DAMAGE as error:
        raise InputError(f"expected a file of the kind {source.format}: {type(error).__name__}") from None
    if size > limit:
        raise TooMuchError(f"expected a file that unpacks to at most {limit} bytes, this one says {size}")


def _archive(path: Path) -> Format:
    _check_directory(path)
    try:
        with zipfile.ZipFile(path) as archive:
            if "xl/workbook.xml" in archive.namelist():
                return "xlsx"
    except (zipfile.BadZipFile, OSError):
        pass
    raise UnknownFileError("expected a file of rows, got an archive that is no Excel workbook; unpack it first")


def _check_directory(path: Path) -> None:
    """Raise UnknownFileError unless the end record of an archive tells of a small directory (APPNOTE 4.3.16)."""
    with path.open("rb") as file:
        file.seek(max(0, path.stat().st_size - 65_557))
        end = file.read()
    at = end.rfind(b"PK\x05\x06")
    size = int.from_bytes(end[at + 12 : at + 16], "little") if at >= 0 else _DIRECTORY_BYTES
    if size >= _DIRECTORY_BYTES:
        raise UnknownFileError("expected an Excel workbook (.xlsx), got a damaged or far larger archive")


def _as_text(start: bytes) -> str:
    if start[:2] in (b"\xff\xfe", b"\xfe\xff"):
        return start.decode("utf-16", "replace")
    if start[:1_024].count(b"\x00") > 8:  # a few are damage, and their rows are rejected
        raise UnknownFileError("expected JSONL, CSV, TSV, Parquet, Excel (.xlsx) or text, also .gz or .zst, got binary data")
    return start.decode("utf-8-sig", "replace")

"""What an uploaded file is, by its content: whoever sends it may call it anything."""

from __future__ import annotations

import zipfile
from pathlib import Path, PurePath

from models.errors import InputError
from service.score.sources import Format, Source, TooMuchError, format_named, read_start

_START_BYTES = 64 * 1024
_EXCEL_BYTES = 1024**3  # openpyxl keeps the strings of a workbook in memory
_MOST_ROWS = 100_000_000


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
    if source.format == "xlsx":
        limit = min(limit, _EXCEL_BYTES)
        with zipfile.ZipFile(source.path) as archive:
            size = sum(entry.file_size for entry in archive.infolist())
    elif source.format == "parquet":
        with pq.ParquetFile(source.path) as file:
            groups = (file.metadata.row_group(number) for number in range(file.metadata.num_row_groups))
            size = sum(group.total_byte_size for group in groups)
            if file.metadata.num_rows > _MOST_ROWS:
                raise TooMuchError(f"expected at most {_MOST_ROWS} rows, got {file.metadata.num_rows}")
    else:
        return
    if size > limit:
        raise TooMuchError(f"expected a file that unpacks to at most {limit} bytes, this one says {size}")


def _archive(path: Path) -> Format:
    try:
        with zipfile.ZipFile(path) as archive:
            if "xl/workbook.xml" in archive.namelist():
                return "xlsx"
    except (zipfile.BadZipFile, OSError):
        pass
    raise UnknownFileError("expected a file of rows, got an archive that is no Excel workbook; unpack it first")


def _as_text(start: bytes) -> str:
    if start[:2] in (b"\xff\xfe", b"\xfe\xff"):
        return start.decode("utf-16", "replace")
    if start[:1_024].count(b"\x00") > 8:  # a few are damage, and their rows are rejected
        raise UnknownFileError("expected JSONL, CSV, TSV, Parquet, Excel (.xlsx) or text, also .gz or .zst, got binary data")
    return start.decode("utf-8-sig", "replace")

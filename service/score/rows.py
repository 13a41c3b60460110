"""From records to texts: which column is the text, which the id, and which records cannot be scored."""

from __future__ import annotations

import math
import unicodedata
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

from models.classifier import TextItem
from models.errors import InputError, TextTooLongError, told_names
from models.text import replace_surrogates
from service.score.readers import Broken, Record, read_records
from service.score.sources import STANDARD_INPUT, Source
from service.score.stores import is_url

TEXT_COLUMNS = ("text", "content", "body", "article", "passage", "sentence", "description", "message", "tweet")
ARABIC_TEXT_COLUMNS = ("النص", "نص", "المحتوى", "المقال", "الخبر", "الوصف")
_ID_COLUMNS = ("id", "uid", "doc_id", "document_id", "url", "المعرف")


class MissingColumnError(InputError):
    """A table has no column of text, or not the one that was named."""

    code = "missing_column"


class MissingIdColumnError(MissingColumnError):
    """A table has not the column of ids that was named."""


@dataclass(frozen=True, slots=True)
class Columns:
    """Which columns are used; None is found by name in every source."""

    text: str | None = None
    id: str | None = None


@dataclass(frozen=True, slots=True)
class Row:
    """One row of the input, by its number over all sources: an item, or the reason why it is rejected."""

    number: int
    place: str
    id: str
    item: TextItem | None
    columns: dict[str, Any]
    rejection: Broken | None = None


def read_rows(
    sources: Sequence[Source], columns: Columns, *, max_characters: int, first: int = 0, keep_columns: bool = False
) -> Iterator[Row]:
    """The rows of all sources in order, numbered behind `first`; with all their columns where these are to be kept.

    Raises InputError where a source has no column of text, or not a column that was named, or cannot be read. Rows of JSON may
    differ: there only the row is rejected.
    """
    number = first
    for source in sources:
        chosen: tuple[str, str | None] | None = None
        for record in read_records(source):
            number += 1
            if isinstance(record.content, Broken):
                yield Row(number, record.place, str(number), None, {}, record.content)
                continue
            if chosen is None or source.format == "jsonl":
                chosen = _choose(record.content, columns, chosen, source)
            row = _row(number, record, record.content, chosen, max_characters)
            yield replace(row, columns=_clean(record.content)) if keep_columns and row.item is not None else row


def count_rows(sources: Sequence[Source]) -> int | None:
    """How many rows there are; None where a source can be read only once, lies far away, or cannot be read."""
    if any(source.path == STANDARD_INPUT or is_url(source.path) for source in sources):
        return None
    try:
        return sum(1 for source in sources for _ in read_records(source))
    except (InputError, OSError):  # whoever scores tells
        return None


def _choose(
    content: dict[str, Any], columns: Columns, before: tuple[str, str | None] | None, source: Source
) -> tuple[str, str | None]:
    names = {_folded(name): name for name in content}
    text = columns.text or next((names[n] for n in (*TEXT_COLUMNS, *ARABIC_TEXT_COLUMNS) if n in names), None)
    identity = columns.id or next((names[n] for n in _ID_COLUMNS if n in names), None)
    if text is None or (columns.text and columns.text not in content):
        if source.format == "jsonl":  # rows may differ: this one is rejected, not the file
            return (before[0] if before else columns.text or "text", identity)
        raise MissingColumnError(
            f"{source.path}: expected a column {columns.text or 'of text (text, content, body ...)'}, found "
            f"{told_names(content)}; name it with --text-column"
        )
    if columns.id and columns.id not in content and source.format != "jsonl":
        raise MissingIdColumnError(
            f"{source.path}: expected a column {columns.id}, found {told_names(content)}; name it with --id-column"
        )
    return text, identity


def _row(number: int, record: Record, content: dict[str, Any], chosen: tuple[str, str | None], max_characters: int) -> Row:
    text_name, id_name = chosen
    given = content.get(id_name) if id_name is not None else None
    identity = replace_surrogates(str(given)) if given is not None and str(given) else str(number)
    text = content.get(text_name)

    def reject(code: str, detail: str) -> Row:
        return Row(number, record.place, identity, None, {}, Broken(code, replace_surrogates(detail)))

    if id_name is not None and id_name not in content:
        return reject("missing_id", f"expected an id in {id_name}, there is none")
    if text is None:
        return reject("missing_text", f"expected a text in {text_name}, there is none")
    if not isinstance(text, str):
        return reject("not_text", f"expected a text in {text_name}, got {_kind(text)}")
    if "\x00" in text:
        return reject("nul_character", "expected text, got NUL characters in it; is the file damaged or binary?")
    if len(text) > max_characters:
        return reject(TextTooLongError.code, f"expected at most {max_characters} characters, got {len(text)}")
    return Row(number, record.place, identity, TextItem(identity, replace_surrogates(text)), {})


def _clean(columns: dict[str, Any]) -> dict[str, Any]:
    """Columns as they can be written: no halves of characters, and None for what is no number."""
    return {replace_surrogates(str(name)): _clean_value(value) for name, value in columns.items()}


def _clean_value(value: Any) -> Any:
    if isinstance(value, str):
        return replace_surrogates(value)
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, dict):
        return _clean(value)
    return [_clean_value(entry) for entry in value] if isinstance(value, list) else value


def _kind(value: object) -> str:
    names = {"datetime": "a date", "date": "a date", "time": "a time", "int": "a number", "float": "a number"}
    return names.get(type(value).__name__, type(value).__name__)


def _folded(name: object) -> str:
    return unicodedata.normalize("NFKC", str(name)).strip().lower()

"""Translations: one passage in English and in Arabic, as rows of JSON lines that share an id.

Rows have `id`, `lang` and `text`, in one file or in several; other fields are not looked at.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from models.errors import ExampleFormatError, InputError, told_names
from models.jsonl import read_rows
from models.text import prepare_text

LANGUAGES = ("en", "ar")


@dataclass(frozen=True, slots=True)
class Translation:
    """The same passage in both languages, as written."""

    id: str
    en: str
    ar: str


def read_translations(paths: Iterable[Path]) -> list[Translation]:
    """The passages that the files hold in both languages, in the order of their ids' first rows.

    A folder stands for the JSONL files directly in it. Of several rows with one id and language the first counts; rows in one
    language alone, in a third one or with nothing visible are passed over. Raises ExampleFormatError naming file and line
    where a row lacks id, lang or text, InputError where no passage is there in both languages.
    """
    files = [file for path in paths for file in (sorted(path.glob("*.jsonl")) if path.is_dir() else [path])]
    found: dict[str, dict[str, str]] = defaultdict(dict)
    for path in files:
        for line, row in read_rows(path):
            name, language, text = text_fields(row, f"{path}:{line}", ("id", "lang", "text"))
            if prepare_text(text).text:
                found[name].setdefault(language, text)
    translations = [
        Translation(name, texts["en"], texts["ar"]) for name, texts in found.items() if all(one in texts for one in LANGUAGES)
    ]
    if not translations:
        told = ", ".join(path.name for path in files) or "folders without JSONL files"
        raise InputError(f"expected rows with one id in en and in ar, found none in {told}")
    return translations


def text_fields(row: dict[str, Any], where: str, names: Sequence[str]) -> list[str]:
    """The values of a row's fields that must be texts, in their order; an id may be a number.

    Raises ExampleFormatError that begins with `where` and tells which field is missing or of which type it is.
    """
    values = []
    for name in names:
        value = row.get(name)
        if name == "id" and isinstance(value, int):
            value = str(value)
        if value is None or value == "":
            raise ExampleFormatError(f"{where}: expected a filled field {name!r}, the row has {told_names(sorted(row))}")
        if not isinstance(value, str):
            raise ExampleFormatError(f"{where}: expected {name} to be a string, got {type(value).__name__}")
        values.append(value)
    return values

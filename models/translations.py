"""Translations: one passage in English and in Arabic, told by rows of JSON lines that share an id.

Rows have `id`, `lang` and `text`, in one file or in several; anything else in them is passed over.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from models.errors import ExampleFormatError, InputError, told_names
from models.example import labelled_files
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
    language alone or with nothing visible are passed over. Raises ExampleFormatError naming file and line where a row lacks id,
    lang or text, InputError where no passage is there in both languages.
    """
    files = labelled_files(paths)
    found: dict[str, dict[str, str]] = defaultdict(dict)
    for path in files:
        for line, row in read_rows(path):
            values = [row.get(name) for name in ("id", "lang", "text")]
            if not all(isinstance(value, str) and value for value in values):
                raise ExampleFormatError(f"{path}:{line}: expected id, lang and text, the row has {told_names(sorted(row))}")
            name, language, text = map(str, values)
            if prepare_text(text).text:
                found[name].setdefault(language, text)
    translations = [
        Translation(name, texts["en"], texts["ar"]) for name, texts in found.items() if all(one in texts for one in LANGUAGES)
    ]
    if not translations:
        names = ", ".join(path.name for path in files)
        raise InputError(f"expected rows with one id in en and in ar, found none in {names}")
    return translations

"""Translations: rows of one id in both languages, out of one file or several."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from models.errors import ExampleFormatError, InputError
from models.translations import Translation, read_translations


def write(path: Path, *rows: dict) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
    return path


def test_sides_meet_over_files_and_folders(tmp_path: Path) -> None:
    first = write(
        tmp_path / "corpus" / "a.jsonl",
        {"id": "one", "lang": "ar", "text": "نزحت العائلة", "labels": ["displacement"]},
        {"id": "alone", "lang": "en", "text": "Nobody translated this."},
        {"id": "blank", "lang": "en", "text": "The well is dry."},
        {"id": "blank", "lang": "ar", "text": "\u200f\u200b"},
        {"id": "two", "lang": "en", "text": "  They left. "},
        {"id": 7, "lang": "en", "text": "Seven"},
    )
    (first.parent / "notes.csv").write_text("not,translations\n", encoding="utf-8")
    second = write(
        tmp_path / "b.jsonl",
        {"id": "two", "lang": "ar", "text": "غادروا."},
        {"id": "one", "lang": "en", "text": "The family fled"},
        {"id": "one", "lang": "en", "text": "A second rendering"},
        {"id": "one", "lang": "fr", "text": "La famille a fui"},
        {"id": "7", "lang": "ar", "text": "سبعة"},
    )
    assert read_translations([first.parent, second]) == [
        Translation("one", "The family fled", "نزحت العائلة"),
        Translation("two", "  They left. ", "غادروا."),
        Translation("7", "Seven", "سبعة"),
    ]


def test_what_cannot_be_joined_is_told(tmp_path: Path) -> None:
    nameless = write(tmp_path / "a.jsonl", {"id": "one", "lang": "en", "text": "x"}, {"lang": "ar", "text": "س"})
    with pytest.raises(ExampleFormatError, match=r"a\.jsonl:2: expected a filled field 'id', the row has lang, text"):
        read_translations([nameless])
    listed = write(tmp_path / "a.jsonl", {"id": "one", "lang": "en", "text": ["x"]})
    with pytest.raises(ExampleFormatError, match=r"a\.jsonl:1: expected text to be a string, got list"):
        read_translations([listed])
    alone = write(tmp_path / "b.jsonl", {"id": "one", "lang": "en", "text": "x"}, {"id": "two", "lang": "ar", "text": "س"})
    with pytest.raises(InputError, match=r"one id in en and in ar, found none in b\.jsonl"):
        read_translations([alone])
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="found none in folders without JSONL files"):
        read_translations([tmp_path / "empty"])
    with pytest.raises(ExampleFormatError, match="found none"):
        read_translations([tmp_path / "gone.jsonl"])

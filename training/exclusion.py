"""What is labelled already, or is being annotated: texts that must not be chosen again.

The files may be labelled JSONL (gzip allowed) or CSV, samples handed out earlier, standoff annotations, or Label Studio's tasks
and exports (`.json`). The labels are not looked at.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from models.errors import ExampleFormatError
from models.example import labelled_files, read_examples
from models.jsonl import read_rows
from models.language import detect_language
from models.taxonomy import Taxonomy
from models.text import prepare_text
from training.labelstudio import read_data


@dataclass(frozen=True, slots=True)
class Exclusion:
    """Texts by the keys of their prepared form, and by the SHA-256 of the original where only that is known."""

    keys: frozenset[bytes] = frozenset()
    digests: frozenset[str] = frozenset()


def text_key(prepared: str) -> bytes:
    """A short name for a prepared text: the first 16 bytes of its SHA-256. Two texts the model cannot tell apart share it."""
    return hashlib.sha256(prepared.encode("utf-8", "surrogatepass")).digest()[:16]


def read_exclusion(paths: Sequence[Path], taxonomy: Taxonomy) -> Exclusion:
    """Read the files (folders stand for the JSONL and CSV files in them).

    Raises ExampleFormatError naming file and line where a row has neither a text nor a digest.
    """
    keys: set[bytes] = set()
    digests: set[str] = set()
    for text, digest in _rows(paths, taxonomy):
        if text:
            keys.add(text_key(prepare_text(text).text))
        else:
            digests.add(digest.lower())
    return Exclusion(frozenset(keys), frozenset(digests))


def labelled_texts(paths: Sequence[Path], taxonomy: Taxonomy, languages: frozenset[str]) -> Iterator[str]:
    """The prepared texts of the files that hold texts, each once, as far as they are in one of the languages."""
    seen: set[bytes] = set()
    for text, _digest in _rows(paths, taxonomy):
        prepared = prepare_text(text).text
        key = text_key(prepared)
        if prepared and key not in seen and detect_language(text).language in languages:
            seen.add(key)
            yield prepared


def _rows(paths: Sequence[Path], taxonomy: Taxonomy) -> Iterator[tuple[str, str]]:
    """Text and "", or "" and SHA-256, of every row."""
    for path in labelled_files(paths):
        suffix = path.suffix.lower()
        if suffix == ".csv":
            yield from ((example.text, "") for example in read_examples(path, taxonomy))
        elif suffix == ".json":
            yield from ((data["text"], "") for _where, data in read_data(path))
        else:
            yield from (_text_or_digest(row, f"{path}:{line}") for line, row in read_rows(path))


def _text_or_digest(row: dict[str, Any], where: str) -> tuple[str, str]:
    text, digest = row.get("text"), row.get("sha256")
    if isinstance(text, str):
        return text, ""
    if isinstance(digest, str):
        return "", digest
    raise ExampleFormatError(f"{where}: expected a field 'text' or 'sha256', the row has {', '.join(sorted(row))}")

"""Labelled examples: what people agree a text says, and the files they keep them in.

A JSONL line or CSV row has `text` and `labels` (a list in JSONL; names separated by `|`, `;` or `,` in CSV), and may have
`id`, `lang`, `source`, `unsure` and anything else, which is kept in `extra`. The part of an id before `#` names the source
document: examples of one document are never torn apart by a split.
"""

from __future__ import annotations

import csv
import hashlib
import json
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from models.errors import ExampleFormatError, InputError, TaxonomyError, told_names, told_value
from models.jsonl import read_rows
from models.taxonomy import Taxonomy

_TRUE = frozenset({"1", "true", "yes", "y"})
_FALSE = frozenset({"", "0", "false", "no", "n"})
_CSV_FIELD_LIMIT = 16 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class LabelledExample:
    """One text and the labels it carries. `unsure` marks a row its reader doubted; `lang` is "" where not stated."""

    id: str
    text: str
    labels: frozenset[str]
    lang: str = ""
    source: str = ""
    unsure: bool = False
    extra: dict[str, Any] = field(default_factory=dict, compare=False)

    @property
    def document(self) -> str:
        """The source document: the part of the id before `#`."""
        return self.id.split("#", 1)[0]


def read_examples(path: Path, taxonomy: Taxonomy) -> list[LabelledExample]:
    """Read all labelled examples of a JSONL or CSV file (UTF-8, a byte order mark is allowed).

    Raises ExampleFormatError naming file and line where the file is missing, empty or breaks the format, where a label
    is not of the taxonomy, where a text is empty or where an id comes twice in one language (translations may share one).
    """
    if not path.is_file():
        raise ExampleFormatError(f"{path}: expected a file of labelled examples, found none")
    rows = _csv_rows(path) if path.suffix.lower() == ".csv" else read_rows(path)
    examples: list[LabelledExample] = []
    lines_by_id: dict[tuple[str, str], int] = {}
    for line, row in rows:
        example = _example(row, path, line, taxonomy)
        earlier = lines_by_id.setdefault((example.id, example.lang), line)
        if earlier != line:
            raise ExampleFormatError(f"{path}:{line}: id {example.id!r} was used in line {earlier} already")
        examples.append(example)
    if not examples:
        raise ExampleFormatError(f"{path}: expected at least one labelled example, the file has none")
    return examples


def labelled_files(paths: Iterable[Path]) -> list[Path]:
    """The labelled files that the paths stand for: a folder stands for the JSONL and CSV files directly in it, sorted.

    Raises InputError where a folder has none.
    """
    found: list[Path] = []
    for path in paths:
        if path.is_dir():
            inside = sorted(p for p in path.iterdir() if p.suffix.lower() in (".jsonl", ".csv"))
            if not inside:
                raise InputError(f"{path}: expected JSONL or CSV files in the folder, found none")
            found.extend(inside)
        else:
            found.append(path)
    return found


def digest_examples(examples: Iterable[LabelledExample]) -> str:
    """SHA-256 over ids, texts and sorted labels, in the order given: names a data set without holding its text."""
    digest = hashlib.sha256()
    for example in examples:
        line = json.dumps([example.id, example.text, sorted(example.labels)], ensure_ascii=False)
        digest.update(line.encode("utf-8", "surrogatepass") + b"\n")
    return digest.hexdigest()


def _csv_rows(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    csv.field_size_limit(_CSV_FIELD_LIMIT)
    try:
        with path.open(encoding="utf-8-sig", newline="") as handle:
            reader = csv.DictReader(handle, restkey="", strict=True)
            for row in reader:
                if "" in row:
                    raise ExampleFormatError(f"{path}:{reader.line_num}: more cells than the header has columns")
                yield reader.line_num, dict(row)
    except UnicodeDecodeError as error:
        raise ExampleFormatError(f"{path}: expected UTF-8, byte {error.start} is not; convert the file") from None
    except csv.Error as error:
        raise ExampleFormatError(f"{path}: not readable as CSV: {error}") from None


def _example(row: dict[str, Any], path: Path, line: int, taxonomy: Taxonomy) -> LabelledExample:
    where = f"{path}:{line}"
    for name in ("text", "labels"):
        if row.get(name) is None:
            raise ExampleFormatError(f"{where}: expected a field {name!r}, the row has {told_names(sorted(row))}")
    text = row["text"]
    if not isinstance(text, str):
        raise ExampleFormatError(f"{where}: expected text to be a string, got {type(text).__name__}")
    if not text.strip():
        raise ExampleFormatError(f"{where}: the text is empty")
    labels = row["labels"]
    if isinstance(labels, str):
        labels = [name.strip() for name in re.split(r"[|;,]", labels) if name.strip()]
    if not isinstance(labels, list) or not all(isinstance(name, str) for name in labels):
        raise ExampleFormatError(f"{where}: expected labels to be a list of names")
    try:
        taxonomy.check_labels(labels)
    except TaxonomyError as error:
        raise ExampleFormatError(f"{where}: {error}") from None
    known = {"id", "text", "labels", "lang", "source", "unsure"}
    return LabelledExample(
        id=str(row.get("id") or f"{path.name}:{line}"),
        text=text,
        labels=frozenset(labels),
        lang=str(row.get("lang") or ""),
        source=str(row.get("source") or ""),
        unsure=_truth(row.get("unsure"), where),
        extra={key: value for key, value in row.items() if key not in known},
    )


def _truth(value: object, where: str) -> bool:
    if value is None or isinstance(value, bool):
        return bool(value)
    word = str(value).strip().lower()
    if word in _TRUE or word in _FALSE:
        return word in _TRUE
    raise ExampleFormatError(f"{where}: expected unsure to be true or false, got {told_value(word)}")

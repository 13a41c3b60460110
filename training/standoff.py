"""Standoff annotations: labels of texts that may not be copied.

A row names a text of somebody else's collection by its id and the SHA-256 of its UTF-8 bytes and gives its labels; the
text itself stays in the collection (a JSONL file with `id` and `text`, gzip allowed) and is looked up when training.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from models.errors import ExampleFormatError, TaxonomyError
from models.example import LabelledExample, digest_examples
from models.jsonl import read_rows
from models.taxonomy import Taxonomy


def resolve_annotations(
    annotations: Sequence[Path], collections: Sequence[Path], taxonomy: Taxonomy
) -> tuple[list[LabelledExample], dict[str, str]]:
    """The examples of standoff files, one a row, their texts looked up in the collections, and a digest of each file.

    Raises ExampleFormatError where a row breaks the format or its text is in none of the collections.
    """
    found = [
        (path, f"{path}:{line}", row, *checked_labels(row, f"{path}:{line}", taxonomy, ("id", "sha256", "lang")))
        for path in annotations
        for line, row in read_rows(path)
    ]
    texts = _look_up({str(row["sha256"]).lower() for _path, _where, row, *_labels in found}, collections)
    by_file: dict[Path, list[LabelledExample]] = {path: [] for path in annotations}
    for path, where, row, labels, unsure in found:
        text = texts.get(str(row["sha256"]).lower())
        if text is None:
            raise ExampleFormatError(
                f"{where}: the text of {row['id']!r} is in none of the {len(collections)} collections given"
            )
        example = LabelledExample(id=str(row["id"]), text=text, labels=labels, lang=str(row["lang"]), unsure=unsure)
        by_file[path].append(example)
    examples = [example for part in by_file.values() for example in part]
    names = distinct_names(annotations)
    return examples, {names[path]: digest_examples(part) for path, part in by_file.items()}


def read_corrections(paths: Sequence[Path], taxonomy: Taxonomy) -> dict[str, tuple[frozenset[str], bool]]:
    """Labels, and whether they are unsure, by the SHA-256 of the text: what takes the place of other labels of that text.

    Raises ExampleFormatError where a row breaks the format or corrects a text otherwise than an earlier one.
    """
    found: dict[str, tuple[frozenset[str], bool]] = {}
    for path in paths:
        for line, row in read_rows(path):
            corrected = checked_labels(row, f"{path}:{line}", taxonomy, ("sha256",))
            if found.setdefault(str(row["sha256"]).lower(), corrected) != corrected:
                raise ExampleFormatError(f"{path}:{line}: the text was corrected otherwise in an earlier row; settle it")
    return found


def checked_labels(
    row: Mapping[str, Any], where: str, taxonomy: Taxonomy, needed: Sequence[str]
) -> tuple[frozenset[str], bool]:
    """The labels of a standoff row, and whether its reader doubted them.

    Raises ExampleFormatError, with `where` the row stands, where it lacks a field or breaks the format.
    """
    missing = {*needed, "labels"} - set(row)
    if missing:
        raise ExampleFormatError(f"{where}: the row lacks {', '.join(sorted(missing))}")
    labels, unsure = row["labels"], row.get("unsure", False)
    if not isinstance(labels, list) or not all(isinstance(label, str) for label in labels):
        raise ExampleFormatError(f"{where}: expected labels to be a list of names")
    if not isinstance(unsure, bool):
        raise ExampleFormatError(f"{where}: expected unsure to be true or false, got {type(unsure).__name__}")
    try:
        taxonomy.check_labels(labels)
    except TaxonomyError as error:
        raise ExampleFormatError(f"{where}: {error}") from None
    return frozenset(labels), unsure


def distinct_names(paths: Sequence[Path]) -> dict[Path, str]:
    """What to call each file: its name, with its folder's in front where another file has the same name."""
    counts = Counter(path.name for path in paths)
    return {path: path.name if counts[path.name] == 1 else f"{path.parent.name}/{path.name}" for path in paths}


@dataclass(frozen=True, slots=True)
class SoftExample:
    """A passage and what models say of it: a probability for each label of the taxonomy, in its order."""

    id: str
    lang: str
    text: str
    probabilities: tuple[float, ...]


def read_pseudo_labels(
    paths: Sequence[Path], collections: Sequence[Path], taxonomy: Taxonomy
) -> tuple[list[SoftExample], dict[str, str]]:
    """The rows of pseudo-label files, their texts looked up in the collections, and a digest of each file.

    Raises ExampleFormatError where a row breaks the format, has a probability outside [0, 1] or for other labels than the
    taxonomy's, or where its text is in none of the collections.
    """
    wanted: dict[str, tuple[str, dict[str, Any]]] = {}
    for path in paths:
        for line, row in read_rows(path):
            where = f"{path}:{line}"
            missing = {"id", "sha256", "lang", "probabilities"} - set(row)
            if missing:
                raise ExampleFormatError(f"{where}: the row lacks {', '.join(sorted(missing))}")
            found = row["probabilities"]
            if not isinstance(found, dict) or set(found) != set(taxonomy.label_ids):
                raise ExampleFormatError(f"{where}: expected probabilities for {', '.join(taxonomy.label_ids)}")
            if not all(isinstance(value, int | float) and 0 <= value <= 1 for value in found.values()):
                raise ExampleFormatError(f"{where}: expected probabilities from 0 to 1")
            wanted[str(row["sha256"]).lower()] = where, row
    texts = _look_up(wanted.keys(), collections)
    examples = []
    for digest, (where, row) in wanted.items():
        if digest not in texts:
            raise ExampleFormatError(
                f"{where}: the text of {row['id']!r} is in none of the {len(collections)} collections given"
            )
        probabilities = tuple(float(row["probabilities"][label]) for label in taxonomy.label_ids)
        examples.append(SoftExample(id=row["id"], lang=row["lang"], text=texts[digest], probabilities=probabilities))
    return examples, {f"pseudo/{path.name}": hashlib.sha256(path.read_bytes()).hexdigest() for path in paths}


def _look_up(digests: Set[str], collections: Sequence[Path]) -> dict[str, str]:
    """The texts with these digests, as far as the collections have them."""
    texts: dict[str, str] = {}
    for path in collections:
        for line, row in read_rows(path):
            text = row.get("text")
            if not isinstance(text, str):
                raise ExampleFormatError(f"{path}:{line}: expected a field text with a string")
            digest = text_digest(text)
            if digest in digests:
                texts[digest] = text
    return texts


def text_digest(text: str) -> str:
    """SHA-256 of a text's UTF-8 bytes, in hexadecimal."""
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()

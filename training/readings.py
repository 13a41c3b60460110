"""Readings: what one person says of one passage, whatever file it stands in.

Labelled JSONL or CSV, standoff annotations (JSONL, gzip allowed) and exports of Label Studio (`.json`) are all read into the
same rows, which name a passage by id and by hash and hold no text.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any

from models.errors import ExampleFormatError, InputError
from models.example import LabelledExample, read_examples
from models.jsonl import read_rows
from models.language import detect_language
from models.taxonomy import Taxonomy
from models.text import prepare_text
from training.exclusion import text_key
from training.labelstudio import read_export
from training.standoff import checked_labels, text_digest

_SHOWN = 5


@dataclass(frozen=True, slots=True)
class Reading:
    """One annotator's labels of one passage.

    `sha256` is of the text's UTF-8 bytes; `key` names its prepared form, and is None where the text is not known.
    """

    id: str
    lang: str
    sha256: str
    labels: frozenset[str]
    unsure: bool
    key: bytes | None
    chosen: str = ""
    annotator: str = ""
    where: str = ""

    @property
    def passage(self) -> Hashable:
        """What readings of the same passage share."""
        return self.key or self.sha256

    def as_standoff(self, taxonomy: Taxonomy) -> dict[str, Any]:
        """The row that `training/annotations` keeps: no text."""
        row: dict[str, Any] = {
            "id": self.id,
            "lang": self.lang,
            "sha256": self.sha256,
            "labels": [label for label in taxonomy.label_ids if label in self.labels],
            "unsure": self.unsure,
        }
        return {**row, "chosen": self.chosen} if self.chosen else row


def read_readings(path: Path, taxonomy: Taxonomy) -> list[Reading]:
    """All readings of a file; a language that is not stated is detected.

    A file is standoff where its first row has `sha256` and no `text`. Raises ExampleFormatError naming file and line.
    """
    suffix = path.suffix.lower()
    if suffix == ".json":
        return [_from_example(example, str(example.extra["where"])) for example in read_export(path, taxonomy)]
    if suffix != ".csv":
        first = next((row for _line, row in read_rows(path)), {})
        if "sha256" in first and "text" not in first:
            return [_from_standoff(row, f"{path}:{line}", taxonomy) for line, row in read_rows(path)]
        if suffix == ".gz":
            raise ExampleFormatError(f"{path}: labelled rows with text are read from plain files; unpack it first")
    return [_from_example(example, f"{path}:row {row}") for row, example in enumerate(read_examples(path, taxonomy), 1)]


def annotators(readings: Iterable[Reading]) -> list[str]:
    """The names of those who annotated, sorted; only exports of Label Studio and rows with `annotator` tell."""
    return sorted({reading.annotator for reading in readings})


def of_annotators(readings: Sequence[Reading], names: Sequence[str], path: Path) -> list[Reading]:
    """The readings of the named annotators. Raises InputError where one of them has none."""
    missing = set(names) - set(annotators(readings))
    if missing:
        known = ", ".join(name or "(no name)" for name in annotators(readings))
        raise InputError(f"{path}: expected annotations by {sorted(missing)[0]!r}, the file has some by {known}")
    return [reading for reading in readings if reading.annotator in names]


def consensus(readings: Iterable[Reading]) -> list[Reading]:
    """One reading a passage: those with the same labels become one, unsure where one of them was.

    Raises InputError where a passage was given different labels.
    """
    kept: dict[Hashable, Reading] = {}
    conflicts: list[str] = []
    for reading in readings:
        first = kept.setdefault(reading.passage, reading)
        if first.labels != reading.labels:
            conflicts.append(f"{reading.id} ({first.where}: {_names(first)}, {reading.where}: {_names(reading)})")
        elif reading.unsure and not first.unsure:
            kept[reading.passage] = replace(first, unsure=True)
    if conflicts:
        raise InputError(
            f"expected one set of labels for a passage, {len(conflicts)} readings differ from an earlier one: "
            f"{_some(conflicts)}; settle them (rasid-train agreement lists them) or take one annotator of an export "
            "with --annotator"
        )
    return list(kept.values())


def standoff_rows(path: Path, taxonomy: Taxonomy, names: Sequence[str] = ()) -> list[dict[str, Any]]:
    """The rows of a labelled file as `training/annotations` keeps them, in its order; of the named annotators where given.

    Annotators who agree on a passage become one row. Raises InputError where they do not, or where a passage or an id comes
    twice, and ExampleFormatError naming file and line where the file breaks its format.
    """
    readings = read_readings(path, taxonomy)
    if names:
        readings = of_annotators(readings, names, path)
    refuse_repeats(readings)
    return [reading.as_standoff(taxonomy) for reading in consensus(readings)]


def refuse_repeats(readings: Sequence[Reading]) -> None:
    """Raise InputError where one annotator read a passage twice, or where an id names two passages of one language."""
    texts = _repeated(readings, lambda reading: (reading.passage, reading.annotator))
    if texts:
        raise InputError(f"expected each passage once, {len(texts)} come again: {_some(texts)}; keep one row of each")
    different = list({reading.passage: reading for reading in readings}.values())
    ids = _repeated(different, lambda reading: (reading.id, reading.lang))
    if ids:
        raise InputError(f"expected an id for each passage, {len(ids)} name another text too: {_some(ids)}; rename them")


def _repeated(readings: Iterable[Reading], name: Callable[[Reading], Hashable]) -> list[str]:
    first: dict[Hashable, Reading] = {}
    return [
        f"{reading.id} ({earlier.where}, {reading.where})"
        for reading in readings
        if (earlier := first.setdefault(name(reading), reading)) is not reading
    ]


def _some(items: Sequence[str]) -> str:
    return "; ".join(islice(items, _SHOWN)) + (f"; and {len(items) - _SHOWN} more" if len(items) > _SHOWN else "")


def _names(reading: Reading) -> str:
    return ("+".join(sorted(reading.labels)) or "none") + (f" by {reading.annotator}" if reading.annotator else "")


def _from_example(example: LabelledExample, where: str) -> Reading:
    prepared = prepare_text(example.text).text
    return Reading(
        id=example.id,
        lang=example.lang or detect_language(example.text).language,
        sha256=text_digest(example.text),
        labels=example.labels,
        unsure=example.unsure,
        key=text_key(prepared) if prepared else None,
        chosen=str(example.extra.get("chosen") or ""),
        annotator=str(example.extra.get("annotator") or ""),
        where=where,
    )


def _from_standoff(row: dict[str, Any], where: str, taxonomy: Taxonomy) -> Reading:
    labels, unsure = checked_labels(row, where, taxonomy, ("id", "lang", "sha256"))
    return Reading(
        id=str(row["id"]),
        lang=str(row["lang"]),
        sha256=str(row["sha256"]).lower(),
        labels=labels,
        unsure=unsure,
        key=None,
        chosen=str(row.get("chosen") or ""),
        annotator=str(row.get("annotator") or ""),
        where=where,
    )

"""Pairing: which readings of two sides are of the same passage."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from models.errors import ExampleFormatError, InputError
from models.jsonl import read_rows
from models.taxonomy import Taxonomy
from models.text import prepare_text
from training.exclusion import text_key
from training.readings import Reading, annotators, consensus, of_annotators, read_readings
from training.standoff import text_digest


@dataclass(frozen=True, slots=True)
class Sides:
    """Two annotations, one reading a passage each, and what they are called."""

    first: tuple[Reading, ...]
    second: tuple[Reading, ...]
    names: tuple[str, str]


@dataclass(frozen=True, slots=True)
class Pairs:
    """Readings of the same passages, first and second side.

    `by_id` of them have the id alone in common, because the text of a side is not known. `other_text` counts those with one id
    and different texts, which are no pairs.
    """

    pairs: tuple[tuple[Reading, Reading], ...]
    by_id: int
    other_text: int


def read_sides(
    first: Path, second: Path | None, taxonomy: Taxonomy, *, collections: Sequence[Path] = (), names: Sequence[str] = ()
) -> Sides:
    """The sides of two files, or, without `second`, of the annotators of one export.

    `names` are annotators to take: of each file that has several, or the two to compare. Without them the two annotations of
    each passage of one export are its sides, whoever made them. `collections` (JSONL with `text`, gzip allowed) give standoff
    rows their texts. Raises InputError where a side has conflicting labels for a passage or where there are not two
    annotators, ExampleFormatError where a file breaks its format.
    """
    if second is None:
        one, other, titles = _two_annotators(read_readings(first, taxonomy), names, first)
    else:
        one, other = (_annotated(path, names, taxonomy) for path in (first, second))
        titles = (str(first), str(second)) if first.name == second.name else (first.name, second.name)
    keys = _keys([*one, *other], collections)
    sides = [tuple(consensus(_with_key(reading, keys) for reading in side)) for side in (one, other)]
    return Sides(sides[0], sides[1], titles)


def pair(first: Sequence[Reading], second: Sequence[Reading]) -> Pairs:
    """Pair the readings by their text, else by its prepared form, else by id and language where a text is not known.

    A reading is in one pair at most; ids that come more than once on the second side pair nothing.
    """
    left = list(first)
    free = {id(reading): reading for reading in second}
    pairs: list[tuple[Reading, Reading]] = []
    by_text: tuple[Callable[[Reading], Hashable], ...] = (lambda reading: reading.sha256, lambda reading: reading.key)
    for name in by_text:
        there = {name(reading): reading for reading in free.values()}
        unpaired = []
        for reading in left:
            found = there.get(name(reading)) if name(reading) is not None else None
            if found is None or free.pop(id(found), None) is None:
                unpaired.append(reading)
            else:
                pairs.append((reading, found))
        left = unpaired
    often = Counter((reading.id, reading.lang) for reading in free.values())
    by_name = {(reading.id, reading.lang): reading for reading in free.values()}
    by_id = other_text = 0
    for reading in left:
        found = by_name.get((reading.id, reading.lang))
        if found is None or often[reading.id, reading.lang] > 1:
            continue
        if reading.key is not None and found.key is not None:
            other_text += 1
        elif free.pop(id(found), None) is not None:
            pairs.append((reading, found))
            by_id += 1
    return Pairs(tuple(pairs), by_id, other_text)


def _annotated(path: Path, names: Sequence[str], taxonomy: Taxonomy) -> list[Reading]:
    """The readings of a file; of the named annotators alone where there are several."""
    readings = read_readings(path, taxonomy)
    known = annotators(readings)
    if not names or len(known) == 1:
        return readings
    return of_annotators(readings, [name for name in names if name in known] or names, path)


def _two_annotators(
    readings: Sequence[Reading], names: Sequence[str], path: Path
) -> tuple[list[Reading], list[Reading], tuple[str, str]]:
    """The two sides of one file and their names: two annotators, or the first and second by name of each passage."""
    known = annotators(readings)
    again = "name two with --annotator, or give a second file"
    if names:
        if len(set(names)) != 2:
            raise InputError(f"{path}: expected two annotators to compare, got {len(set(names))}; {again}")
        return of_annotators(readings, names[:1], path), of_annotators(readings, names[1:], path), (names[0], names[1])
    if len(known) < 2:
        raise InputError(f"{path}: expected annotations by two people, got one ({known[0] or 'no name'}); {again}")
    people: dict[Hashable, set[str]] = {}
    for reading in readings:
        people.setdefault(reading.passage, set()).add(reading.annotator)
    most = max(len(found) for found in people.values())
    if most > 2:
        raise InputError(f"{path}: expected two annotators a passage, one has {most} (of {', '.join(known)}); {again}")
    first_of = {passage: known[0] if len(known) == 2 else min(found) for passage, found in people.items()}
    first = [reading for reading in readings if reading.annotator == first_of[reading.passage]]
    second = [reading for reading in readings if reading.annotator != first_of[reading.passage]]
    titles = (known[0], known[1]) if len(known) == 2 else ("one annotator", f"another (of {len(known)} in all)")
    return first, second, titles


def _keys(readings: Sequence[Reading], collections: Sequence[Path]) -> dict[str, bytes]:
    """By SHA-256, the keys of texts in the collections whose readings have none."""
    wanted = {reading.sha256 for reading in readings if reading.key is None}
    keys: dict[str, bytes] = {}
    for path in collections:
        for line, row in read_rows(path):
            if not isinstance(row.get("text"), str):
                raise ExampleFormatError(f"{path}:{line}: expected a field 'text', the row has {', '.join(sorted(row))}")
            digest = text_digest(row["text"])
            if digest in wanted:
                keys[digest] = text_key(prepare_text(row["text"]).text)
    return keys


def _with_key(reading: Reading, keys: dict[str, bytes]) -> Reading:
    return reading if reading.key is not None else replace(reading, key=keys.get(reading.sha256))

"""From labelled files to the rows a model is trained on: prepared, de-duplicated, split by source document."""

from __future__ import annotations

import hashlib
import logging
import re
from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from models.errors import InputError
from models.example import LabelledExample, digest_examples, labelled_files, read_examples
from models.language import detect_language
from models.taxonomy import Taxonomy
from models.text import prepare_text
from training.overlap import EvaluationTexts, read_evaluation_texts
from training.standoff import (
    SoftExample,
    distinct_names,
    read_corrections,
    read_pseudo_labels,
    resolve_annotations,
    text_digest,
)

logger = logging.getLogger(__name__)

OWN_PREFIX = "own-"  # ids of the own corpus begin so
# One collection gives its stories a second time, sentence by sentence, under ids of their own.
_SENTENCE_OF_STORY = re.compile(r"(india_police_events)_sents:(\d+)\.\d+")


@dataclass(frozen=True, slots=True)
class TrainingRow:
    """One prepared text with its targets in taxonomy order: 0 or 1 by a reader, a probability as a pseudo-label."""

    id: str
    document: str
    source: str
    language: str
    text: str
    targets: tuple[float, ...]
    unsure: bool


@dataclass(frozen=True, slots=True)
class Dataset:
    """The rows of a training run, apart by document, and the digests of the files they came from."""

    train: tuple[TrainingRow, ...]
    validation: tuple[TrainingRow, ...]
    digests: dict[str, str]
    dropped_duplicates: int
    excluded: int


def load_dataset(
    paths: Sequence[Path],
    taxonomy: Taxonomy,
    *,
    annotations: Sequence[Path] = (),
    collections: Sequence[Path] = (),
    corrections: Sequence[Path] = (),
    pseudo: Sequence[Path] = (),
    exclude: Sequence[Path] = (),
    validation_share: float = 0.12,
    validation_paths: Sequence[Path] = (),
) -> Dataset:
    """Read labelled files and split them.

    A folder stands for the JSONL and CSV files directly in it. `annotations` are standoff files whose texts are looked up in
    `collections`; `corrections` are standoff files whose labels take the place of those of the same text. Rows with the
    same prepared text are kept once (first come; a later one with other labels marks the kept row unsure). `pseudo` are
    standoff files of probabilities: training rows too, unless somebody labelled the text or its document is for
    validation. Without `validation_paths` a document goes to validation by a hash of its name, so adding rows never moves
    the old ones; with them, texts and documents (the part of an id before `#`) of those files are not trained on. Rows that
    overlap with the evaluation files `exclude` (`training.overlap`) are in neither part.
    Raises InputError where a part is empty, ExampleFormatError naming file and line where a file breaks its format.
    """
    digests: dict[str, str] = {}
    kept: dict[str, TrainingRow] = {}
    dropped = 0
    held_out: set[str] = set()
    files = labelled_files(validation_paths)
    names = distinct_names([*files, *labelled_files(paths)])
    sources = [(names[path], read_examples(path, taxonomy), True) for path in files]
    sources += [(names[path], read_examples(path, taxonomy), False) for path in labelled_files(paths)]
    if annotations:
        resolved, resolved_digests = resolve_annotations(labelled_files(annotations), collections, taxonomy)
        sources.append(("", resolved, False))
        digests.update(resolved_digests)
    corrected = read_corrections(labelled_files(corrections), taxonomy)
    for path in labelled_files(corrections):
        digests[f"corrections/{path.name}"] = hashlib.sha256(path.read_bytes()).hexdigest()
    for name, examples, for_validation in sources:
        if name:
            digests[name] = digest_examples(examples)
        for example in examples:
            row = training_row(_corrected(example, corrected), taxonomy)
            if not row.text:
                continue
            first = kept.get(row.text)
            if first is None:
                kept[row.text] = row
                if for_validation:
                    held_out.add(row.text)
                continue
            dropped += 1
            if first.targets != row.targets and not first.unsure:
                kept[row.text] = replace(first, unsure=True)
    evaluated = read_evaluation_texts(exclude, taxonomy)
    labelled = frozenset(kept)
    kept = {text: row for text, row in kept.items() if not overlaps(row, evaluated)}
    excluded = len(labelled) - len(kept)
    train: list[TrainingRow] = []
    validation: list[TrainingRow] = []
    for text, row in kept.items():
        in_validation = text in held_out if validation_paths else in_share(row.document, validation_share)
        (validation if in_validation else train).append(row)
    if validation_paths:
        apart = without_documents(train, validation)
        if len(apart) < len(train):
            logger.info(
                "%d rows left out of training: other rows of their documents are for validation", len(train) - len(apart)
            )
        train = apart
    if not train or not validation:
        raise InputError(
            f"expected rows for training and for validation, got {len(train)} and {len(validation)}: give more "
            "documents (the part of an id before #), or a validation file (--validation)"
        )
    if pseudo:
        soft, soft_digests = read_pseudo_labels(labelled_files(pseudo), collections, taxonomy)
        digests.update(soft_digests)
        rows = _pseudo_rows(soft, labelled, {row.document for row in validation}, 0.0 if validation_paths else validation_share)
        apart = [row for row in rows if not overlaps(row, evaluated)]
        excluded += len(rows) - len(apart)
        train += apart
    if excluded:
        logger.info("%d rows left out: they overlap with the evaluation files", excluded)
    return Dataset(tuple(train), tuple(validation), digests, dropped, excluded)


def overlaps(row: TrainingRow, evaluated: EvaluationTexts) -> bool:
    """Whether a row is of a document of evaluation files or shares text with one (`training.overlap`)."""
    return evaluated.overlap(row.text, row.document if row.document != row.id else "")


def without_documents(rows: Sequence[TrainingRow], others: Sequence[TrainingRow]) -> list[TrainingRow]:
    """The rows that are of no document of the others; an id without `#` names no document but its own text."""
    documents = {row.document for row in others if row.document != row.id}
    return [row for row in rows if row.document == row.id or row.document not in documents]


def _pseudo_rows(
    examples: Sequence[SoftExample], labelled: Set[str], held_out: Set[str], validation_share: float
) -> list[TrainingRow]:
    rows: dict[str, TrainingRow] = {}
    for example in examples:
        text, document = prepare_text(example.text).text, source_document(example.id)
        if not text or text in labelled or document in held_out or in_share(document, validation_share):
            continue
        rows.setdefault(
            text,
            TrainingRow(
                id=example.id,
                document=document,
                source=example.id.split(":", 1)[0],
                language=example.lang,
                text=text,
                targets=example.probabilities,
                unsure=False,
            ),
        )
    return list(rows.values())


def _corrected(example: LabelledExample, corrections: Mapping[str, tuple[frozenset[str], bool]]) -> LabelledExample:
    found = corrections.get(text_digest(example.text)) if corrections else None
    return replace(example, labels=found[0], unsure=found[1]) if found else example


def training_row(example: LabelledExample, taxonomy: Taxonomy) -> TrainingRow:
    """Prepare one example; the language is detected where the example does not state it."""
    return TrainingRow(
        id=example.id,
        document=source_document(example.id),
        source=example.source or example.id.split(":", 1)[0],
        language=example.lang or detect_language(example.text).language,
        text=prepare_text(example.text).text,
        targets=tuple(int(label in example.labels) for label in taxonomy.label_ids),
        unsure=example.unsure,
    )


def source_document(identity: str) -> str:
    """The document that a passage is of: the part of its id before `#`."""
    document = identity.split("#", 1)[0]
    story = _SENTENCE_OF_STORY.fullmatch(document)
    return f"{story[1]}:{story[2]}" if story else document


def in_share(document: str, share: float) -> bool:
    """Whether a document falls into the given share, by a hash of its name."""
    bucket = int.from_bytes(hashlib.sha256(document.encode("utf-8", "replace")).digest()[:8], "big")
    return bucket < share * 2**64


def targets(rows: Sequence[TrainingRow]) -> NDArray[np.float32]:
    """The targets of `N` rows as `[N, L]`, in [0, 1]."""
    return np.asarray([row.targets for row in rows], dtype=np.float32)

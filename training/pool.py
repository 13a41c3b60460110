"""A pool: unlabelled passages that some are chosen from to be annotated.

JSONL rows, gzip allowed, with `text` and, where known, `id` (the part before `#` names the document), `lang` and `source`. A
pool is read as a stream, more than once; what stays in memory is the index: some hundred bytes a passage, no text.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from models.errors import ExampleFormatError, InputError
from models.jsonl import read_rows
from models.language import detect_language
from models.text import prepare_text
from training.exclusion import Exclusion, text_key
from training.standoff import text_digest


@dataclass(frozen=True, slots=True)
class PoolPassage:
    """One row of a pool. `lang` is "" where the row does not state it."""

    id: str
    lang: str
    source: str
    text: str

    @property
    def document(self) -> str:
        """The source document: the part of the id before `#`."""
        return self.id.split("#", 1)[0]


@dataclass(frozen=True, slots=True)
class PoolIndex:
    """What is known of the `N` usable passages of a pool without their texts, in the pool's order.

    `positions` `[N]` count all rows of the pool from 0; `documents` `[N]` are numbers in place of names; `labelled` `[N]` marks
    those in the excluded files, which are never chosen; `only_by_digest` `[N]` those of them whose text only the pool has.
    """

    positions: NDArray[np.int64]
    documents: NDArray[np.int64]
    languages: NDArray[np.str_]
    labelled: NDArray[np.bool_]
    only_by_digest: NDArray[np.bool_]
    rows: int
    skipped: dict[str, int]

    def __len__(self) -> int:
        return len(self.positions)


def read_pool(paths: Sequence[Path]) -> Iterator[PoolPassage]:
    """The rows of the files one after the other, as a stream. Raises ExampleFormatError naming file and line."""
    for path in paths:
        for line, row in read_rows(path):
            text = row.get("text")
            if not isinstance(text, str):
                raise ExampleFormatError(f"{path}:{line}: expected text to be a string, got {type(text).__name__}")
            yield PoolPassage(
                id=str(row.get("id") or f"{path.name}:{line}"),
                lang=str(row.get("lang") or ""),
                source=str(row.get("source") or ""),
                text=text,
            )


def index_pool(
    paths: Sequence[Path],
    languages: Sequence[str],
    *,
    exclusion: Exclusion,
    show_progress: bool = True,
) -> PoolIndex:
    """Read a pool once and tell which passages can be used.

    Passed over and counted in `skipped`: rows with nothing visible, in another language than `languages` (stated or else
    detected), with the prepared text of an earlier row, or with the id of an earlier row of their language. Raises InputError
    where none can be chosen.
    """
    positions: list[int] = []
    documents: list[int] = []
    found_languages: list[str] = []
    labelled: list[bool] = []
    by_digest: list[bool] = []
    numbers: dict[str, int] = {}
    row_of_key: dict[bytes, int] = {}
    ids: set[tuple[str, str]] = set()
    skipped = {"empty": 0, "other language": 0, "repeated text": 0, "repeated id": 0}
    rows = 0
    with tqdm(desc="reading the pool", unit=" passages", disable=not show_progress, dynamic_ncols=True) as bar:
        for passage in read_pool(paths):
            position, rows = rows, rows + 1
            bar.update()
            prepared = prepare_text(passage.text).text
            language = passage.lang or detect_language(passage.text).language
            if not prepared or language not in languages:
                skipped["other language" if prepared else "empty"] += 1
                continue
            key = text_key(prepared)
            digested = bool(exclusion.digests) and text_digest(passage.text) in exclusion.digests
            earlier = row_of_key.get(key)
            if earlier is not None:
                skipped["repeated text"] += 1
                if digested and not labelled[earlier]:
                    labelled[earlier] = by_digest[earlier] = True
                continue
            if (passage.id, language) in ids:
                skipped["repeated id"] += 1
                continue
            ids.add((passage.id, language))
            row_of_key[key] = len(positions)
            positions.append(position)
            documents.append(numbers.setdefault(passage.document, len(numbers)))
            found_languages.append(language)
            known = key in exclusion.keys
            labelled.append(known or digested)
            by_digest.append(digested and not known)
    index = PoolIndex(
        positions=np.array(positions, dtype=np.int64),
        documents=np.array(documents, dtype=np.int64),
        languages=np.array(found_languages, dtype=np.str_),
        labelled=np.array(labelled, dtype=np.bool_),
        only_by_digest=np.array(by_digest, dtype=np.bool_),
        rows=rows,
        skipped=skipped,
    )
    if index.labelled.all():
        left_out = ", ".join(
            f"{count} {reason}" for reason, count in {"excluded": int(index.labelled.sum()), **skipped}.items()
        )
        raise InputError(f"expected passages in {', '.join(languages)} to choose from, got {rows} rows, of them {left_out}")
    return index


def indexed_passages(paths: Sequence[Path], positions: NDArray[np.int64]) -> Iterator[PoolPassage]:
    """The passages at the given positions (ascending) of a pool, as a stream.

    Raises InputError where the pool has become shorter since it was indexed.
    """
    wanted = iter(positions.tolist())
    following = next(wanted, None)
    for position, passage in enumerate(read_pool(paths)):
        if following is None:
            return
        if position == following:
            yield passage
            following = next(wanted, None)
    if following is not None:
        raise InputError(f"expected row {following + 1} in the pool, it is gone; do not change the files while they are read")

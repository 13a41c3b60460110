"""Scoring files: windows of rows are read, classified and put on disk one after the other; the output is made at the end.

While a window is computed the next one is read and tokenised. Memory holds two windows, whatever the size of the input. Within
a window passages of one length share batches, and the rows come out in the order they came in.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

from models.classifier import Classifier, Encoded
from models.prediction import Granularity, Rejection
from service.score.outputs import check_output, write_output
from service.score.parts import Parts, write_whole
from service.score.rows import Columns, Row, read_rows
from service.score.sources import STANDARD_INPUT, Source

WINDOW_ROWS = 1_024
WINDOW_CHARACTERS = 2_000_000  # of articles fewer fit


@dataclass(frozen=True, slots=True)
class ScoreOptions:
    """What is asked for, beside input and output."""

    columns: Columns = field(default_factory=Columns)
    granularity: Granularity = "passage"
    evidence: bool = False
    keep_columns: bool = False
    max_characters: int = 200_000


@dataclass(slots=True)
class Summary:
    """What a run came to; counts of rows, and of decisions by label."""

    rows: int = 0
    scored: int = 0
    rejected: Counter[str] = field(default_factory=Counter)
    languages: Counter[str] = field(default_factory=Counter)
    flags: Counter[str] = field(default_factory=Counter)
    truncated: int = 0
    decisions: dict[str, Counter[str]] = field(default_factory=dict)

    def add(self, entry: dict[str, Any]) -> None:
        """Count one row."""
        self.rows += 1
        if "rejected" in entry:
            self.rejected[entry["rejected"]["code"]] += 1
            return
        self.scored += 1
        self.languages[entry["language"]] += 1
        self.flags.update(entry["flags"])
        self.truncated += entry["truncated"]
        for label, given in entry["labels"].items():
            self.decisions.setdefault(label, Counter())[given["decision"]] += 1

    def as_json(self) -> dict[str, Any]:
        """All counts, and the share of rows that a person should look at."""
        share = {label: round(found["review"] / self.scored, 4) for label, found in self.decisions.items()}
        return {
            "rows": self.rows,
            "scored": self.scored,
            "rejected": dict(self.rejected),
            "languages": dict(self.languages),
            "flags": dict(self.flags),
            "truncated": self.truncated,
            "decisions": {label: dict(found) for label, found in self.decisions.items()},
            "review_share": share,
        }


def score(
    classifier: Classifier,
    sources: Sequence[Source],
    output: str,
    rejects: Path,
    options: ScoreOptions,
    *,
    partial: Path,
    resume: bool = False,
    restart: bool = False,
    progress: Callable[[int, int], object] = lambda _rows, _rejected: None,
    finished: Callable[[Summary], object] = lambda _summary: None,
) -> Summary:
    """Score all rows of the sources into `output`, and what cannot be scored into `rejects` (JSONL, without texts).

    What is done lies in the folder `partial` until the output is whole; with `resume` a run that was stopped at any moment goes
    on there. `progress` gets the rows done, and those rejected among them; `finished` is called when the output is whole and
    `partial` still there. Raises InputError or EngineError.
    """
    check_output(output)
    run = _describe(classifier, sources, output, options)
    with Parts.begin(partial, run, resume=resume, restart=restart) as parts:
        done, rejected = parts.rows_done()
        number = len(parts.done())
        progress(done, rejected)
        rows = islice(read_rows(sources, options.columns, max_characters=options.max_characters), done, None)
        name = f"{classifier.bundle.manifest.name} {classifier.bundle.manifest.version}"
        with ThreadPoolExecutor(1, thread_name_prefix="rasid-read") as reader:

            def read() -> tuple[list[Row], Encoded] | None:
                window = list(_window(rows))
                if not window:
                    return None
                items = [row.item for row in window if row.item is not None]
                return window, classifier.encode(items, granularity=options.granularity, evidence=options.evidence)

            coming = reader.submit(read)
            while (found := coming.result()) is not None:
                coming = reader.submit(read)
                window, work = found
                answers = iter(classifier.decide(work, classifier.engine.logits(work.rows)))
                entries = [_entry(row, next(answers) if row.item else None, name, options) for row in window]
                number += 1
                parts.write(number, entries)
                done += len(entries)
                rejected += sum("rejected" in entry for entry in entries)
                progress(done, rejected)
        summary = Summary()
        labels = classifier.labels

        def scored() -> Iterator[dict[str, Any]]:
            for entry in parts.entries():
                summary.add(entry)
                if "rejected" not in entry:
                    yield entry

        write_output(output, scored(), labels)
        lines = [e["rejected"] for e in parts.entries() if "rejected" in e] if summary.rejected else []
        if lines:
            write_whole(rejects, "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines).encode())
        else:
            rejects.unlink(missing_ok=True)
        finished(summary)
    parts.remove()
    return summary


def _window(rows: Iterator[Row]) -> Iterator[Row]:
    characters = 0
    for row in islice(rows, WINDOW_ROWS):
        yield row
        characters += len(row.item.text) if row.item else 0
        if characters > WINDOW_CHARACTERS:
            return


def _entry(row: Row, answer: Any, model: str, options: ScoreOptions) -> dict[str, Any]:
    if row.rejection is not None:
        return {"rejected": _reject(row, row.rejection.code, row.rejection.detail)}
    if isinstance(answer, Rejection):
        return {"rejected": _reject(row, answer.error.code, answer.error.detail)}
    entry: dict[str, Any] = {**answer.model_dump(), "model": model}
    if options.keep_columns:
        entry["columns"] = row.columns
    return entry


def _reject(row: Row, code: str, detail: str) -> dict[str, Any]:
    return {"row": row.number, "place": row.place, "id": row.id, "code": code, "detail": detail}


def _describe(classifier: Classifier, sources: Sequence[Source], output: str, options: ScoreOptions) -> dict[str, Any]:
    """What must be the same for a run to go on."""
    files = [
        [source.path, source.format, source.size]
        + ([] if source.path == STANDARD_INPUT else [Path(source.path).stat().st_mtime_ns])
        for source in sources
    ]
    return {
        "sources": files,
        "output": output,
        "model": classifier.bundle.manifest.model_hash,
        "text column": options.columns.text,
        "id column": options.columns.id,
        "granularity": options.granularity,
        "evidence": options.evidence,
        "kept columns": options.keep_columns,
    }

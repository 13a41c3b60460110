"""Scoring files: windows of rows are put on disk one after the other; the output is made at the end, in the input's order."""

from __future__ import annotations

import tempfile
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from models.bundle import Bundle
from service.score.outputs import check_folder, check_output, write_output, write_rejects
from service.score.parts import Parts
from service.score.sources import Source
from service.score.stores import is_url
from service.score.windows import ScoreOptions, Scorer


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
    scorer: Scorer,
    sources: Sequence[Source],
    output: str,
    rejects: str,
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
    check_folder(rejects)
    run = _describe(scorer.bundle, sources, output, options)
    with Parts.begin(partial, run, resume=resume, restart=restart) as parts:
        done, rejected = parts.rows_done()
        number = len(parts.done())
        progress(done, rejected)
        for entries in scorer.score(list(sources), options, done=done):
            number += 1
            parts.write(number, entries)
            done += len(entries)
            rejected += sum("rejected" in entry for entry in entries)
            progress(done, rejected)
        summary = Summary()

        def scored() -> Iterator[dict[str, Any]]:
            for entry in parts.entries():
                summary.add(entry)
                if "rejected" not in entry:
                    yield entry

        kept = _kept_columns(parts.entries(), options) if options.keep_columns else []
        with _scratch_in(partial):
            write_output(output, scored(), scorer.bundle.taxonomy.label_ids, kept)
            if summary.rejected:
                write_rejects(rejects, (entry["rejected"] for entry in parts.entries() if "rejected" in entry))
            elif not is_url(rejects):
                Path(rejects).unlink(missing_ok=True)  # of an earlier run
        finished(summary)
    parts.remove()
    return summary


def _kept_columns(entries: Iterator[dict[str, Any]], options: ScoreOptions) -> list[str]:
    """The names of all columns of the input, in the order they first came. The id stands there anyway."""
    names = dict.fromkeys(name for entry in entries for name in entry.get("columns") or ())
    if options.columns.id in (None, "id"):
        names.pop("id", None)
    return list(names)


@contextmanager
def _scratch_in(folder: Path) -> Iterator[None]:
    """Let libraries put their temporary files, which hold texts, where a kill does not leave them for ever."""
    before, tempfile.tempdir = tempfile.tempdir, str(folder)
    try:
        yield
    finally:
        tempfile.tempdir = before


def _describe(bundle: Bundle, sources: Sequence[Source], output: str, options: ScoreOptions) -> dict[str, Any]:
    """What must be the same for a run to go on."""
    files = [[source.path, source.format, *source.facts] for source in sources]
    return {
        "sources": files,
        "output": output,
        "model": bundle.manifest.model_hash,
        "text column": options.columns.text,
        "id column": options.columns.id,
        "granularity": options.granularity,
        "evidence": options.evidence,
        "kept columns": options.keep_columns,
        "longest text": options.max_characters,
    }

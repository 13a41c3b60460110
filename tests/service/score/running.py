"""A run of the scoring on small files, for the tests."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from models.classifier import Classifier
from service.score.here import LocalScorer
from service.score.score import score
from service.score.sources import find_sources
from service.score.windows import ScoreOptions

TEXTS = ["They fled the village.", "قالت الوزارة إن العائلات نزحت.", "Rain.", "Gunmen burned the homes of Druze families."]


def run(classifier: Classifier, path: Path | list[str], output: Path, **options: Any) -> tuple[list[dict], list[dict]]:
    inputs = [str(path)] if isinstance(path, Path) else path
    settings = {key: options.pop(key) for key in ("resume", "restart", "progress") if key in options}
    rejects = output.with_suffix(".rejects")
    score(
        LocalScorer(classifier),
        find_sources(inputs, options.pop("input_format", None)),
        str(output),
        str(rejects),
        ScoreOptions(**options),
        partial=output.with_suffix(".partial"),
        **settings,
    )
    assert not output.with_suffix(".partial").exists()
    read = [json.loads(line) for line in output.read_text().splitlines()] if output.suffix == ".jsonl" else []
    return read, [json.loads(line) for line in rejects.read_text().splitlines()] if rejects.exists() else []


def jsonl(path: Path, rows: list[Any]) -> Path:
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))
    return path

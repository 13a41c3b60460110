"""The rows of a run, kept as Parquet in its work folder and nowhere else."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from datasets import Dataset


def write_table(path: Path, rows: Sequence[dict[str, Any]]) -> None:
    """Write rows with the same fields to a Parquet file."""
    Dataset.from_list(list(rows)).to_parquet(str(path))


def read_table(path: Path) -> list[dict[str, Any]]:
    """The rows of a Parquet file; no copy stays in the user's cache, for the rows hold texts."""
    with TemporaryDirectory() as cache:
        rows: list[dict[str, Any]] = Dataset.from_parquet(str(path), cache_dir=cache, keep_in_memory=True).to_list()
    return rows

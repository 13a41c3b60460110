"""Where rows come from: files, folders, patterns, URLs, standard input, and what kind of file each is."""

from __future__ import annotations

import glob
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import Any, Literal
from urllib.parse import unquote

from models.errors import InputError
from models.text import replace_surrogates
from service.score.stores import facts_of_url, is_url, list_urls, open_url

Format = Literal["jsonl", "csv", "tsv", "parquet", "xlsx", "txt"]
STANDARD_INPUT = "-"
_FORMATS: dict[str, Format] = {
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".csv": "csv",
    ".tsv": "tsv",
    ".tab": "tsv",
    ".parquet": "parquet",
    ".xlsx": "xlsx",
    ".txt": "txt",
}
_PACKED = {".gz": "gzip", ".zst": "zstd"}


@dataclass(frozen=True, slots=True)
class Source:
    """One file, or standard input, and how it is read; where it is packed, up to `max_bytes` unpacked."""

    path: str
    format: Format
    max_bytes: int | None = None

    @property
    def name(self) -> str:
        """What it is called, without its folder."""
        if self.path == STANDARD_INPUT:
            return "standard input"
        path = unquote(self.path.partition("?")[0]) if is_url(self.path) else self.path
        return replace_surrogates(PurePath(path).name)

    @property
    def facts(self) -> tuple[int, int]:
        """Its bytes as they are stored, and when it was changed, in nanoseconds; zeros for standard input."""
        if self.path == STANDARD_INPUT:
            return 0, 0
        if is_url(self.path):
            return facts_of_url(self.path)
        found = Path(self.path).stat()
        return found.st_size, found.st_mtime_ns

    def open(self) -> Any:
        """Its bytes, as a file that can be sought in. Raises InputError or OSError."""
        return open_url(self.path) if is_url(self.path) else Path(self.path).open("rb")


def find_sources(inputs: Sequence[str], given: Format | None = None, *, but: Sequence[Path] = ()) -> list[Source]:
    """The files that paths, folders and patterns name, in order, `but` those, as what a run writes itself.

    Raises InputError where there is none, none can be read, or one that is named is among those.
    """
    own = [path.resolve() for path in but]

    def is_own(path: Path) -> bool:
        resolved = path.resolve()
        return any(resolved == one or one in resolved.parents for one in own)

    found: list[Source] = []
    for entry in inputs:
        if entry == STANDARD_INPUT:
            found.append(Source(entry, given or "jsonl"))
            continue
        if is_url(entry):
            named = ((url, given or format_named(PurePath(url.partition("?")[0]))) for url in list_urls(entry))
            readable = [Source(url, kind) for url, kind in named if kind is not None]
            if not readable:
                raise InputError(f"{entry} holds no file that can be read; expected {_known()}")
            found.extend(readable)
            continue
        path = Path(entry)
        if path.is_dir():
            inside = sorted(
                str(file) for file in path.rglob("*") if file.is_file() and (given or format_named(file)) and not is_own(file)
            )
            if not inside:
                raise InputError(f"{entry} holds no file that can be read; expected {_known()}")
            found.extend(_source(Path(file), given) for file in inside)
        elif path.exists():
            if is_own(path):
                raise InputError(f"{entry} is written by this run and cannot be read by it; name another output")
            found.append(_source(path, given))
        else:
            matching = sorted(glob.glob(entry, recursive=True))  # noqa: PTH207 - a pattern from any folder
            if not matching:
                raise InputError(f"there is no file {entry}, and nothing matches it as a pattern")
            found.extend(_source(Path(file), given) for file in matching if Path(file).is_file() and not is_own(Path(file)))
    if sum(source.path == STANDARD_INPUT for source in found) > 1:
        raise InputError("standard input (-) can be read once")
    return found


def format_named(path: PurePath) -> Format | None:
    """The format that a file's name tells of, packed or not."""
    suffixes = [suffix.lower() for suffix in path.suffixes]
    if suffixes and suffixes[-1] in _PACKED:
        suffixes.pop()
    return _FORMATS.get(suffixes[-1]) if suffixes else None


def _source(path: Path, given: Format | None) -> Source:
    found = given or format_named(path)
    if found is None:
        raise InputError(f"{path}: expected {_known()}; name another kind of file with --input-format")
    return Source(str(path), found)


def _known() -> str:
    return f"one of {', '.join(_FORMATS)}, or one of these with {' or '.join(_PACKED)}"

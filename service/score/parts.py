"""What is done so far, on disk: one file a window of rows, whole or not there, and what the run was asked for.

The folder `OUT.partial` holds `run.json` (sources, options, model) and `part-000001.jsonl` and so on, each written beside and
renamed into place once it is on the disk. After a kill at any moment the next run goes on behind the last whole part, so no
row is lost and none is there twice.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO, Any, Self

from models.errors import InputError

_RUN = "run.json"
_LOCK = "lock"
_REJECTED = b'{"rejected":'


class BusyError(InputError):
    """Another process is at work in the folder."""


class OtherRunError(InputError):
    """The folder is of a run with other input, options or model."""


class Parts:
    """The folder of one run. A context manager: inside it no other process uses the folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._lock: IO[bytes] | None = None

    @classmethod
    def begin(cls, folder: Path, run: dict[str, Any], *, resume: bool, restart: bool) -> Self:
        """Make the folder, or go on with the one that is there.

        Raises InputError where there is one and neither was asked for, where it is of another run, or where another process is
        at it.
        """
        parts = cls(folder)
        if restart and folder.exists():
            with parts:
                parts.remove()
        if folder.exists() and not resume:
            raise InputError(
                f"{folder} is there from a run that was not finished: --resume goes on with it, --restart begins anew"
            )
        shutil.rmtree(folder.with_name(f"{folder.name}.removing"), ignore_errors=True)
        folder.mkdir(parents=True, exist_ok=True)
        stored = folder / _RUN
        if stored.is_file():
            before = json.loads(stored.read_text(encoding="utf-8"))
            changed = sorted(key for key in {*before, *run} if before.get(key) != run.get(key))
            if changed:
                raise OtherRunError(
                    f"{folder} was begun with other {' and '.join(changed)}: give the same, or begin anew with --restart"
                )
        else:
            write_whole(stored, json.dumps(run, indent=1).encode())  # in ASCII: names of files need not be UTF-8
        return parts

    def __enter__(self) -> Self:
        """Take the folder for this process. Raises InputError where another has it."""
        self._lock = (self.folder / _LOCK).open("wb")
        try:
            import fcntl  # noqa: PLC0415 - not on every system

            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            self._lock.close()
            raise BusyError(f"another process is at work in {self.folder}; wait for it") from None
        except (ImportError, OSError):  # this system or this disk has no such locks
            pass
        return self

    def __exit__(self, *_: object) -> None:
        """Give the folder back."""
        if self._lock is not None:
            self._lock.close()
            self._lock = None

    def done(self) -> list[Path]:
        """The parts that are there, in order."""
        found = sorted(self.folder.glob("part-*.jsonl"))
        for number, path in enumerate(found, 1):
            if path.name != _name(number):
                raise OtherRunError(f"{self.folder} lacks {_name(number)}; begin anew with --restart")
        return found

    def rows_done(self) -> tuple[int, int]:
        """How many rows of the input the parts cover, and how many of these were rejected."""
        rows = rejected = 0
        for path in self.done():
            content = path.read_bytes()
            rows += content.count(b"\n")
            rejected += content.startswith(_REJECTED) + content.count(b"\n" + _REJECTED)
        return rows, rejected

    def write(self, number: int, entries: Sequence[dict[str, Any]]) -> None:
        """Put a window of rows on the disk."""
        lines = (json.dumps(entry, ensure_ascii=False, default=str, separators=(",", ":")) + "\n" for entry in entries)
        write_whole(self.folder / _name(number), "".join(lines).encode())

    def entries(self) -> Iterator[dict[str, Any]]:
        """All rows, in order."""
        for path in self.done():
            with path.open(encoding="utf-8") as lines:
                yield from map(json.loads, lines)

    def remove(self) -> None:
        """Take the folder away, under another name first: a kill meanwhile must not leave half of it."""
        going = self.folder.with_name(f"{self.folder.name}.removing")
        shutil.rmtree(going, ignore_errors=True)
        self.folder.replace(going)
        shutil.rmtree(going)


def write_whole(path: Path, content: bytes) -> None:
    """Write a file beside its place and rename it into it once it is on the disk: it is there whole or not at all."""
    beside = path.with_name(f".{path.name}.writing")
    with beside.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    beside.replace(path)


def _name(number: int) -> str:
    return f"part-{number:06d}.jsonl"

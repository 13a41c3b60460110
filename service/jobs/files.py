"""Where the files of jobs lie: a folder a job, readable by the service's user alone.

`ID/input` is what was sent, `ID/partial/` what is done so far, `ID/results.EXT` and `ID/rejects.jsonl` what came of it.
"""

from __future__ import annotations

import contextlib
import logging
import re
import shutil
import time
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import IO

from models.errors import InputError
from service.errors import JobsUnavailableError
from service.jobs.job import JobOptions
from service.score.sources import Source

logger = logging.getLogger("rasid.jobs")

_UPLOADS = "uploads"
_JOB_ID = re.compile(r"^[0-9a-f]{32}$")
_STALE_SECONDS = 24 * 3_600.0


class JobFiles:
    """The folder of all jobs. Services that share a database of jobs share this folder too."""

    def __init__(self, folder: Path) -> None:
        """Make the folder where it is missing. Raises InputError where it cannot be made or written."""
        self.folder = folder
        self._lock: IO[bytes] | None = None
        try:
            folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            (folder / _UPLOADS).mkdir(exist_ok=True, mode=0o700)
        except OSError as error:
            raise InputError(
                f"the folder of jobs {folder} cannot be made: {type(error).__name__}; name another with RASID_JOBS"
            ) from None

    def settle(self, clean_up: Callable[[], None]) -> None:
        """Share the folder with other services while this process lives; where none uses it now, `clean_up` before."""
        try:
            import fcntl  # noqa: PLC0415 - not on every system
        except ImportError:
            return
        self._lock = (self.folder / "lock").open("wb")
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:  # others live, or this disk has no locks
            pass
        else:
            clean_up()
        with contextlib.suppress(OSError):
            fcntl.flock(self._lock, fcntl.LOCK_SH)

    def close(self) -> None:
        """Let others have the folder."""
        if self._lock is not None:
            self._lock.close()

    def new_upload(self) -> Path:
        """A place for a file that is coming in."""
        return self.folder / _UPLOADS / uuid.uuid4().hex

    def take_in(self, upload: Path, job_id: str) -> None:
        """Make an uploaded file the input of a job."""
        (self.folder / job_id).mkdir(mode=0o700)
        upload.replace(self.input(job_id))

    def input(self, job_id: str) -> Path:
        """What was sent."""
        return self.folder / job_id / "input"

    def source(self, job_id: str, options: JobOptions, max_bytes: int) -> Source:
        """The input of a job. Raises JobsUnavailableError where it is not there."""
        path = self.input(job_id)
        if not path.is_file() or options.format is None:
            raise JobsUnavailableError("the job's file is not there; do all services that share the database share RASID_JOBS?")
        return Source(str(path), options.format, max_bytes)

    def partial(self, job_id: str) -> Path:
        """What is done so far."""
        return self.folder / job_id / "partial"

    def results(self, job_id: str, options: JobOptions) -> Path:
        """What came of the job."""
        return self.folder / job_id / f"results.{options.output}"

    def rejects(self, job_id: str) -> Path:
        """What could not be scored, a line each, with the reason."""
        return self.folder / job_id / "rejects.jsonl"

    def stored(self) -> list[str]:
        """The jobs that have files. What else lies in the folder is not ours."""
        return [path.name for path in self.folder.iterdir() if path.is_dir() and _JOB_ID.match(path.name)]

    def is_stale(self, job_id: str) -> bool:
        """Whether nothing came into a job's folder for a day."""
        try:
            return time.time() - (self.folder / job_id).stat().st_mtime > _STALE_SECONDS
        except FileNotFoundError:  # another service was faster
            return False

    def tidy(self, job_id: str) -> None:
        """Delete what a job that is completed needs no longer."""
        home = self.folder / job_id
        (home / "input").unlink(missing_ok=True)
        for name in ("partial", "partial.removing"):
            shutil.rmtree(home / name, ignore_errors=True)

    def delete(self, job_id: str) -> None:
        """Delete everything of a job."""
        home = self.folder / job_id
        shutil.rmtree(home, ignore_errors=True)
        if home.exists():
            logger.error("files of a job could not be deleted; the next sweep tries again", extra={"job": job_id})

    def delete_uploads(self, *, older_than_seconds: float = _STALE_SECONDS) -> None:
        """Delete what was left of uploads that broke off."""
        for path in (self.folder / _UPLOADS).iterdir():
            if time.time() - path.stat().st_mtime > older_than_seconds:
                path.unlink(missing_ok=True)

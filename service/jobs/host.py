"""The jobs of one service: taking them in, keeping a worker while there is something to do, deleting what is old.

Nothing of it costs memory or time before the first job: the database is opened, and the worker started, when they are needed.
"""

from __future__ import annotations

import contextlib
import hashlib
import logging
import math
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from models.errors import InputError
from service.errors import JobsUnavailableError, QuotaError
from service.jobs.job import Job, JobOptions, State
from service.jobs.orders import DRAIN, WorkerSettings
from service.logs import log_unexpected
from service.settings import Settings

if TYPE_CHECKING:
    from service.jobs.files import JobFiles
    from service.jobs.store import JobStore
    from service.jobs.uploads import Upload

logger = logging.getLogger("rasid.jobs")

_DATABASE = "jobs.db"
_POLL_SECONDS = 2.0
_SWEEP_SECONDS = 60.0
_LONGEST_PAUSE_SECONDS = 30.0
_REMEMBERED_SECONDS = 30 * 24 * 3_600.0  # counts of jobs whose files are gone


class JobHost:
    """Jobs of a service. All methods may be called from any thread, and may wait for the database."""

    def __init__(self, settings: Settings, bundle: Callable[[], Path]) -> None:
        """`bundle` tells which bundle is active. Where jobs of an earlier service are left, they go on at once."""
        self._settings = settings
        self._bundle = bundle
        self._opening = threading.Lock()
        self._parts: tuple[JobStore, JobFiles] | None = None
        self._keeper: threading.Thread | None = None
        self._wake = threading.Event()
        self._closing = threading.Event()
        self._worker: _Process | None = None
        self._failures = 0
        self._pause_until = 0.0
        self._swept = -math.inf
        self._counts: dict[str, int] = {}

    def start(self) -> None:
        """Go on with what an earlier service left, where it left anything."""
        if self._settings.jobs_database is not None or (self._settings.jobs / _DATABASE).exists():
            threading.Thread(target=self._try_open, name="rasid-jobs-open", daemon=True).start()

    @property
    def store(self) -> JobStore:
        """The database of jobs. Raises JobsUnavailableError where it cannot be opened."""
        return self._open()[0]

    @property
    def files(self) -> JobFiles:
        """Their files. Raises JobsUnavailableError where the folder cannot be made."""
        return self._open()[1]

    def submit(self, upload: Upload, options: JobOptions, *, tenant: str, key: str | None) -> tuple[Job, bool]:
        """Take in a file that was uploaded; its job, and whether it is new.

        The file is moved into the folder of the job; it stays where it is when the job is known by its key. Raises InputError
        for a file that is no rows and for a key that was used otherwise, QuotaError, JobsUnavailableError.
        """
        from service.jobs.sniff import find_format  # noqa: PLC0415

        store, files = self._open()
        digest = hashlib.sha256(f"{upload.sha256} {options.model_dump_json()}".encode()).hexdigest()
        if key is not None and (known := store.find(tenant, key, digest)) is not None:
            return known, False
        self.check_room_for(tenant)
        found = options.format or find_format(upload.path, upload.name)
        options = options.model_copy(update={"format": found})
        job_id = uuid.uuid4().hex
        files.take_in(upload.path, job_id)
        job = None
        try:
            job, is_new = store.submit(
                job_id=job_id, tenant=tenant, digest=digest, options=options.model_dump(), size=upload.size, key=key
            )
        finally:
            if job is None or not is_new:
                files.delete(job_id)
        self._wake.set()
        return job, is_new

    def check_room_for(self, tenant: str) -> None:
        """Raise QuotaError where a tenant has as many unfinished jobs as it may have."""
        most = self._settings.max_jobs
        if self.store.unfinished(tenant) >= most:
            raise QuotaError(f"there are {most} unfinished jobs of this caller; wait or cancel some", retry_after_seconds=60)

    def cancel(self, job: Job) -> None:
        """Cancel a job and delete its file and what was scored of it; nothing where it has ended."""
        store, files = self._open()
        store.cancel(job.id)
        if (now := store.get(job.id)) is not None and now.state is State.CANCELLED:
            files.delete(job.id)

    def delete(self, job: Job) -> None:
        """Cancel a job where it runs, and delete everything of it but the counts."""
        store, files = self._open()
        store.cancel(job.id)
        store.expire(0.0, job.id)
        files.delete(job.id)

    def counts(self) -> dict[str, int]:
        """How many jobs stood in each state some seconds ago; nothing where no job was ever sent."""
        return self._counts

    def close(self) -> None:
        """Stop the worker where it is; the next service goes on behind what it wrote."""
        self._closing.set()
        self._wake.set()
        if self._keeper is not None:
            self._keeper.join()
        with self._opening:
            if self._parts is not None:
                self._parts[0].close()
                self._parts[1].close()

    def _open(self) -> tuple[JobStore, JobFiles]:
        with self._opening:
            if self._parts is None:
                from service.jobs.files import JobFiles  # noqa: PLC0415 - takes memory that most services never need
                from service.jobs.store import JobStore  # noqa: PLC0415

                try:
                    files = JobFiles(self._settings.jobs)
                    store = JobStore(self._database())
                    if self._settings.jobs_database is None:
                        files.settle(lambda: self._clean_up(store, files))
                    self._parts = store, files
                except InputError as error:
                    logger.error("no jobs", extra={"reason": str(error)})
                    raise JobsUnavailableError("this service cannot keep jobs now; its log tells why") from None
                self._keeper = threading.Thread(target=self._keep, args=self._parts, name="rasid-jobs", daemon=True)
                self._keeper.start()
            return self._parts

    def _try_open(self) -> None:
        while not self._closing.is_set():
            try:
                self._open()
            except JobsUnavailableError:  # the log tells why
                self._closing.wait(_LONGEST_PAUSE_SECONDS)
            else:
                return

    def _database(self) -> str:
        return self._settings.jobs_database or f"sqlite:///{(self._settings.jobs / _DATABASE).absolute()}"

    def _keep(self, store: JobStore, files: JobFiles) -> None:
        while not self._closing.is_set():
            try:
                self._sweep(store, files)
                self._look_after_worker(store)
                self._counts = store.counts()
            except Exception as error:  # the database or the disk is away: they may come back
                log_unexpected(error)
            self._wake.wait(_POLL_SECONDS)
            self._wake.clear()
        if self._worker is not None:
            self._worker.kill()
            try:
                store.free(self._worker.name, forgive=True)
            except Exception as error:
                log_unexpected(error)

    def _look_after_worker(self, store: JobStore) -> None:
        worker = self._worker
        if worker is not None and (status := worker.status()) is not None:
            self._worker = None
            store.free(worker.name, forgive=status == 0)
            self._failures = self._failures + 1 if status else 0
            if status:
                logger.warning("worker ended", extra={"status": status})
                self._pause_until = time.monotonic() + min(2.0**self._failures, _LONGEST_PAUSE_SECONDS)
        elif worker is not None:
            if worker.bundle != self._bundle():
                worker.drain()
        elif time.monotonic() >= self._pause_until and store.is_waiting():
            self._worker = _Process(self._settings, self._database(), self._bundle())

    def _sweep(self, store: JobStore, files: JobFiles) -> None:
        if time.monotonic() < self._swept + _SWEEP_SECONDS:
            return
        self._swept = time.monotonic()
        kept_seconds = self._settings.job_retention_hours * 3_600
        for job in store.expire(kept_seconds):
            files.delete(job.id)
        store.forget(kept_seconds + _REMEMBERED_SECONDS)
        for job_id in files.stored():
            found = store.get(job_id)
            if found is None:
                if files.is_stale(job_id):  # its submission broke off before the job was stored
                    files.delete(job_id)
            elif found.state is State.COMPLETED:
                files.tidy(job_id)  # its worker was killed before it did
            elif found.state in (State.FAILED, State.CANCELLED, State.EXPIRED):  # one was still at it
                files.delete(job_id)
        files.delete_uploads()

    @staticmethod
    def _clean_up(store: JobStore, files: JobFiles) -> None:
        """Whoever was at work here before is gone: nothing is held, and what no job is known of was left by a kill.

        What is still held was being read when all ended at once, which its file may have brought about: it counts as a try.
        """
        store.free(forgive=False)
        files.delete_uploads(older_than_seconds=0.0)
        for job_id in files.stored():
            if store.get(job_id) is None:
                files.delete(job_id)


class _Process:
    """A worker process."""

    def __init__(self, settings: Settings, database: str, bundle: Path) -> None:
        self.name = uuid.uuid4().hex
        self.bundle = bundle
        self._drained = False
        self._process = subprocess.Popen(
            [sys.executable, "-P", "-m", "service.jobs.worker"], stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True
        )
        self._say(
            WorkerSettings(
                name=self.name,
                database=database,
                folder=str(settings.jobs.absolute()),
                bundle=str(bundle.absolute()),
                engine=settings.engine,
                threads=settings.threads,
                max_characters=settings.max_text_characters,
                max_bytes=settings.max_job_unpacked_bytes,
                log_level=settings.log_level,
            ).line()
        )

    def status(self) -> int | None:
        """How it ended; None while it runs."""
        status = self._process.poll()
        if status is not None:
            self._close()
        return status

    def drain(self) -> None:
        """Let it finish the job it has, and go."""
        if not self._drained:
            self._drained = True
            self._say(f"{DRAIN}\n")

    def kill(self) -> None:
        """End it now; what it wrote stays."""
        self._process.kill()
        self._process.wait()
        self._close()

    def _close(self) -> None:
        if self._process.stdin is not None:
            with contextlib.suppress(BrokenPipeError):
                self._process.stdin.close()

    def _say(self, line: str) -> None:
        with contextlib.suppress(BrokenPipeError):  # it is gone, which is noticed by its status
            if self._process.stdin is not None:
                self._process.stdin.write(line)
                self._process.stdin.flush()

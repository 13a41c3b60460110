"""The process that does the jobs: `python -m service.jobs.worker`, started by the service and told how on standard input.

It stands back behind everything else on the machine, has a model of its own, and may be killed at any moment: what it began
is gone on with by the next one. It looks through new files in one thread and scores in another; it goes when there has been
nothing to do for a while, when the service wants another model, and when the service is gone.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from models.classifier import Classifier
from models.errors import InputError, RasidError
from service.errors import JobsUnavailableError
from service.jobs import store as stores
from service.jobs.files import JobFiles
from service.jobs.job import Job, JobOptions, State
from service.jobs.orders import DRAIN, WorkerSettings
from service.jobs.sniff import MOST_ROWS, check_size
from service.jobs.store import JobStore, LeaseLostError
from service.logs import configure_logging, log_unexpected
from service.score.here import LocalScorer
from service.score.outputs import EXCEL_ROWS
from service.score.parts import BusyError, OtherRunError
from service.score.readers import TooMuchError
from service.score.rows import Columns, MissingColumnError, MissingIdColumnError, read_rows
from service.score.score import Summary, score
from service.score.windows import ScoreOptions

logger = logging.getLogger("rasid.jobs")

IDLE_SECONDS = 60.0
MOST_TRIES = 8  # without a row done in between: the file kills whoever reads it
_POLL_SECONDS = 1.0
_MACHINE_SECONDS = 30.0
_NICE = 19


_Work = Callable[[Job, JobOptions, threading.Event], None]
"""What is done with a job; it sets the event before it gives the job out of its hands."""


class Worker:
    """Takes jobs, one at a time to look through and one at a time to score."""

    def __init__(self, settings: WorkerSettings, store: JobStore, files: JobFiles) -> None:
        self._settings = settings
        self._store = store
        self._files = files
        self._scorer: LocalScorer | None = None
        self._lock = threading.Lock()
        self._busy = 0
        self._last_work = time.monotonic()
        self.draining = threading.Event()

    def validate_all(self) -> None:
        """Look through new files, until there has been nothing to do for a while."""
        self._work(self._validate, validated=False)

    def score_all(self) -> None:
        """Score what was looked through, until there has been nothing to do for a while."""
        self._work(self._score, validated=True)

    def _work(self, work: _Work, *, validated: bool) -> None:
        while not self._is_over():
            job = self._claim(validated=validated)
            if job is None:
                time.sleep(_POLL_SECONDS)
                continue
            with self._lock:
                self._busy += 1
            try:
                self._attempt(job, work)
            finally:
                with self._lock:
                    self._busy -= 1
                    self._last_work = time.monotonic()

    def _is_over(self) -> bool:
        with self._lock:
            return self.draining.is_set() or (not self._busy and time.monotonic() > self._last_work + IDLE_SECONDS)

    def _claim(self, *, validated: bool) -> Job | None:
        try:
            return self._store.claim(self._settings.name, validated=validated)
        except JobsUnavailableError:  # it may come back
            return None

    def _attempt(self, job: Job, work: _Work) -> None:
        logger.info("job taken", extra={"job": job.id, "state": job.state, "tries": job.tries})
        try:
            if job.tries > MOST_TRIES:
                raise InputError("the file ended the process that read it again and again; is it damaged?")
            options = JobOptions(**job.options)
            with self._held(job) as stop_holding:
                work(job, options, stop_holding)
        except LeaseLostError:
            logger.info("job let go", extra={"job": job.id})
        except BusyError:  # who had it before has not noticed yet
            self._give_back(job, after_seconds=5 * _POLL_SECONDS)
        except InputError as error:
            told = _told(error, job).replace(str(self._files.input(job.id)), "the file")
            self._fail(job, error.code, told)
        except (OSError, RasidError) as error:  # the machine, not the file: no disk, no bundle, no shared folder, no database
            logger.warning("job waits", extra={"job": job.id, "error": type(error).__name__})
            self._give_back(job, after_seconds=_MACHINE_SECONDS)
        except Exception as error:
            log_unexpected(error)
            if job.tries >= MOST_TRIES:
                self._fail(job, "internal_error", f"the service failed: {type(error).__name__}")
            else:
                self._give_back(job, after_seconds=_POLL_SECONDS, tries=job.tries)

    def _give_back(self, job: Job, **values: Any) -> None:
        with contextlib.suppress(LeaseLostError, JobsUnavailableError):
            self._store.release(job, **values)

    def _fail(self, job: Job, code: str, detail: str) -> None:
        with contextlib.suppress(LeaseLostError, JobsUnavailableError):
            self._store.finish(job, State.FAILED, error_code=code, error_detail=detail[:1_024])
            self._files.delete(job.id)
            logger.info("job failed", extra={"job": job.id, "code": code})

    @contextmanager
    def _held(self, job: Job) -> Iterator[threading.Event]:
        """Renew the lease beside the work; where it is lost, end this process: what it goes on with is not its own."""
        ended = threading.Event()

        def beat() -> None:
            held = time.monotonic()
            while not ended.wait(stores.LEASE_SECONDS / 6):
                try:
                    self._store.hold(job)
                    held = time.monotonic()
                except LeaseLostError:
                    if not ended.is_set():
                        logger.info("job lost", extra={"job": job.id})
                        os._exit(0)
                except JobsUnavailableError:
                    if time.monotonic() - held > stores.LEASE_SECONDS:
                        os._exit(1)

        holder = threading.Thread(target=beat, name="rasid-lease", daemon=True)
        holder.start()
        try:
            yield ended
        finally:
            ended.set()
            holder.join()

    def _validate(self, job: Job, options: JobOptions, ended: threading.Event) -> None:
        source = self._files.source(job.id, options, self._settings.max_bytes)
        check_size(source)
        columns = Columns(options.text_column, options.id_column)
        total = 0
        for total, _ in enumerate(read_rows([source], columns, max_characters=self._settings.max_characters), 1):
            if total > MOST_ROWS:
                raise TooMuchError(f"expected at most {MOST_ROWS} rows, got more; send them in parts")
        if options.output == "xlsx" and total > EXCEL_ROWS:
            raise TooMuchError(f"an Excel sheet holds {EXCEL_ROWS} rows, the file has {total}; take csv or parquet")
        ended.set()
        self._store.release(job, state=State.QUEUED, total=total, tries=0)

    def _score(self, job: Job, options: JobOptions, ended: threading.Event) -> None:
        if self._scorer is None:
            settings = self._settings
            self._scorer = LocalScorer(Classifier.load(Path(settings.bundle), threads=settings.threads, engine=settings.engine))
        manifest = self._scorer.bundle.manifest
        model = f"{manifest.name} {manifest.version}"

        def progress(rows: int, rejected: int) -> None:
            self._store.hold(job, rows=rows, rejected=rejected, model=model, **({"tries": 1} if rows > job.rows else {}))

        def finished(summary: Summary) -> None:
            rejects = self._files.rejects(job.id)
            if not rejects.exists():
                rejects.touch()
            ended.set()
            self._store.finish(
                job,
                State.COMPLETED,
                rows=summary.rows,
                total=summary.rows,
                rejected=sum(summary.rejected.values()),
                summary=summary.as_json(),
                model=model,
            )

        for restart in (False, True):
            try:
                score(
                    self._scorer,
                    [self._files.source(job.id, options, self._settings.max_bytes)],
                    str(self._files.results(job.id, options)),
                    str(self._files.rejects(job.id)),
                    ScoreOptions(
                        columns=Columns(options.text_column, options.id_column),
                        granularity=options.granularity,
                        evidence=options.evidence,
                        keep_columns=options.keep_columns,
                        max_characters=self._settings.max_characters,
                    ),
                    partial=self._files.partial(job.id),
                    resume=not restart,
                    restart=restart,
                    progress=progress,
                    finished=finished,
                )
                break
            except OtherRunError:  # by another model: one file is not judged by two
                if restart:
                    raise
        self._files.tidy(job.id)
        logger.info("job done", extra={"job": job.id})


def _told(error: InputError, job: Job) -> str:
    """What is said of a file that cannot be used. The names of columns are left out: without a header they are texts."""
    if isinstance(error, MissingIdColumnError):
        return f"expected a column named {job.options['id_column']}, there is none; name it with id_column"
    if isinstance(error, MissingColumnError):
        column = job.options.get("text_column")
        named = f"named {column}" if column else "of text (text, content, body ...)"
        return f"expected a column {named}, there is none; name it with text_column"
    return str(error)


def _stand_back() -> None:
    """Let everything else go first, and be the first to go where memory runs out."""
    with contextlib.suppress(AttributeError, OSError):
        os.nice(_NICE)
    with contextlib.suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text("1000")


def _listen(worker: Worker) -> None:
    """Hear what the service says; where it is gone, go."""
    for line in sys.stdin:
        if line.strip() == DRAIN:
            worker.draining.set()
    os._exit(0)


def _or_end(work: Callable[[], None]) -> None:
    """Work; where that fails, end the process: half a worker would leave jobs standing."""
    try:
        work()
    except BaseException as error:
        log_unexpected(error)
        os._exit(1)


def main() -> int:
    """Work until there is nothing to do."""
    settings = WorkerSettings(**json.loads(sys.stdin.readline()))
    configure_logging(settings.log_level)
    _stand_back()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the service, which ends this process when it is done
    worker = Worker(settings, JobStore(settings.database), JobFiles(Path(settings.folder)))
    threading.Thread(target=_listen, args=(worker,), name="rasid-listen", daemon=True).start()
    validator = threading.Thread(target=_or_end, args=(worker.validate_all,), name="rasid-validate", daemon=True)
    validator.start()
    _or_end(worker.score_all)
    validator.join()
    return 0


if __name__ == "__main__":
    sys.exit(main())

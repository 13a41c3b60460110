"""Jobs in a database: SQLite beside their files by default, Postgres where several services share them.

A job belongs to whoever holds its lease: a worker takes it by an update that only one can win, renews the lease while it works,
and its every write names the token it got then. A worker that was killed leaves a lease that runs out; another takes the job
and goes on behind the parts that are on the disk. No texts are stored here: only counts, options and codes.

(No library does this on both databases: dbos has no lease without its paid conductor, huey forgets a task that it handed out,
procrastinate and pgqueuer need Postgres.)
"""

from __future__ import annotations

import logging
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import sqlalchemy as sa

from models.errors import InputError
from service.errors import JobsUnavailableError
from service.jobs.job import FINISHED, UNFINISHED, Job, State

logger = logging.getLogger("rasid.jobs")

LEASE_SECONDS = 30.0


_METADATA = sa.MetaData()
_JOBS = sa.Table(
    "rasid_jobs",
    _METADATA,
    sa.Column("id", sa.String(32), primary_key=True),
    sa.Column("state", sa.String(16), nullable=False, index=True),
    sa.Column("owner", sa.String(32)),
    sa.Column("worker", sa.String(32)),
    sa.Column("lease", sa.Double, nullable=False, default=0.0),
    sa.Column("created", sa.Double, nullable=False, index=True),
    sa.Column("started", sa.Double),
    sa.Column("ended", sa.Double),
    sa.Column("tries", sa.Integer, nullable=False, default=0),
    sa.Column("tenant", sa.String(64), nullable=False),
    sa.Column("key", sa.String(255)),
    sa.Column("digest", sa.String(64), nullable=False),
    sa.Column("options", sa.JSON, nullable=False),
    sa.Column("bytes", sa.BigInteger, nullable=False),
    sa.Column("total", sa.BigInteger),
    sa.Column("rows", sa.BigInteger, nullable=False, default=0),
    sa.Column("rejected", sa.BigInteger, nullable=False, default=0),
    sa.Column("summary", sa.JSON),
    sa.Column("model", sa.String(128)),
    sa.Column("error_code", sa.String(64)),
    sa.Column("error_detail", sa.String(1_024)),
    sa.UniqueConstraint("tenant", "key"),  # a job without a key is like no other: NULLs are distinct
)


class LeaseLostError(Exception):
    """The job was cancelled, or another worker has it: stop and touch nothing more of it."""


class IdempotencyError(InputError):
    """An idempotency key was used before, for something else."""

    code = "idempotency_key_reused"


class JobStore:
    """The jobs of one database. Safe to share between threads. All methods raise JobsUnavailableError where it is away."""

    def __init__(self, url: str) -> None:
        """Open `sqlite:///PATH` or `postgresql+psycopg://...` and make the table where it is missing. Raises InputError."""
        try:
            limits = {} if url.startswith("sqlite") else {"connect_timeout": 5, "options": "-c statement_timeout=20000"}
            self._engine = sa.create_engine(url, pool_pre_ping=True, hide_parameters=True, connect_args=limits)
            self._is_sqlite = self._engine.dialect.name == "sqlite"
            if self._is_sqlite:
                sa.event.listen(self._engine, "connect", _prepare_sqlite)
            _METADATA.create_all(self._engine)
        except (sa.exc.SQLAlchemyError, ImportError) as error:
            raise InputError(
                f"the database of jobs cannot be opened: {type(error).__name__}; expected sqlite:///PATH, or "
                "postgresql+psycopg://USER@HOST/NAME with pip install -e '.[postgres]' in the checkout"
            ) from None

    def close(self) -> None:
        """Close all connections."""
        self._engine.dispose()

    def submit(
        self,
        *,
        job_id: str,
        tenant: str,
        digest: str,
        options: dict[str, Any],
        size: int,
        key: str | None = None,
    ) -> tuple[Job, bool]:
        """Store a job whose file lies in its place; the job, and whether it is new.

        A tenant's `key` that was used before brings back that job; raises IdempotencyError where it was for another file or
        other options (the `digest` is over both).
        """
        values = {
            "id": job_id,
            "state": State.VALIDATING,
            "created": self._now(),
            "tenant": tenant,
            "key": key,
            "digest": digest,
            "options": options,
            "bytes": size,
        }
        try:
            return self._one(sa.insert(_JOBS).values(values).returning(_JOBS)), True
        except sa.exc.IntegrityError:
            before = self.find(tenant, key, digest) if key is not None else None
            if before is None:
                raise
            return before, False

    def knows(self, tenant: str, key: str) -> bool:
        """Whether a tenant used this key before."""
        return self._maybe(sa.select(_JOBS).where(_JOBS.c.tenant == tenant, _JOBS.c.key == key)) is not None

    def find(self, tenant: str, key: str, digest: str) -> Job | None:
        """The job that a tenant sent with this key. Raises IdempotencyError where it was another file or other options."""
        before = self._maybe(sa.select(_JOBS).where(_JOBS.c.tenant == tenant, _JOBS.c.key == key))
        if before is not None and before.digest != digest:
            raise IdempotencyError("this Idempotency-Key was used for another file or other options; take a new one")
        return before

    def get(self, job_id: str, tenant: str | None = None) -> Job | None:
        """A job; only of this tenant where one is named."""
        query = sa.select(_JOBS).where(_JOBS.c.id == job_id)
        return self._maybe(query if tenant is None else query.where(_JOBS.c.tenant == tenant))

    def page(self, tenant: str | None, *, limit: int, after: str | None = None) -> list[Job]:
        """Jobs, the newest first; behind the job `after` where one is named."""
        query = sa.select(_JOBS).order_by(_JOBS.c.created.desc(), _JOBS.c.id.desc()).limit(limit)
        if tenant is not None:
            query = query.where(_JOBS.c.tenant == tenant)
        if after is not None and (last := self.get(after, tenant)) is not None:
            query = query.where(sa.tuple_(_JOBS.c.created, _JOBS.c.id) < sa.tuple_(last.created, last.id))
        with self._begin() as connection:
            return [_job(row) for row in connection.execute(query)]

    def claim(self, worker: str, *, validated: bool = True) -> Job | None:
        """Take the oldest job that nobody holds, for LEASE_SECONDS; None where there is none.

        One to run, or, where `validated` is false, one whose file was not looked through yet. `worker` names who takes it.
        """
        now = self._now()
        states = (State.QUEUED, State.RUNNING) if validated else (State.VALIDATING,)
        free = sa.and_(_JOBS.c.state.in_(states), _is_free(now))
        oldest = (
            sa.select(_JOBS.c.id)
            .where(free)
            .order_by(_JOBS.c.created)
            .limit(1)
            .with_for_update(skip_locked=True)  # SQLite, which writes one at a time, leaves it out
            .scalar_subquery()
        )
        values: dict[str, Any] = {
            "owner": uuid.uuid4().hex,
            "worker": worker,
            "lease": now + LEASE_SECONDS,
            "tries": _JOBS.c.tries + 1,
        }
        if validated:
            values |= {"state": State.RUNNING, "started": sa.func.coalesce(_JOBS.c.started, now)}
        return self._maybe(sa.update(_JOBS).where(_JOBS.c.id == oldest, free).values(values).returning(_JOBS))

    def is_waiting(self) -> bool:
        """Whether there is a job that nobody holds."""
        query = sa.select(_JOBS.c.id).where(_JOBS.c.state.in_(UNFINISHED), _is_free(self._now())).limit(1)
        with self._begin() as connection:
            return connection.execute(query).first() is not None

    def unfinished(self, tenant: str) -> int:
        """How many jobs of a tenant have not ended."""
        query = sa.select(sa.func.count()).where(_JOBS.c.tenant == tenant, _JOBS.c.state.in_(UNFINISHED))
        with self._begin() as connection:
            return int(connection.execute(query).scalar_one())

    def hold(self, job: Job, **values: Any) -> None:
        """Renew the lease of a claimed job and write `values` of it. Raises LeaseLostError where it is not ours any more."""
        self._write(job, lease=self._now() + LEASE_SECONDS, **values)

    def release(self, job: Job, *, after_seconds: float = 0.0, **values: Any) -> None:
        """Give a claimed job back, so that it may be taken again, and write `values` of it. It does not count as a try."""
        self._write(job, **{"lease": self._now() + after_seconds, "owner": None, "tries": _JOBS.c.tries - 1, **values})

    def free(self, worker: str | None = None, *, forgive: bool = True) -> None:
        """Give back what a worker holds that is known to be gone; without a name, what all of them hold.

        Where it went in peace (`forgive`) its tries do not count.
        """
        held = sa.and_(_JOBS.c.owner.is_not(None), _JOBS.c.state.in_(UNFINISHED))
        if worker is not None:
            held = sa.and_(held, _JOBS.c.worker == worker)
        with self._begin() as connection:
            tries = _JOBS.c.tries - (1 if forgive else 0)
            connection.execute(sa.update(_JOBS).where(held).values(lease=0.0, owner=None, tries=tries))

    def finish(self, job: Job, state: State, **values: Any) -> None:
        """End a claimed job. Raises LeaseLostError where it is not ours any more."""
        self._write(job, state=state, ended=self._now(), owner=None, **values)

    def cancel(self, job_id: str) -> None:
        """Cancel a job, whoever works on it; nothing where it has ended."""
        query = sa.update(_JOBS).where(_JOBS.c.id == job_id, _JOBS.c.state.in_(UNFINISHED))
        with self._begin() as connection:
            connection.execute(query.values(state=State.CANCELLED, ended=self._now(), owner=None))

    def expire(self, older_than_seconds: float, job_id: str | None = None) -> list[Job]:
        """Mark jobs that ended longer ago, or one that ended, as expired; those whose files are to be deleted now."""
        old = sa.and_(_JOBS.c.state.in_(FINISHED), _JOBS.c.ended <= self._now() - older_than_seconds)
        if job_id is not None:
            old = sa.and_(old, _JOBS.c.id == job_id)
        with self._begin() as connection:
            gone = {"state": State.EXPIRED, "summary": None, "key": None, "digest": "", "error_detail": None}
            rows = connection.execute(sa.update(_JOBS).where(old).values(gone).returning(_JOBS))
            return [_job(row) for row in rows]

    def forget(self, older_than_seconds: float) -> None:
        """Delete the rows of expired jobs that ended longer ago."""
        old = sa.and_(_JOBS.c.state == State.EXPIRED, _JOBS.c.ended <= self._now() - older_than_seconds)
        with self._begin() as connection:
            connection.execute(sa.delete(_JOBS).where(old))

    def counts(self) -> dict[str, int]:
        """How many jobs stand in each state."""
        with self._begin() as connection:
            query = sa.select(_JOBS.c.state, sa.func.count()).group_by(_JOBS.c.state)
            return {str(state): int(count) for state, count in connection.execute(query)}

    @contextmanager
    def _begin(self) -> Iterator[sa.Connection]:
        """A transaction. Raises JobsUnavailableError where the database cannot be reached, is locked or full."""
        try:
            with self._engine.begin() as connection:
                yield connection
        except (sa.exc.OperationalError, sa.exc.InterfaceError, sa.exc.TimeoutError) as error:
            logger.warning("no database of jobs", extra={"error": type(error.__cause__ or error).__name__})
            raise JobsUnavailableError("the database of jobs does not answer; try again", retry_after_seconds=5) from None

    def _write(self, job: Job, **values: Any) -> None:
        mine = sa.and_(_JOBS.c.id == job.id, _JOBS.c.owner == job.owner, _JOBS.c.state.in_(UNFINISHED))
        if self._maybe(sa.update(_JOBS).where(mine).values(values).returning(_JOBS)) is None:
            raise LeaseLostError

    def _one(self, statement: sa.Executable) -> Job:
        with self._begin() as connection:
            return _job(connection.execute(statement).one())

    def _maybe(self, statement: sa.Executable) -> Job | None:
        with self._begin() as connection:
            row = connection.execute(statement).one_or_none()
        return None if row is None else _job(row)

    def _now(self) -> sa.ColumnElement[float]:
        """The time of the database, which all services share; SQLite has that of this machine."""
        if self._is_sqlite:
            return sa.literal(time.time())
        return sa.cast(sa.extract("epoch", sa.func.clock_timestamp()), sa.Double)


def _is_free(now: sa.ColumnElement[float]) -> sa.ColumnElement[bool]:
    """Whether a lease ran out; one that ends too late was given before the clock was set back."""
    return sa.or_(_JOBS.c.lease < now, _JOBS.c.lease > now + 2 * LEASE_SECONDS)


def _prepare_sqlite(connection: Any, _record: Any) -> None:
    connection.execute("PRAGMA journal_mode=WAL")
    connection.execute("PRAGMA busy_timeout=10000")
    connection.execute("PRAGMA synchronous=FULL")  # what was accepted is on the disk


def _job(row: Any) -> Job:
    content = row._asdict()
    content["state"] = State(content["state"])
    for name in ("lease", "key", "worker"):
        content.pop(name)
    return Job(**content)

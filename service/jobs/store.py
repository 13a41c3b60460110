"""Jobs in a database: SQLite beside their files by default, Postgres where several services share them.

A job belongs to whoever holds its lease: a worker takes it by an update that only one can win, renews the lease while it works,
and its every write names the token it got then. A worker that was killed leaves a lease that runs out; another takes the job
and goes on behind the parts that are on the disk. No texts are stored here: only counts, options and codes.

(No library does this on both databases: dbos has no lease without its paid conductor, huey forgets a task that it handed out,
procrastinate and pgqueuer need Postgres.)
"""

from __future__ import annotations

import time
import uuid
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

import sqlalchemy as sa

from models.errors import InputError

LEASE_SECONDS = 30.0


class State(StrEnum):
    """Where a job stands."""

    VALIDATING = "validating"
    QUEUED = "queued"
    RUNNING = "running"
    COMPLETED = "completed"
    FAILED = "failed"
    CANCELLED = "cancelled"
    EXPIRED = "expired"


UNFINISHED = (State.VALIDATING, State.QUEUED, State.RUNNING)
FINISHED = (State.COMPLETED, State.FAILED, State.CANCELLED)

_METADATA = sa.MetaData()
_JOBS = sa.Table(
    "rasid_jobs",
    _METADATA,
    sa.Column("id", sa.String(32), primary_key=True),
    sa.Column("state", sa.String(16), nullable=False, index=True),
    sa.Column("owner", sa.String(32)),
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


@dataclass(frozen=True, slots=True)
class Job:
    """One job as it stood when it was read. Times are seconds since 1970; `rows` are those done."""

    id: str
    state: State
    owner: str | None
    created: float
    started: float | None
    ended: float | None
    tries: int
    tenant: str
    digest: str
    options: dict[str, Any]
    bytes: int
    rows: int
    rejected: int
    summary: dict[str, Any] | None
    model: str | None
    error_code: str | None
    error_detail: str | None


class JobStore:
    """The jobs of one database. Safe to share between threads."""

    def __init__(self, url: str) -> None:
        """Open `sqlite:///PATH` or `postgresql+psycopg://...` and make the table where it is missing. Raises InputError."""
        try:
            self._engine = sa.create_engine(url, pool_pre_ping=True)
            self._is_sqlite = self._engine.dialect.name == "sqlite"
            if self._is_sqlite:
                sa.event.listen(self._engine, "connect", _prepare_sqlite)
            _METADATA.create_all(self._engine)
        except (sa.exc.SQLAlchemyError, ImportError) as error:
            raise InputError(
                f"the database of jobs cannot be opened: {type(error).__name__}; expected sqlite:///PATH, or "
                "postgresql+psycopg://USER@HOST/NAME with pip install 'rasid[postgres]'"
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
        state: State = State.QUEUED,
    ) -> tuple[Job, bool]:
        """Store a job whose file lies in its place; the job, and whether it is new.

        A tenant's `key` that was used before brings back that job; raises IdempotencyError where it was for another file or
        other options (the `digest` is over both).
        """
        values = {
            "id": job_id,
            "state": state,
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
            before = self._maybe(sa.select(_JOBS).where(_JOBS.c.tenant == tenant, _JOBS.c.key == key))
            if before is None:
                raise
            if before.digest != digest:
                raise IdempotencyError("this Idempotency-Key was used for another file or other options") from None
            return before, False

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
        with self._engine.begin() as connection:
            return [_job(row) for row in connection.execute(query)]

    def claim(self) -> Job | None:
        """Take the oldest job that nobody holds, for LEASE_SECONDS; None where there is none."""
        now = self._now()
        free = sa.and_(_JOBS.c.state.in_(UNFINISHED), _JOBS.c.lease < now)
        oldest = (
            sa.select(_JOBS.c.id)
            .where(free)
            .order_by(_JOBS.c.created)
            .limit(1)
            .with_for_update(skip_locked=True)  # SQLite, which writes one at a time, leaves it out
            .scalar_subquery()
        )
        return self._maybe(
            sa.update(_JOBS)
            .where(_JOBS.c.id == oldest, free)
            .values(
                owner=uuid.uuid4().hex,
                lease=now + LEASE_SECONDS,
                tries=_JOBS.c.tries + 1,
                state=State.RUNNING,
                started=sa.func.coalesce(_JOBS.c.started, now),
            )
            .returning(_JOBS)
        )

    def hold(self, job: Job, **values: Any) -> None:
        """Renew the lease of a claimed job and write `values` of it. Raises LeaseLostError where it is not ours any more."""
        self._write(job, lease=self._now() + LEASE_SECONDS, **values)

    def release(self, job: Job) -> None:
        """Give a claimed job back, so that another may take it at once."""
        self._write(job, lease=0.0, owner=None, state=State.QUEUED, tries=_JOBS.c.tries - 1)

    def finish(self, job: Job, state: State, **values: Any) -> None:
        """End a claimed job. Raises LeaseLostError where it is not ours any more."""
        self._write(job, state=state, ended=self._now(), owner=None, **values)

    def cancel(self, job_id: str, tenant: str | None = None) -> Job | None:
        """Cancel an unfinished job, whoever works on it; the job as it is then, None where there is none of the tenant's."""
        query = sa.update(_JOBS).where(_JOBS.c.id == job_id, _JOBS.c.state.in_(UNFINISHED))
        if tenant is not None:
            query = query.where(_JOBS.c.tenant == tenant)
        self._maybe(query.values(state=State.CANCELLED, ended=self._now(), owner=None).returning(_JOBS))
        return self.get(job_id, tenant)

    def expire(self, older_than_seconds: float) -> list[Job]:
        """Mark jobs that ended longer ago as expired; those that were marked, so that their files can be deleted."""
        old = sa.and_(_JOBS.c.state.in_(FINISHED), _JOBS.c.ended < self._now() - older_than_seconds)
        with self._engine.begin() as connection:
            rows = connection.execute(sa.update(_JOBS).where(old).values(state=State.EXPIRED, summary=None).returning(_JOBS))
            return [_job(row) for row in rows]

    def counts(self) -> dict[str, int]:
        """How many jobs stand in each state."""
        with self._engine.begin() as connection:
            query = sa.select(_JOBS.c.state, sa.func.count()).group_by(_JOBS.c.state)
            return {str(state): int(count) for state, count in connection.execute(query)}

    def _write(self, job: Job, **values: Any) -> None:
        mine = sa.and_(_JOBS.c.id == job.id, _JOBS.c.owner == job.owner, _JOBS.c.state.in_(UNFINISHED))
        if self._maybe(sa.update(_JOBS).where(mine).values(values).returning(_JOBS)) is None:
            raise LeaseLostError

    def _one(self, statement: sa.Executable) -> Job:
        with self._engine.begin() as connection:
            return _job(connection.execute(statement).one())

    def _maybe(self, statement: sa.Executable) -> Job | None:
        with self._engine.begin() as connection:
            row = connection.execute(statement).one_or_none()
        return None if row is None else _job(row)

    def _now(self) -> sa.ColumnElement[float]:
        """The time of the database, which all services share; SQLite has that of this machine."""
        if self._is_sqlite:
            return sa.literal(time.time())
        return sa.cast(sa.extract("epoch", sa.func.clock_timestamp()), sa.Double)


def _prepare_sqlite(connection: Any, _record: Any) -> None:
    connection.execute("PRAGMA journal_mode=WAL")
    connection.execute("PRAGMA busy_timeout=30000")
    connection.execute("PRAGMA synchronous=FULL")  # what was accepted is on the disk


def _job(row: Any) -> Job:
    content = row._asdict()
    content["state"] = State(content["state"])
    for name in ("lease", "key"):
        content.pop(name)
    return Job(**content)

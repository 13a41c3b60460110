"""The scheduler: rows of token ids from all requests meet in one bounded queue, and a few workers run them in batches.

A batch holds rows of one length only, so nothing is padded and a row's logits do not depend on its company. A worker never
waits for a batch to fill: it takes the row that is due and what waits beside it of the same length.

Which row is due follows start-time fair queueing (Goyal, Vin and Cheng 1996): the rows of a request are due one after the
other, at the pace at which the machine would work them off, so an article of a thousand sentences falls due over a minute and
a short text that comes meanwhile goes between. Rows whose caller has left or whose deadline has passed are dropped before they
cost inference, and a row that is waiting or running already is not computed a second time.
"""

from __future__ import annotations

import asyncio
import contextlib
import heapq
import itertools
import math
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from hashlib import blake2b
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from models.errors import EngineError
from service.errors import DeadlineError, OverloadedError, ShuttingDownError


class Infer(Protocol):
    """Computes the logits `[B, L]` of `B` rows of one length; `alone` tells that no other batch runs or waits."""

    def __call__(self, rows: Sequence[Sequence[int]], *, alone: bool) -> NDArray[np.float32]:
        """Run one batch. May be called from several threads at once."""


_FIRST_GUESS_TOKENS_PER_SECOND = 5_000.0
_SMOOTHING = 0.1  # of the exponential moving average of the rate


@dataclass(frozen=True, slots=True)
class Outcome:
    """Logits `[N, L]` of a request's `N` rows, and where its time went."""

    logits: NDArray[np.float32]
    queue_seconds: float
    inference_seconds: float


@dataclass(frozen=True, slots=True)
class QueueState:
    """What waits and what was done, for readiness and metrics."""

    waiting_tokens: int
    waiting_rows: int
    oldest_seconds: float
    tokens_per_second: float
    running_seconds: float
    alive: bool


@dataclass(frozen=True, slots=True)
class Batch:
    """One batch that was run, for metrics."""

    rows: int
    tokens: int
    seconds: float


@dataclass(slots=True, eq=False)
class _Ticket:
    """One request's rows: counts down to its answer."""

    logits: NDArray[np.float32]
    missing: int
    deadline: float
    submitted: float
    done: Callable[[Outcome | Exception], None]
    started: float = math.inf
    open: bool = True


@dataclass(slots=True, eq=False)
class _Row:
    """One distinct row of token ids and everybody who waits for it."""

    key: bytes
    ids: Sequence[int]
    due: float
    waiters: list[tuple[_Ticket, int]] = field(default_factory=list)
    queued: bool = True


class Scheduler:
    """Forms batches and runs them on threads of its own. Every method may be called from any thread."""

    def __init__(
        self,
        infer: Infer,
        *,
        workers: int,
        max_waiting_tokens: int,
        max_batch_tokens: int,
        cache_rows: int = 0,
        observe: Callable[[Batch], None] = lambda _batch: None,
    ) -> None:
        """Start the workers. A batch has at most `max_batch_tokens`, but always one row."""
        self._infer = infer
        self._limit = max_waiting_tokens
        self._batch_tokens = max_batch_tokens
        self._observe = observe
        self._buckets: dict[int, list[tuple[float, int, _Row]]] = {}
        self._rows: dict[bytes, _Row] = {}
        self._cache: OrderedDict[bytes, NDArray[np.float32]] = OrderedDict()
        self._cache_rows = cache_rows
        self._waiting_tokens = 0
        self._waiting_rows = 0
        self._rate = _FIRST_GUESS_TOKENS_PER_SECOND
        self._count = itertools.count()
        self._running: dict[int, float] = {}  # since when each busy worker has been on its batch
        self._closing = False
        self._wake = threading.Condition()
        self._workers = [
            threading.Thread(target=self._work, args=(n,), name=f"rasid-inference-{n}", daemon=True) for n in range(workers)
        ]
        for worker in self._workers:
            worker.start()

    def admit(self, tokens: int) -> None:
        """Raise OverloadedError, with the seconds after which to try again, where about `tokens` more would be too many.

        Half of the queue is kept for requests of at most one batch; a request that is larger than its share of the queue is
        taken when nothing waits.
        """
        with self._wake:
            if self._closing:
                raise ShuttingDownError("the service is shutting down; send the request to another replica")
            share = self._limit if tokens <= self._batch_tokens else self._limit // 2
            if self._waiting_tokens and self._waiting_tokens + tokens > share:
                seconds = max(1, math.ceil((self._waiting_tokens + tokens - share) / self._rate))
                raise OverloadedError(f"the queue is full; try again in {seconds} s", retry_after_seconds=seconds)

    async def run(self, rows: Sequence[Sequence[int]], *, deadline: float = math.inf, urgent: bool = False) -> Outcome:
        """Logits of a request's rows. `deadline` is a time of `time.monotonic()`.

        `urgent` rows, those of a readiness check, go first and are computed whatever the cache holds. Where the calling task
        is cancelled, its rows are dropped. Raises OverloadedError, DeadlineError, ShuttingDownError, or EngineError where
        inference fails.
        """
        loop = asyncio.get_running_loop()
        answer: asyncio.Future[Outcome] = loop.create_future()

        def settle(result: Outcome | Exception) -> None:
            if answer.done():
                return
            if isinstance(result, Exception):
                answer.set_exception(result)
            else:
                answer.set_result(result)

        def done(result: Outcome | Exception) -> None:
            with contextlib.suppress(RuntimeError):  # the loop is closed: nobody waits
                loop.call_soon_threadsafe(settle, result)

        ticket = self._submit(rows, deadline, done, urgent)
        timer = None if math.isinf(deadline) else loop.call_later(deadline - time.monotonic(), self._expire, ticket)
        try:
            return await answer
        finally:
            ticket.open = False
            if timer is not None:
                timer.cancel()

    def state(self) -> QueueState:
        """What waits now."""
        with self._wake:
            now = time.monotonic()
            heads = [bucket[0][0] for bucket in self._buckets.values() if bucket[0][0] > -math.inf]
            return QueueState(
                waiting_tokens=self._waiting_tokens,
                waiting_rows=self._waiting_rows,
                oldest_seconds=max(0.0, now - min(heads, default=now)),
                tokens_per_second=self._rate,
                running_seconds=max((now - since for since in self._running.values()), default=0.0),
                alive=all(worker.is_alive() for worker in self._workers),
            )

    def close(self, *, timeout_seconds: float | None = None) -> None:
        """Take no more requests, finish what waits, stop the workers."""
        with self._wake:
            self._closing = True
            self._wake.notify_all()
        until = math.inf if timeout_seconds is None else time.monotonic() + timeout_seconds
        for worker in self._workers:
            worker.join(None if math.isinf(until) else max(0.0, until - time.monotonic()))

    def _submit(
        self, rows: Sequence[Sequence[int]], deadline: float, done: Callable[[Outcome | Exception], None], urgent: bool
    ) -> _Ticket:
        now = time.monotonic()
        ticket = _Ticket(np.empty((0, 0), dtype=np.float32), len(rows), deadline, now, done)
        salt = next(self._count).to_bytes(8, "little") if urgent else b""
        keys = [blake2b(np.asarray(ids, dtype=np.int32).tobytes(), digest_size=16, salt=salt).digest() for ids in rows]
        with self._wake:
            if self._closing:
                raise ShuttingDownError("the service is shutting down; send the request to another replica")
            due = -math.inf if urgent else now
            for place, (key, ids) in enumerate(zip(keys, rows, strict=True)):
                cached = self._cache.get(key)
                if cached is not None:
                    self._cache.move_to_end(key)
                    self._deliver(ticket, place, cached, now)
                    continue
                row = self._rows.get(key)
                if row is None:
                    row = self._rows[key] = _Row(key, ids, due)
                    self._push(row)
                    self._waiting_tokens += len(ids)
                    self._waiting_rows += 1
                elif row.queued and due < row.due:
                    row.due = due
                    self._push(row)  # its former entry is passed over when it comes up
                row.waiters.append((ticket, place))
                due += len(ids) / self._rate
            if not rows:
                done(Outcome(ticket.logits, 0.0, 0.0))
            self._wake.notify(len(rows))
        return ticket

    def _push(self, row: _Row) -> None:
        heapq.heappush(self._buckets.setdefault(len(row.ids), []), (row.due, next(self._count), row))

    def _expire(self, ticket: _Ticket) -> None:
        with self._wake:
            if ticket.open and ticket.missing:
                ticket.open = False
                waited = time.monotonic() - ticket.submitted
                ticket.done(DeadlineError(f"not answered within the request's {waited:.3g} s; allow more or send less"))

    def _work(self, worker: int) -> None:
        while True:
            with self._wake:
                batch = self._take()
                while not batch:
                    if self._closing:
                        return
                    self._wake.wait()
                    batch = self._take()
                alone = not self._buckets and not self._running
                started = self._running[worker] = time.monotonic()
            try:
                logits: NDArray[np.float32] | Exception = self._infer([row.ids for row in batch], alone=alone)
            except EngineError as error:
                logits = error
            except Exception as error:  # whatever it is, the callers must hear of it and the worker must live on
                logits = EngineError(f"inference failed: {type(error).__name__}")
            self._finish(worker, batch, logits, started)

    def _take(self) -> list[_Row]:
        """The row that is due and others of its length, without those that nobody waits for any more."""
        now = time.monotonic()
        while self._buckets:
            length = min(self._buckets, key=lambda length: self._buckets[length][0][0])
            bucket = self._buckets[length]
            room = max(1, self._batch_tokens // max(1, length))
            batch: list[_Row] = []
            while bucket and len(batch) < room:
                due, _, row = heapq.heappop(bucket)
                if not row.queued or due != row.due:
                    continue
                row.queued = False
                self._waiting_tokens -= length
                self._waiting_rows -= 1
                if any(ticket.open and ticket.deadline > now for ticket, _ in row.waiters):
                    batch.append(row)
                else:
                    del self._rows[row.key]
            if not bucket:
                del self._buckets[length]
            if batch:
                return batch
        return []

    def _finish(self, worker: int, batch: list[_Row], logits: NDArray[np.float32] | Exception, started: float) -> None:
        with self._wake:
            now = time.monotonic()
            beside = len(self._running)
            del self._running[worker]
            tokens = sum(len(row.ids) for row in batch)
            if not isinstance(logits, Exception):
                self._rate += _SMOOTHING * (beside * tokens / max(now - started, 1e-6) - self._rate)
            for index, row in enumerate(batch):
                del self._rows[row.key]
                if not isinstance(logits, Exception) and self._cache_rows and row.due > -math.inf:
                    self._cache[row.key] = logits[index]
                    if len(self._cache) > self._cache_rows:
                        self._cache.popitem(last=False)
                for ticket, place in row.waiters:
                    if not ticket.open:
                        continue
                    if isinstance(logits, Exception):
                        ticket.open = False
                        ticket.done(logits)
                        continue
                    ticket.started = min(ticket.started, started)
                    self._deliver(ticket, place, logits[index], now)
        self._observe(Batch(len(batch), tokens, now - started))

    def _deliver(self, ticket: _Ticket, place: int, logits: NDArray[np.float32], now: float) -> None:
        if not ticket.logits.size:
            ticket.logits = np.empty((ticket.missing, len(logits)), dtype=np.float32)
        ticket.logits[place] = logits
        ticket.missing -= 1
        if not ticket.missing:
            started = min(ticket.started, now)
            ticket.open = False
            ticket.done(Outcome(ticket.logits, started - ticket.submitted, now - started))

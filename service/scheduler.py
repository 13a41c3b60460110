"""The scheduler: rows of token ids from all requests meet in one bounded queue, and a few workers run them in batches.

A batch holds rows of one length only, so nothing is padded and a row's logits do not depend on its company. A worker never
waits for a batch to fill: it takes the row that is due and what waits beside it of the same length.

Which row is due is decided by request: each has a clock that starts when it comes and goes on, with every row of it that is
taken, by the time its share of the machine needs for that row; the request whose clock is furthest behind is next (start-time
fair queueing, Goyal, Vin and Cheng 1996). So a short text goes between the sentences of an article, and an article is not
starved by short texts that come later. Rows that nobody waits for any more leave the queue at once, and a row that is waiting
or running already is not computed a second time.
"""

from __future__ import annotations

import asyncio
import contextlib
import heapq
import itertools
import logging
import math
import os
import sys
import threading
import time
from collections import OrderedDict, deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from hashlib import blake2b
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from models.errors import EngineError
from service.errors import DeadlineError, OverloadedError, ShuttingDownError

logger = logging.getLogger("rasid")


class Infer(Protocol):
    """Computes the logits `[B, L]` of `B` rows of one length; `alone` tells that no other batch runs or waits."""

    def __call__(self, rows: Sequence[Sequence[int]], *, alone: bool) -> NDArray[np.float32]:
        """Run one batch. May be called from several threads at once."""


_FIRST_GUESS_TOKENS_PER_SECOND = 5_000.0
_NICE = 4
_SMOOTHING = 0.1  # of the exponential moving averages


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

    missing: int
    deadline: float
    submitted: float
    clock: float
    bulk: bool
    done: Callable[[Outcome | Exception], None]
    logits: NDArray[np.float32] | None = None
    pending: deque[_Row] = field(default_factory=deque)
    started: float = math.inf
    open: bool = True


@dataclass(slots=True, eq=False)
class _Row:
    """One distinct row of token ids and everybody who waits for it; `bulk` as the request that brought it."""

    key: bytes
    ids: Sequence[int]
    bulk: bool
    urgent: bool
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
        self._tickets: list[tuple[float, int, _Ticket]] = []  # a heap; entries whose clock has moved on are passed over
        self._lengths: dict[int, dict[bytes, _Row]] = {}  # what waits, by length, the longest waiting first
        self._rows: dict[bytes, _Row] = {}
        self._cache: OrderedDict[bytes, NDArray[np.float32]] = OrderedDict()
        self._cache_rows = cache_rows
        self._waiting = {False: 0, True: 0}  # tokens, of short requests and of bulk
        self._waiting_rows = 0
        self._waiting_tickets = 0
        self._rate = _FIRST_GUESS_TOKENS_PER_SECOND
        self._batch_seconds = 0.0
        self._count = itertools.count()
        self._running: dict[int, float] = {}  # since when each busy worker has been on its batch
        self._closing = False
        self._wake = threading.Condition()
        self._workers = [
            threading.Thread(target=self._work, args=(n,), name=f"rasid-inference-{n}", daemon=True) for n in range(workers)
        ]
        for worker in self._workers:
            worker.start()

    def admit(self, tokens: int, *, deadline: float = math.inf) -> None:
        """Raise OverloadedError, with the seconds after which to try again, where about `tokens` more would be too many.

        Short requests (of one batch at most) and bulk have half of the queue each, and short ones may use what bulk leaves; a
        bulk request that is larger than its half is taken when no other waits. What could not be done by the deadline (a
        time of `time.monotonic()`) is refused too. Raises ShuttingDownError after `close`.
        """
        with self._wake:
            if self._closing:
                raise ShuttingDownError("the service is shutting down; send the request to another replica")
            bulk = tokens > self._batch_tokens
            own, whole = self._waiting[bulk], sum(self._waiting.values())
            fits = own == 0 or own + tokens <= self._limit // 2 or (not bulk and whole + tokens <= self._limit)
            ahead = (whole if bulk else own) + tokens
            left = deadline - time.monotonic()
            if fits and ahead <= max(left * self._rate, self._batch_tokens):
                return
            seconds = max(1, math.ceil(max(own + tokens - self._limit // 2, ahead - max(left, 0.0) * self._rate) / self._rate))
            raise OverloadedError(f"the queue is full; try again in {seconds} s", retry_after_seconds=seconds)

    async def run(self, rows: Sequence[Sequence[int]], *, deadline: float = math.inf, urgent: bool = False) -> Outcome:
        """Logits of a request's rows. `deadline` is a time of `time.monotonic()`.

        `urgent` rows, those of a readiness check, go first and are computed whatever the cache holds. Where the calling task
        is cancelled, its rows are dropped. Raises DeadlineError, ShuttingDownError, or EngineError where inference fails.
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
            if ticket.open:
                self._abandon(ticket)
            if timer is not None:
                timer.cancel()

    def state(self) -> QueueState:
        """What waits now."""
        with self._wake:
            now = time.monotonic()
            submitted = [ticket.submitted for _, _, ticket in self._tickets if ticket.open and ticket.pending]
            return QueueState(
                waiting_tokens=sum(self._waiting.values()),
                waiting_rows=self._waiting_rows,
                oldest_seconds=max(0.0, now - min(submitted, default=now)),
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
        salt = next(self._count).to_bytes(8, "little") if urgent else b""
        keys = [blake2b(np.asarray(ids, dtype=np.int32).tobytes(), digest_size=16, salt=salt).digest() for ids in rows]
        bulk = sum(map(len, rows)) > self._batch_tokens
        with self._wake:
            if self._closing:
                raise ShuttingDownError("the service is shutting down; send the request to another replica")
            now = time.monotonic()
            ticket = _Ticket(len(rows), deadline, now, -math.inf if urgent else now, bulk, done)
            for place, (key, ids) in enumerate(zip(keys, rows, strict=True)):
                cached = self._cache.get(key)
                if cached is not None:
                    self._cache.move_to_end(key)
                    self._deliver(ticket, place, cached, now)
                    continue
                row = self._rows.get(key)
                if row is None:
                    row = self._rows[key] = _Row(key, ids, bulk, urgent)
                    self._lengths.setdefault(len(ids), {})[key] = row
                    self._waiting[bulk] += 0 if urgent else len(ids)
                    self._waiting_rows += 1
                row.waiters.append((ticket, place))
                if row.queued:
                    ticket.pending.append(row)
            if ticket.pending:
                self._waiting_tickets += 1
                self._push(ticket)
            if not rows:
                ticket.open = False
                done(Outcome(np.empty((0, 0), dtype=np.float32), 0.0, 0.0))
            self._wake.notify(len(rows))
        return ticket

    def _push(self, ticket: _Ticket) -> None:
        heapq.heappush(self._tickets, (ticket.clock, next(self._count), ticket))

    def _expire(self, ticket: _Ticket) -> None:
        if ticket.open:
            self._abandon(ticket)
            waited = time.monotonic() - ticket.submitted
            ticket.done(DeadlineError(f"not answered within {waited:.3g} s in the queue; allow more or send less"))

    def _abandon(self, ticket: _Ticket) -> None:
        """Close a ticket and take out of the queue what only it waited for."""
        with self._wake:
            ticket.open = False
            self._withdraw(ticket)

    def _withdraw(self, ticket: _Ticket) -> None:
        if ticket.pending:
            self._waiting_tickets -= 1
        for row in ticket.pending:
            if row.queued and not any(other.open and other.pending for other, _ in row.waiters if other is not ticket):
                self._unqueue(row)
                del self._rows[row.key]
        ticket.pending.clear()

    def _unqueue(self, row: _Row) -> None:
        row.queued = False
        self._waiting[row.bulk] -= 0 if row.urgent else len(row.ids)
        self._waiting_rows -= 1
        waiting = self._lengths[len(row.ids)]
        del waiting[row.key]
        if not waiting:
            del self._lengths[len(row.ids)]

    def _work(self, worker: int) -> None:
        _step_back()
        while True:
            with self._wake:
                batch = self._take()
                while not batch:
                    if self._closing:
                        return
                    self._wake.wait()
                    batch = self._take()
                alone = not self._waiting_rows and not self._running
                started = self._running[worker] = time.monotonic()
            logits: NDArray[np.float32] | Exception
            try:
                found = self._infer([row.ids for row in batch], alone=alone)
                if len(found) != len(batch):
                    raise EngineError(f"the engine gave {len(found)} rows for {len(batch)}")
                logits = found
            except EngineError as error:
                logits = error
            except Exception as error:  # whatever it is, the callers must hear of it and the worker must live on
                logits = EngineError(f"inference failed: {type(error).__name__}")
            self._finish(worker, batch, logits, started, alone=alone)

    def _take(self) -> list[_Row]:
        """The next row of the request whose clock is furthest behind, and others of its length."""
        latest = time.monotonic() + self._batch_seconds  # what is due before then would come too late
        while self._tickets:
            clock, _, ticket = self._tickets[0]
            if ticket.pending and clock == ticket.clock:
                if ticket.deadline > latest:
                    return self._fill(ticket.pending[0])
                self._withdraw(ticket)  # the caller hears of it at the deadline
            heapq.heappop(self._tickets)
        return []

    def _fill(self, first: _Row) -> list[_Row]:
        """A batch of `first` and the longest waiting rows of its length; the requests that get them are charged."""
        length = len(first.ids)
        others = (row for row in self._lengths[length].values() if row is not first)
        batch = [first, *itertools.islice(others, max(1, self._batch_tokens // max(1, length)) - 1)]
        cost = length / self._rate * self._waiting_tickets
        charged: dict[int, _Ticket] = {}
        for row in batch:
            self._unqueue(row)
            for ticket, _ in row.waiters:
                if ticket.pending:
                    ticket.clock += cost
                    charged[id(ticket)] = ticket
        for ticket in charged.values():
            while ticket.pending and not ticket.pending[0].queued:
                ticket.pending.popleft()
            if ticket.pending:
                self._push(ticket)
            else:
                self._waiting_tickets -= 1
        return batch

    def _finish(
        self, worker: int, batch: list[_Row], logits: NDArray[np.float32] | Exception, started: float, *, alone: bool
    ) -> None:
        tokens = sum(len(row.ids) for row in batch)
        with self._wake:
            now = time.monotonic()
            del self._running[worker]
            if not isinstance(logits, Exception):
                seconds = max(now - started, 1e-6)
                self._batch_seconds += _SMOOTHING * (seconds - self._batch_seconds)
                if not alone and self._waiting_rows:  # all workers are busy: this is what the machine can do
                    self._rate += _SMOOTHING * (len(self._workers) * tokens / seconds - self._rate)
            for index, row in enumerate(batch):
                del self._rows[row.key]
                if not isinstance(logits, Exception) and self._cache_rows and not row.urgent:
                    self._cache[row.key] = logits[index].copy()
                    if len(self._cache) > self._cache_rows:
                        self._cache.popitem(last=False)
                for ticket, place in row.waiters:
                    if not ticket.open:
                        continue
                    if isinstance(logits, Exception):
                        self._abandon(ticket)
                        ticket.done(logits)
                        continue
                    ticket.started = min(ticket.started, started)
                    self._deliver(ticket, place, logits[index], now)
        try:
            self._observe(Batch(len(batch), tokens, now - started))
        except Exception as error:  # counting must not stop the work
            logger.error("a batch was not counted", extra={"error": type(error).__name__})

    def _deliver(self, ticket: _Ticket, place: int, logits: NDArray[np.float32], now: float) -> None:
        if ticket.logits is None:
            ticket.logits = np.empty((ticket.missing, len(logits)), dtype=np.float32)
        ticket.logits[place] = logits
        ticket.missing -= 1
        if not ticket.missing:
            started = max(ticket.submitted, min(ticket.started, now))
            ticket.open = False
            ticket.done(Outcome(ticket.logits, started - ticket.submitted, now - started))


def _step_back() -> None:
    """Let the threads that answer go before this one, where the system can tell threads apart (Linux)."""
    if sys.platform == "linux":
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), os.getpriority(os.PRIO_PROCESS, 0) + _NICE)

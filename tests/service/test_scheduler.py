from __future__ import annotations

import asyncio
import random
import threading
import time
from collections.abc import Iterator, Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from models.errors import EngineError
from service.errors import DeadlineError, OverloadedError, ShuttingDownError
from service.scheduler import Batch, Scheduler


class Engine:
    """Logits that name their row; can be held back, and remembers every batch."""

    def __init__(self) -> None:
        self.batches: list[list[list[int]]] = []
        self.gate = threading.Event()
        self.gate.set()
        self.entered = threading.Semaphore(0)
        self.error: Exception | None = None

    def __call__(self, rows: Sequence[Sequence[int]], *, alone: bool) -> NDArray[np.float32]:
        self.batches.append([list(row) for row in rows])
        self.entered.release()
        assert self.gate.wait(10)
        if self.error is not None:
            raise self.error
        return np.array([[sum(row), len(row)] for row in rows], dtype=np.float32)


@pytest.fixture
def engine() -> Engine:
    return Engine()


@pytest.fixture
def scheduler(engine: Engine) -> Iterator[Scheduler]:
    made = Scheduler(engine, workers=1, max_waiting_tokens=400, max_batch_tokens=40)
    yield made
    engine.gate.set()
    made.close(timeout_seconds=5)


async def held(engine: Engine, scheduler: Scheduler) -> asyncio.Task:
    """A request that occupies the engine until its gate opens."""
    engine.gate.clear()
    task = asyncio.ensure_future(scheduler.run([[9] * 33]))
    await asyncio.to_thread(engine.entered.acquire)
    return task


async def queued(scheduler: Scheduler, *requests: list[list[int]], **options: float) -> list[asyncio.Task]:
    tasks = []
    for rows in requests:
        tasks.append(asyncio.ensure_future(scheduler.run(rows, **options)))
        await asyncio.sleep(0.01)
    return tasks


@settings(max_examples=30, deadline=None)
@given(requests=st.lists(st.lists(st.lists(st.integers(0, 9), min_size=1, max_size=50), max_size=6), min_size=1, max_size=8))
def test_every_row_gets_its_own_logits_in_batches_of_one_length_within_the_budget(requests: list) -> None:
    engine = Engine()
    scheduler = Scheduler(engine, workers=1, max_waiting_tokens=10_000, max_batch_tokens=40)

    async def run() -> list:
        return await asyncio.gather(*(scheduler.run(rows) for rows in requests))

    outcomes = asyncio.run(run())
    scheduler.close(timeout_seconds=5)
    for rows, outcome in zip(requests, outcomes, strict=True):
        assert [tuple(logits) for logits in outcome.logits] == [(sum(row), len(row)) for row in rows]
        assert outcome.queue_seconds >= 0
        assert outcome.inference_seconds >= 0
    for batch in engine.batches:
        assert len({len(row) for row in batch}) == 1
        assert len(batch) == 1 or sum(map(len, batch)) <= 40
    distinct = {tuple(row) for rows in requests for row in rows}
    assert {tuple(row) for batch in engine.batches for row in batch} == distinct
    state = scheduler.state()
    assert (state.waiting_rows, state.waiting_tokens) == (0, 0)


def test_rows_of_different_requests_share_a_batch(engine: Engine, scheduler: Scheduler) -> None:
    async def run() -> None:
        first = await held(engine, scheduler)
        tasks = await queued(scheduler, [[1] * 8], [[2] * 8], [[3] * 9], [[4] * 8])
        engine.gate.set()
        await asyncio.gather(first, *tasks)

    asyncio.run(run())
    assert engine.batches[1:] == [[[1] * 8, [2] * 8, [4] * 8], [[3] * 9]]


def test_a_short_text_overtakes_an_article_that_came_before(engine: Engine, scheduler: Scheduler) -> None:
    async def run() -> None:
        first = await held(engine, scheduler)
        article = [[n] * 39 for n in range(10)]
        long, short = await queued(scheduler, article, [[5] * 4])
        engine.gate.set()
        await asyncio.gather(first, long, short)

    scheduler._rate = 39.0  # a passage a second
    asyncio.run(run())
    assert engine.batches.index([[5] * 4]) == 2  # after the one that ran and the article's first sentence
    assert len(engine.batches) == 12


@pytest.mark.parametrize("articles", [1, 4])
def test_full_batches_do_not_let_articles_hold_up_a_short_text(engine: Engine, articles: int) -> None:
    generator = random.Random(3)
    scheduler = Scheduler(engine, workers=1, max_waiting_tokens=10**6, max_batch_tokens=1_024)
    sentences = [[generator.randrange(10**6)] * generator.randint(15, 60) for _ in range(400)]

    async def run() -> None:
        first = await held(engine, scheduler)
        long = await queued(scheduler, *(sentences[n::articles] for n in range(articles)))
        [short] = await queued(scheduler, [[5] * 14])
        engine.gate.set()
        await asyncio.gather(first, *long, short)

    asyncio.run(run())
    scheduler.close(timeout_seconds=5)
    assert engine.batches.index([[5] * 14]) <= 1 + articles  # each of them may have had one batch


def test_an_article_is_not_starved_by_short_texts(engine: Engine, scheduler: Scheduler) -> None:
    scheduler._rate = 40_000.0

    async def run() -> None:
        first = await held(engine, scheduler)
        [article] = await queued(scheduler, [[n] * 39 for n in range(3)])
        shorts = await queued(scheduler, *([[100 + n] * 38] for n in range(30)))
        engine.gate.set()
        await asyncio.gather(first, article, *shorts)

    asyncio.run(run())
    assert max(engine.batches.index([[n] * 39]) for n in range(3)) < 32


def test_the_same_row_in_flight_is_computed_once_and_answered_twice(engine: Engine, scheduler: Scheduler) -> None:
    async def run() -> None:
        first = await held(engine, scheduler)
        tasks = await queued(scheduler, [[7] * 5, [7] * 5], [[7] * 5], [[9] * 33])
        engine.gate.set()
        outcomes = await asyncio.gather(first, *tasks)
        assert outcomes[1].logits.tolist() == [[35, 5], [35, 5]]
        assert outcomes[3].logits.tolist() == outcomes[0].logits.tolist()

    asyncio.run(run())
    assert engine.batches == [[[9] * 33], [[7] * 5]]


def test_work_whose_caller_left_or_whose_deadline_passed_costs_no_inference(engine: Engine, scheduler: Scheduler) -> None:
    async def run() -> None:
        first = await held(engine, scheduler)
        [left] = await queued(scheduler, [[1] * 6])
        [late] = await queued(scheduler, [[2] * 6], deadline=time.monotonic() + 0.05)
        [kept] = await queued(scheduler, [[3] * 6])
        left.cancel()
        with pytest.raises(DeadlineError):
            await late
        engine.gate.set()
        await asyncio.gather(first, kept)

    asyncio.run(run())
    assert engine.batches[1:] == [[[3] * 6]]
    assert scheduler.state().waiting_tokens == 0


def test_a_row_that_comes_too_late_for_all_who_wait_for_it_leaves_the_queue(engine: Engine, scheduler: Scheduler) -> None:
    async def run() -> None:
        first = await held(engine, scheduler)
        late = await queued(scheduler, [[1] * 6], [[1] * 6], deadline=time.monotonic() + 0.3)
        scheduler._batch_seconds = 10.0  # a batch that is begun now ends after their deadline
        engine.gate.set()
        for task in late:
            with pytest.raises(DeadlineError):
                await task
        await first
        state = scheduler.state()
        assert (state.waiting_rows, state.waiting_tokens) == (0, 0)

    asyncio.run(run())
    assert len(engine.batches) == 1


def test_a_row_that_one_of_two_callers_left_is_still_computed(engine: Engine, scheduler: Scheduler) -> None:
    async def run() -> None:
        first = await held(engine, scheduler)
        left, kept = await queued(scheduler, [[1] * 6], [[1] * 6])
        left.cancel()
        engine.gate.set()
        await asyncio.gather(first, kept)

    asyncio.run(run())
    assert engine.batches[1:] == [[[1] * 6]]


def test_a_full_queue_refuses_and_keeps_half_for_short_requests(engine: Engine, scheduler: Scheduler) -> None:
    async def run() -> None:
        first = await held(engine, scheduler)
        [bulk] = await queued(scheduler, [[n] * 20 for n in range(10)])  # 200 of 400 tokens
        with pytest.raises(OverloadedError) as refused:
            scheduler.admit(100)
        assert refused.value.retry_after_seconds >= 1
        shorts = []
        for n in range(5):
            scheduler.admit(40)
            shorts += await queued(scheduler, [[10 + n] * 40])
        with pytest.raises(OverloadedError):
            scheduler.admit(40)
        engine.gate.set()
        await asyncio.gather(first, bulk, *shorts)
        scheduler.admit(10_000)  # nothing waits: whatever its size, it is taken

    asyncio.run(run())


def test_a_request_of_any_size_does_not_lock_others_out(engine: Engine, scheduler: Scheduler) -> None:
    async def run() -> None:
        first = await held(engine, scheduler)
        [huge] = await queued(scheduler, [[n] * 30 for n in range(100)])  # 3,000 tokens where 400 may wait
        scheduler.admit(40)
        with pytest.raises(OverloadedError):
            scheduler.admit(41)
        huge.cancel()
        await asyncio.sleep(0.01)
        assert scheduler.state().waiting_tokens == 0  # what nobody waits for does not count any more
        scheduler.admit(10_000)
        engine.gate.set()
        await first

    asyncio.run(run())
    assert len(engine.batches) == 1


def test_what_cannot_be_done_in_time_is_refused(engine: Engine, scheduler: Scheduler) -> None:
    async def run() -> None:
        first = await held(engine, scheduler)
        tasks = await queued(scheduler, *([[n] * 20] for n in range(5)))
        scheduler._rate = 10.0  # the hundred tokens that wait take ten seconds
        scheduler.admit(20, deadline=time.monotonic() + 13)
        with pytest.raises(OverloadedError) as refused:
            scheduler.admit(20, deadline=time.monotonic() + 2)
        assert 5 <= refused.value.retry_after_seconds <= 11
        engine.gate.set()
        await asyncio.gather(first, *tasks)

    asyncio.run(run())


def test_a_failing_engine_fails_its_batch_and_the_worker_lives_on(engine: Engine, scheduler: Scheduler) -> None:
    async def run() -> None:
        for error in (EngineError("told"), MemoryError("secret")):
            engine.error = error
            with pytest.raises(EngineError) as caught:
                await scheduler.run([[1] * 3])
            assert "secret" not in str(caught.value)
        engine.error = None
        assert (await scheduler.run([[1] * 3])).logits.tolist() == [[3, 3]]

    asyncio.run(run())
    assert scheduler.state().alive


def test_urgent_rows_go_first_and_are_never_taken_from_the_cache(engine: Engine) -> None:
    scheduler = Scheduler(engine, workers=1, max_waiting_tokens=400, max_batch_tokens=40, cache_rows=2)

    async def run() -> None:
        first = await held(engine, scheduler)
        [waiting] = await queued(scheduler, [[1] * 6])
        urgent = asyncio.ensure_future(scheduler.run([[9] * 33], urgent=True))
        await asyncio.sleep(0.01)
        assert scheduler.state().oldest_seconds < 5
        engine.gate.set()
        await asyncio.gather(first, waiting, urgent)
        assert engine.batches == [[[9] * 33], [[9] * 33], [[1] * 6]]
        await scheduler.run([[9] * 33, [1] * 6])  # both remembered
        assert len(engine.batches) == 3
        await scheduler.run([[2] * 6])
        await scheduler.run([[9] * 33])  # the oldest was forgotten
        assert engine.batches[3:] == [[[2] * 6], [[9] * 33]]

    asyncio.run(run())
    scheduler.close(timeout_seconds=5)


def test_closing_finishes_what_waits_and_takes_nothing_new(engine: Engine, scheduler: Scheduler) -> None:
    async def run() -> None:
        first = await held(engine, scheduler)
        [waiting] = await queued(scheduler, [[1] * 6])
        closing = asyncio.ensure_future(asyncio.to_thread(scheduler.close, timeout_seconds=15))
        for _ in range(2_000):  # until the other thread has begun to close
            if scheduler._closing:
                break
            await asyncio.sleep(0.005)
        with pytest.raises(ShuttingDownError):
            scheduler.admit(1)
        with pytest.raises(ShuttingDownError):
            await scheduler.run([[2] * 6])
        engine.gate.set()
        await asyncio.gather(first, waiting, closing)

    asyncio.run(run())
    assert not scheduler.state().alive


def test_batches_are_observed(engine: Engine) -> None:
    seen: list[Batch] = []
    scheduler = Scheduler(engine, workers=1, max_waiting_tokens=400, max_batch_tokens=40, observe=seen.append)
    asyncio.run(scheduler.run([[1] * 5, [2] * 5, [3] * 7]))
    scheduler.close(timeout_seconds=5)
    assert [(batch.rows, batch.tokens) for batch in seen] == [(2, 10), (1, 7)]


def test_no_rows_are_answered_at_once(scheduler: Scheduler) -> None:
    assert asyncio.run(scheduler.run([])).logits.size == 0

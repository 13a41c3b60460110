from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from models.errors import InputError
from service.jobs import store as stores
from service.jobs.store import IdempotencyError, Job, JobStore, LeaseLostError, State


@pytest.fixture
def store(tmp_path: Path) -> Iterator[JobStore]:
    made = JobStore(f"sqlite:///{tmp_path / 'jobs.db'}")
    yield made
    made.close()


def submit(store: JobStore, job_id: str, **values: Any) -> Job:
    given = {"tenant": "a", "digest": "d", "options": {"output": "csv"}, "size": 7, **values}
    return store.submit(job_id=job_id, **given)[0]


def test_a_job_goes_from_hand_to_hand(store: JobStore) -> None:
    made = submit(store, "one")
    assert (made.state, made.rows, made.options) == (State.QUEUED, 0, {"output": "csv"})
    taken = store.claim()
    assert taken is not None
    assert (taken.id, taken.state, taken.tries) == ("one", State.RUNNING, 1)
    assert store.claim() is None
    store.hold(taken, rows=5, rejected=1)
    assert store.get("one").rows == 5
    store.finish(taken, State.COMPLETED, summary={"rows": 9}, model="rasid 1")
    ended = store.get("one")
    assert (ended.state, ended.summary, ended.owner) == (State.COMPLETED, {"rows": 9}, None)
    assert ended.created <= ended.started <= ended.ended
    with pytest.raises(LeaseLostError):
        store.hold(taken)


def test_the_oldest_job_is_taken_first_and_each_by_one_worker_alone(store: JobStore) -> None:
    for number in range(40):
        submit(store, f"{number:02d}")
    taken: list[str] = []

    def work() -> None:
        while (job := store.claim()) is not None:
            taken.append(job.id)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(taken) == [f"{number:02d}" for number in range(40)]
    assert taken[0] == "00"


def test_a_lease_that_ran_out_is_taken_over_and_the_former_owner_is_told(
    store: JobStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    submit(store, "one")
    monkeypatch.setattr(stores, "LEASE_SECONDS", -1.0)
    first = store.claim()
    monkeypatch.setattr(stores, "LEASE_SECONDS", 30.0)
    second = store.claim()
    assert first is not None
    assert second is not None
    assert (second.id, second.tries) == ("one", 2)
    for write in (store.hold, store.release):
        with pytest.raises(LeaseLostError):
            write(first)
    with pytest.raises(LeaseLostError):
        store.finish(first, State.COMPLETED)
    store.release(second)
    third = store.claim()
    assert third is not None
    assert third.tries == 2  # giving back is not a try


def test_a_cancelled_job_stops_whoever_works_on_it(store: JobStore) -> None:
    submit(store, "one")
    job = store.claim()
    assert job is not None
    assert store.cancel("one", tenant="b") is None
    store.hold(job)
    assert store.cancel("one", tenant="a").state is State.CANCELLED
    with pytest.raises(LeaseLostError):
        store.hold(job)
    assert store.claim() is None
    assert store.cancel("one").state is State.CANCELLED
    assert store.cancel("none") is None


def test_an_idempotency_key_brings_the_same_job_back(store: JobStore) -> None:
    first = submit(store, "one", key="k")
    again, is_new = store.submit(job_id="two", tenant="a", digest="d", options={}, size=7, key="k")
    assert (again.id, is_new) == (first.id, False)
    with pytest.raises(IdempotencyError):
        store.submit(job_id="three", tenant="a", digest="other", options={}, size=7, key="k")
    assert submit(store, "four", tenant="b", key="k").id == "four"
    assert submit(store, "five").id != submit(store, "six").id


def test_jobs_are_listed_page_by_page_and_by_tenant(store: JobStore) -> None:
    for number in range(5):
        submit(store, f"{number}", tenant="ab"[number % 2])
    first = store.page(None, limit=2)
    assert [job.id for job in first] == ["4", "3"]
    assert [job.id for job in store.page(None, limit=9, after="3")] == ["2", "1", "0"]
    assert [job.id for job in store.page("b", limit=9)] == ["3", "1"]
    assert store.counts() == {"queued": 5}


def test_what_ended_long_ago_expires(store: JobStore) -> None:
    submit(store, "old")
    job = store.claim()
    assert job is not None
    store.finish(job, State.FAILED, error_code="x", error_detail="y")
    submit(store, "new")
    assert store.expire(60) == []
    assert [job.id for job in store.expire(-1)] == ["old"]
    assert store.get("old").state is State.EXPIRED
    assert store.expire(-1) == []


def test_a_database_that_cannot_be_opened_is_told(tmp_path: Path) -> None:
    for url in (f"sqlite:///{tmp_path}/none/jobs.db", "nonsense", "oracle://x"):
        with pytest.raises(InputError, match="sqlite:///PATH"):
            JobStore(url)

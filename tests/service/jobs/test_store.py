from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from models.errors import InputError
from service.jobs import store as stores
from service.jobs.files import JobFiles
from service.jobs.host import JobHost
from service.jobs.job import Job, State
from service.jobs.store import IdempotencyError, JobStore, LeaseLostError


@pytest.fixture(params=["sqlite", "postgres"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[JobStore]:
    on_sqlite = request.param == "sqlite"
    made = JobStore(f"sqlite:///{tmp_path / 'jobs.db'}" if on_sqlite else request.getfixturevalue("postgres"))
    yield made
    with made._begin() as connection:
        connection.execute(stores._JOBS.delete())
    made.close()


def submit(store: JobStore, job_id: str, **values: Any) -> Job:
    given = {"tenant": "a", "digest": "d", "options": {"output": "csv"}, "size": 7, **values}
    return store.submit(job_id=job_id, **given)[0]


def queue(store: JobStore, job_id: str) -> None:
    """A job whose file was looked through."""
    submit(store, job_id)
    job = store.claim("w", validated=False)
    assert job is not None
    store.release(job, state=State.QUEUED, total=9)


def test_a_job_goes_from_hand_to_hand(store: JobStore) -> None:
    made = submit(store, "one")
    assert (made.state, made.rows, made.total, made.options) == (State.VALIDATING, 0, None, {"output": "csv"})
    assert store.claim("w") is None
    assert store.is_waiting()
    looked_at = store.claim("w", validated=False)
    assert looked_at is not None
    assert not store.is_waiting()
    store.release(looked_at, state=State.QUEUED, total=9)
    taken = store.claim("w")
    assert taken is not None
    assert (taken.id, taken.state, taken.tries, taken.total) == ("one", State.RUNNING, 1, 9)
    assert store.claim("w") is None
    assert store.unfinished("a") == 1
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
        queue(store, f"{number:02d}")
    names = [f"{number:02d}" for number in range(40)]
    first = store.claim("w")
    assert first is not None
    assert first.id == "00"
    taken: list[list[str]] = [[] for _ in range(4)]
    together = threading.Barrier(4)

    def work(own: list[str]) -> None:
        together.wait(10)
        while (job := store.claim("w")) is not None:
            own.append(job.id)

    threads = [threading.Thread(target=work, args=(own,)) for own in taken]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(name for own in taken for name in own) == names[1:]
    assert all(own == sorted(own) for own in taken)  # whoever comes later gets a later one


def test_a_lease_that_ran_out_is_taken_over_and_the_former_owner_is_told(
    store: JobStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    queue(store, "one")
    monkeypatch.setattr(stores, "LEASE_SECONDS", -1.0)
    first = store.claim("w")
    monkeypatch.setattr(stores, "LEASE_SECONDS", 30.0)
    second = store.claim("w")
    assert first is not None
    assert second is not None
    assert (second.id, second.tries) == ("one", 2)
    for write in (store.hold, store.release):
        with pytest.raises(LeaseLostError):
            write(first)
    with pytest.raises(LeaseLostError):
        store.finish(first, State.COMPLETED)
    store.release(second)
    third = store.claim("w")
    assert third is not None
    assert third.tries == 2  # giving back is not a try


def test_a_cancelled_job_stops_whoever_works_on_it(store: JobStore) -> None:
    queue(store, "one")
    job = store.claim("w")
    assert job is not None
    store.hold(job)
    store.cancel("one")
    assert store.get("one").state is State.CANCELLED
    with pytest.raises(LeaseLostError):
        store.hold(job)
    assert store.claim("w") is None
    before = store.get("one")
    store.cancel("one")
    store.cancel("none")
    assert store.get("one") == before


def test_what_a_dead_worker_held_is_free_at_once(store: JobStore) -> None:
    for name in ("one", "two"):
        queue(store, name)
    dead = store.claim("dead")
    alive = store.claim("alive")
    assert dead is not None
    assert alive is not None
    store.free("dead", forgive=False)
    again = store.claim("alive")
    assert again is not None
    assert (again.id, again.tries) == ("one", 2)
    assert store.claim("alive") is None
    store.hold(alive)
    store.free()
    peaceful = store.claim("w")
    assert peaceful is not None
    assert (peaceful.id, peaceful.tries) == ("one", 2)


def test_a_clock_that_was_set_back_holds_no_job_up(store: JobStore, monkeypatch: pytest.MonkeyPatch) -> None:
    queue(store, "one")
    monkeypatch.setattr(stores, "LEASE_SECONDS", 3_600.0)
    assert store.claim("w") is not None
    monkeypatch.setattr(stores, "LEASE_SECONDS", 30.0)
    assert store.claim("w") is not None


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
    assert store.counts() == {"validating": 5}


def test_what_ended_long_ago_expires(store: JobStore) -> None:
    queue(store, "old")
    job = store.claim("w")
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


def test_a_file_that_ends_the_whole_service_again_and_again_runs_out_of_tries(tmp_path: Path) -> None:
    tries = []
    for _ in range(3):
        files, store = JobFiles(tmp_path / "files"), JobStore(f"sqlite:///{tmp_path / 'jobs.db'}")
        JobHost._clean_up(store, files)  # as a service does when it starts
        if not tries:
            submit(store, "one")
        job = store.claim("w", validated=False)
        assert job is not None
        tries.append(job.tries)
        store.close()
    assert tries == [1, 2, 3]

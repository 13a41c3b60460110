from __future__ import annotations

import csv
import gzip
import io
import json
import math
import os
import signal
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient
from httpx2 import Response

from models.classifier import Classifier, TextItem
from service.app import create_app
from service.auth import Scope, add_key
from service.jobs import store as stores
from service.jobs.files import JobFiles
from service.jobs.job import UNFINISHED, Job, JobOptions
from service.jobs.orders import WorkerSettings
from service.jobs.store import JobStore
from service.jobs.worker import Worker
from service.settings import Settings
from tests.conftest import LOOPBACK

TEXTS = ["They fled the village.", "نزحت العائلات من القرية بعد القصف.", "Rain.", "The ministry said that it had no comment."]
ROWS = [{"id": f"r{number}", "text": f"{TEXTS[number % 4]} ({number})"} for number in range(40)]
LINES = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in ROWS).encode()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("jobs") / "of" / "rasid"


@pytest.fixture(scope="module")
def client(released: Classifier, folder: Path) -> Iterator[TestClient]:
    settings = Settings(jobs=folder, threads=1, max_job_bytes=4 * 1024 * 1024, max_job_unpacked_bytes=8 * 1024 * 1024)
    with TestClient(create_app(released, settings), base_url=LOOPBACK) as client:
        yield client


def send(
    client: TestClient, content: bytes, name: str = "rows.jsonl", headers: dict[str, str] | None = None, **form: str
) -> Response:
    return client.post("/v1/jobs", files={"file": (name, content)}, data=form, headers=headers)


def wait(client: TestClient, job_id: str) -> dict[str, Any]:
    for _ in range(1_200):
        job = client.get(f"/v1/jobs/{job_id}").json()
        if job["state"] not in UNFINISHED:
            return job
        time.sleep(0.05)
    pytest.fail(f"the job stands at {job['state']} after a minute")


def test_a_file_is_scored_as_its_texts_are_and_fetched_whole_or_in_part(
    client: TestClient, folder: Path, released: Classifier
) -> None:
    response = send(client, LINES + b"{broken\n", evidence="true", granularity="document")
    assert response.status_code == 202
    accepted = response.json()
    assert response.headers["location"] == f"/v1/jobs/{accepted['id']}"
    assert accepted["state"] == "validating"
    assert accepted["options"]["format"] == "jsonl"
    early = client.get(f"/v1/jobs/{accepted['id']}/results")
    assert (early.status_code, early.json()["code"]) == (409, "job_not_completed")

    job = wait(client, accepted["id"])
    manifest = released.bundle.manifest
    assert (job["state"], job["rows"], job["total_rows"], job["rejected"]) == ("completed", 41, 41, 1)
    assert job["model"] == f"{manifest.name} {manifest.version}"
    assert job["summary"]["languages"] == {"ar": 10, "en": 30}
    results = client.get(f"/v1/jobs/{job['id']}/results")
    found = [json.loads(line) for line in results.text.splitlines()]
    expected = released.classify([TextItem(row["id"], row["text"]) for row in ROWS], granularity="document", evidence=True)
    assert [{**answer.model_dump(), "model": job["model"]} for answer in expected] == found
    part = client.get(f"/v1/jobs/{job['id']}/results", headers={"Range": "bytes=10-29"})
    assert (part.status_code, part.content) == (206, results.content[10:30])
    for asked in ("bytes=99999999-", "bytes=x", "lines=1-2"):
        refused = client.get(f"/v1/jobs/{job['id']}/results", headers={"Range": asked})
        assert (refused.status_code, refused.json()["code"]) == (416, "range_not_satisfiable")
        assert refused.headers["content-type"] == "application/problem+json"
        assert refused.headers["content-range"] == f"bytes */{len(results.content)}"
    [reject] = [json.loads(line) for line in client.get(f"/v1/jobs/{job['id']}/rejects").text.splitlines()]
    assert (reject["row"], reject["code"]) == (41, "invalid_json")
    assert sorted(path.name for path in (folder / job["id"]).iterdir()) == ["rejects.jsonl", "results.jsonl"]
    assert (folder / job["id"]).stat().st_mode & 0o077 == 0


def test_options_choose_columns_and_formats(client: TestClient) -> None:
    table = "ref,body,note\n1,They fled.,=1+1\n2,نزحوا,b\n".encode()
    response = send(client, gzip.compress(table), "t.csv.gz", output="csv", keep_columns="true", id_column="ref")
    job = wait(client, response.json()["id"])
    assert job["state"] == "completed", job
    rows = list(csv.DictReader(io.StringIO(client.get(f"/v1/jobs/{job['id']}/results").content.decode("utf-8-sig"))))
    assert [(row["id"], row["note"]) for row in rows] == [("1", "'=1+1"), ("2", "b")]


def test_a_column_that_is_not_there_is_told_with_the_option_that_names_it(client: TestClient) -> None:
    for option in ("text_column", "id_column"):
        job = wait(client, send(client, b"ref,body\n1,They fled.\n", "t.csv", **{option: "none"}).json()["id"])
        assert (job["state"], job["error"]["code"]) == ("failed", "missing_column")
        assert job["error"]["detail"] == f"expected a column named none, there is none; name it with {option}"


def test_the_progress_comes_as_events(client: TestClient) -> None:
    job_id = send(client, LINES).json()["id"]
    with client.stream("GET", f"/v1/jobs/{job_id}/events") as response:
        assert response.headers["content-type"].startswith("text/event-stream")
        text = response.read().decode()
    names = [line.removeprefix("event: ") for line in text.splitlines() if line.startswith("event: ")]
    data = [json.loads(line.removeprefix("data: ")) for line in text.splitlines() if line.startswith("data: ")]
    assert names[-1] == "end"
    assert set(names[:-1]) <= {"progress"}
    assert (data[-1]["state"], data[-1]["rows"]) == ("completed", 40)


@pytest.mark.parametrize(
    ("content", "name", "form", "status", "code"),
    [
        (b"", "a.jsonl", {}, 422, "unknown_file_type"),
        (b"\x7fELF" + bytes(200), "a.csv", {}, 422, "unknown_file_type"),
        (b"PK\x03\x04" + bytes(90), "a.zip", {}, 422, "unknown_file_type"),
        (LINES, "a.jsonl", {"output": "docx"}, 422, "invalid_request"),
        (LINES, "a.jsonl", {"unknown": "1"}, 422, "invalid_request"),
        (LINES, "a.jsonl", {"text_column": "a\x00b"}, 422, "invalid_request"),
        (LINES, "a.jsonl", {"granularity": ""}, 422, "invalid_request"),
        (LINES, "a.jsonl", {"evidence": "1"}, 422, "invalid_request"),
        (b"PK\x03\x04" + bytes(90) + b"PK\x05\x06" + b"\xff" * 18, "a.xlsx", {}, 422, "unknown_file_type"),
        (LINES, "a.jsonl", {"text_column": "x" * 5_000}, 422, "invalid_form"),
        (b"x" * 5_000_000, "a.jsonl", {}, 413, "too_large"),
    ],
)
def test_what_cannot_be_a_job_is_told_at_once_and_not_kept(
    client: TestClient, folder: Path, content: bytes, name: str, form: dict[str, str], status: int, code: str
) -> None:
    before = set(folder.rglob("*"))
    response = send(client, content, name, **form)
    assert (response.status_code, response.json()["code"]) == (status, code)
    assert {path for path in folder.rglob("*") if path.is_dir()} <= before
    assert not list((folder / "uploads").iterdir())


def test_bodies_that_are_no_form_are_told_so(client: TestClient) -> None:
    form = {"Content-Type": "multipart/form-data; boundary=b"}
    part = b'--b\r\nContent-Disposition: form-data; name="file"; filename="a"\r\n\r\n{}\r\n'
    for content, headers in (
        (b"{}", {"Content-Type": "application/json"}),
        (b"", {"Content-Type": "multipart/form-data"}),
        (b"nonsense", form),
        (b"--b--\r\n", form),
        (part, form),
        (part + part + b"--b--\r\n", form),
        (b'--b\r\nContent-Disposition: form-data; name="file"\r\n\r\n{}\r\n--b--\r\n', form),
    ):
        response = client.post("/v1/jobs", content=content, headers=headers)
        assert (response.status_code, response.json()["code"]) == (422, "invalid_form"), content


def test_a_file_that_turns_out_bad_fails_its_job_with_the_reason_and_without_its_words(
    client: TestClient, folder: Path
) -> None:
    bomb = gzip.compress(b'{"text": "' + b"a" * 20_000_000 + b'"}\n')
    for content, name, code in (
        (b"Qamishli,seventeen\n1,2\n", "a.csv", "missing_column"),
        (LINES, "a.txt", None),
        (LINES, "a.csv", None),
        (bomb, "a.jsonl.gz", "unpacks_to_too_much"),
        (LINES, "a.parquet", None),
        (b"PAR1" + b"x" * 90, "a.parquet", "invalid_input"),
        (b"\x1f\x8b" + b"x" * 50, "a.jsonl", "unknown_file_type"),
    ):
        response = send(client, content, name)
        if response.status_code == 202:
            job = wait(client, response.json()["id"])
            error = job["error"] or {}
            assert (job["state"], error.get("code")) == ("failed" if code else "completed", code)
            assert code or (job["rows"], job["rejected"]) == (len(ROWS), 0)
            assert not (folder / job["id"]).exists() or code is None
        else:
            error = response.json()
            assert error["code"] == code
        assert "Qamishli" not in json.dumps(error)
        assert str(folder) not in json.dumps(error)


def test_an_idempotency_key_scores_a_file_once(client: TestClient, folder: Path) -> None:
    first = send(client, LINES, headers={"Idempotency-Key": "monday"})
    again = send(client, LINES, headers={"Idempotency-Key": "monday"})
    assert (first.status_code, again.status_code) == (202, 200)
    assert again.json()["id"] == first.json()["id"]
    other = send(client, LINES, headers={"Idempotency-Key": "monday"}, evidence="true")
    assert (other.status_code, other.json()["code"]) == (422, "idempotency_key_reused")
    assert not list((folder / "uploads").iterdir())


def test_a_job_can_be_cancelled_and_deleted(client: TestClient, folder: Path) -> None:
    job_id = send(client, LINES * 400).json()["id"]
    cancelled = client.post(f"/v1/jobs/{job_id}/cancel").json()
    assert cancelled["state"] == "cancelled"
    assert not (folder / job_id).exists()
    assert client.post(f"/v1/jobs/{job_id}/cancel").json() == cancelled
    assert client.get(f"/v1/jobs/{job_id}/results").json()["code"] == "job_not_completed"

    done = wait(client, send(client, LINES).json()["id"])
    assert client.delete(f"/v1/jobs/{done['id']}").status_code == 204
    assert client.get(f"/v1/jobs/{done['id']}").json()["state"] == "expired"
    gone = client.get(f"/v1/jobs/{done['id']}/results")
    assert (gone.status_code, gone.json()["code"]) == (410, "job_expired")
    assert not (folder / done["id"]).exists()
    assert client.get(f"/v1/jobs/{'0' * 32}").json()["code"] == "job_not_found"


def test_a_worker_that_is_killed_again_and_again_loses_no_row_and_doubles_none(client: TestClient, folder: Path) -> None:
    rows = [{"id": str(number), "text": f"{TEXTS[number % 4]} {number}"} for number in range(2_500)]
    content = "".join(json.dumps(row) + "\n" for row in rows).encode()
    job_id = send(client, content).json()["id"]
    jobs = client.app.state.desk.jobs
    killed = 0
    while killed < 2:
        worker, job = jobs._worker, client.get(f"/v1/jobs/{job_id}").json()
        assert job["state"] in UNFINISHED
        if worker is not None and job["rows"] >= 1_024 * killed:
            os.kill(worker._process.pid, signal.SIGKILL)
            worker._process.wait()
            jobs._pause_until = 0.0
            killed += 1
        time.sleep(0.02)
    first = folder / job_id / "partial" / "part-000001.jsonl"
    written, progress = {first.stat().st_mtime_ns}, {job["rows"]}
    until = time.monotonic() + 60
    while job["state"] in UNFINISHED and time.monotonic() < until:
        job = client.get(f"/v1/jobs/{job_id}").json()
        progress.add(job["rows"])
        with suppress(FileNotFoundError):  # the job is done
            written.add(first.stat().st_mtime_ns)
        time.sleep(0.02)
    assert (job["state"], job["rows"]) == ("completed", 2_500), job
    assert min(progress) >= 1_024  # what was done was not done again
    assert len(written) == 1
    found = [json.loads(line)["id"] for line in client.get(f"/v1/jobs/{job_id}/results").text.splitlines()]
    assert found == [row["id"] for row in rows]


def test_jobs_are_listed_to_their_owner_alone(released: Classifier, tmp_path: Path) -> None:
    keys = {name: add_key(tmp_path / "keys.json", name, scopes=[Scope.JOBS]) for name in ("a", "b")}
    keys["c"] = add_key(tmp_path / "keys.json", "c", scopes=[Scope.CLASSIFY])
    settings = Settings(jobs=tmp_path / "jobs", keys=tmp_path / "keys.json", max_jobs=3)
    with TestClient(create_app(released, settings), base_url=LOOPBACK) as client:
        client.app.state.desk.jobs._pause_until = time.monotonic() + 600  # no worker is needed here
        head = {name: {"X-Api-Key": key} for name, key in keys.items()}
        sent = [send(client, LINES, headers=head["a"]).json()["id"] for _ in range(3)]
        full = send(client, LINES, headers=head["a"])
        assert (full.status_code, full.json()["code"]) == (429, "quota_exceeded")
        assert send(client, LINES, headers=head["b"]).status_code == 202
        assert send(client, LINES, headers=head["c"]).status_code == 403
        first = client.get("/v1/jobs?limit=2", headers=head["a"]).json()
        second = client.get(f"/v1/jobs?limit=2&after={first['next']}", headers=head["a"]).json()
        assert [job["id"] for job in (*first["jobs"], *second["jobs"])] == sent[::-1]
        assert second["next"] is None
        for method, path in (("GET", ""), ("GET", "/results"), ("GET", "/events"), ("POST", "/cancel"), ("DELETE", "")):
            response = client.request(method, f"/v1/jobs/{sent[0]}{path}", headers=head["b"])
            assert response.status_code == 404, (method, path)
        jobs = client.app.state.desk.jobs
        for _ in range(200):
            if jobs.counts() == {"validating": 4}:
                break
            jobs._wake.set()
            time.sleep(0.02)
        assert 'rasid_jobs{state="validating"} 4.0' in client.app.state.desk.metrics.page().decode()


def test_what_is_old_is_deleted(released: Classifier, tmp_path: Path) -> None:
    settings = Settings(jobs=tmp_path / "jobs", job_retention_hours=1e-9)
    with TestClient(create_app(released, settings), base_url=LOOPBACK) as client:
        jobs = client.app.state.desk.jobs
        jobs._pause_until = time.monotonic() + 600
        job_id = send(client, LINES).json()["id"]
        job = jobs.store.claim("w", validated=False)
        assert job is not None
        jobs.store.finish(job, "completed")
        jobs._swept = -math.inf
        jobs._sweep(jobs.store, jobs.files)
        assert client.get(f"/v1/jobs/{job_id}").json()["state"] == "expired"
        assert not (tmp_path / "jobs" / job_id).exists()


def test_what_is_not_a_job_s_stays_where_it_is(released: Classifier, tmp_path: Path) -> None:
    folder = tmp_path / "shared"
    (folder / "photos").mkdir(parents=True)
    (folder / "photos" / "a.jpg").write_bytes(b"0")
    orphan, upload = folder / ("a" * 32), folder / "uploads" / "b"
    for path in (orphan / "input", upload):
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(b"0")
    for path in (folder / "photos", orphan, upload):
        os.utime(path, (0, 0))
    with TestClient(create_app(released, Settings(jobs=folder)), base_url=LOOPBACK) as client:
        client.app.state.desk.jobs._pause_until = time.monotonic() + 600
        assert client.get("/v1/jobs").json() == {"jobs": [], "next": None}
        client.app.state.desk.jobs._swept = -math.inf
        client.app.state.desk.jobs._sweep(client.app.state.desk.jobs.store, client.app.state.desk.jobs.files)
    assert (folder / "photos" / "a.jpg").exists()
    assert not orphan.exists()
    assert not upload.exists()


def test_what_a_submission_left_that_broke_off_is_deleted_where_services_share_a_database(
    released: Classifier, tmp_path: Path
) -> None:
    folder, database = tmp_path / "jobs", f"sqlite:///{tmp_path / 'shared.db'}"
    with TestClient(create_app(released, Settings(jobs=folder, jobs_database=database)), base_url=LOOPBACK) as client:
        jobs = client.app.state.desk.jobs
        jobs._pause_until = time.monotonic() + 600
        known = folder / send(client, LINES).json()["id"]
        old, new = folder / ("a" * 32), folder / ("b" * 32)
        for path in (old, new):
            path.mkdir()
            (path / "input").write_bytes(LINES)
        for path in (old, known):
            os.utime(path, (0, 0))
        jobs._swept = -math.inf
        jobs._sweep(jobs.store, jobs.files)
        assert not old.exists()
        assert (new / "input").exists()  # its submission may go on
        assert (known / "input").exists()


def test_a_folder_is_cleaned_up_only_where_no_other_service_lives_on_it(tmp_path: Path) -> None:
    cleaned: list[str] = []
    services = {name: JobFiles(tmp_path) for name in ("first", "second", "third", "fourth")}
    for name in ("first", "second"):
        services[name].settle(lambda name=name: cleaned.append(name))
    services["first"].close()  # the second is still at work
    services["third"].settle(lambda: cleaned.append("third"))
    assert cleaned == ["first"]
    services["second"].close()
    services["third"].close()
    services["fourth"].settle(lambda: cleaned.append("fourth"))
    assert cleaned == ["first", "fourth"]
    services["fourth"].close()


def test_a_fault_of_the_machine_is_not_held_against_the_file(
    tmp_path: Path, released: Classifier, monkeypatch: pytest.MonkeyPatch
) -> None:
    store, files = JobStore(f"sqlite:///{tmp_path / 'jobs.db'}"), JobFiles(tmp_path / "jobs")
    settings = WorkerSettings("w", "", "", str(released.bundle.path), "onnxruntime", 1, 1_000, 1_000_000, "info")
    worker = Worker(settings, store, files)
    store.submit(job_id="a" * 32, tenant="t", digest="d", options=JobOptions(format="jsonl").model_dump(), size=1)

    def attempt() -> Job:
        job = store.claim("w", validated=False)
        assert job is not None
        worker._attempt(job, worker._validate)
        now = store.get("a" * 32)
        assert now is not None
        with store._begin() as connection:
            connection.execute(stores._JOBS.update().values(lease=0.0))
        return now

    assert (attempt().state, attempt().tries) == ("validating", 0)  # its file is not there: another replica may have it
    (tmp_path / "jobs" / ("a" * 32)).mkdir()
    files.input("a" * 32).write_bytes(LINES)
    with monkeypatch.context() as patch:
        patch.setattr("service.jobs.worker.check_size", lambda _source: (_ for _ in ()).throw(OSError(28, "No space left")))
        assert (attempt().state, attempt().tries) == ("validating", 0)
    with monkeypatch.context() as patch:
        patch.setattr("service.jobs.worker.check_size", lambda _source: 1 / 0)
        assert [attempt().tries for _ in range(7)] == [1, 2, 3, 4, 5, 6, 7]
    assert attempt().state == "queued"
    store.close()


def test_a_folder_that_cannot_be_made_is_told(released: Classifier, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with TestClient(create_app(released, Settings(jobs=tmp_path / "file" / "jobs")), base_url=LOOPBACK) as client:
        response = send(client, LINES)
        assert response.status_code == 503
        assert response.json()["code"] == "jobs_unavailable"
        assert int(response.headers["retry-after"]) >= 1
        assert str(tmp_path) not in response.text

"""Two services on one Postgres."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx2
import sqlalchemy as sa

from service.jobs.job import UNFINISHED


@contextmanager
def service(folder: Path, database: str) -> Iterator[httpx2.Client]:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    given = {"RASID_PORT": str(port), "RASID_JOBS": str(folder), "RASID_JOBS_DATABASE": database, "RASID_THREADS": "1"}
    process = subprocess.Popen([sys.executable, "-m", "service.cli", "serve"], env={**os.environ, **given})
    try:
        with httpx2.Client(base_url=f"http://127.0.0.1:{port}", timeout=30) as client:
            for _ in range(300):
                try:
                    client.get("/livez")
                    break
                except httpx2.TransportError:
                    time.sleep(0.1)
            yield client
    finally:
        process.terminate()
        process.wait(60)


def test_two_services_share_their_jobs(postgres: str, tmp_path: Path) -> None:
    folder = tmp_path / "jobs"
    engine = sa.create_engine(postgres)

    def scored_by() -> set[str]:
        with engine.begin() as connection:
            query = "SELECT DISTINCT worker FROM rasid_jobs WHERE state IN ('running', 'completed')"
            return set(connection.execute(sa.text(query)).scalars())

    with service(folder, postgres) as one, service(folder, postgres) as two:
        sent: dict[str, list[str]] = {}
        number, until = 0, time.monotonic() + 60
        while number < 6 or (len(scored_by()) < 2 and time.monotonic() < until):  # one may be slow to load its model
            ids = [f"{number}-{row}" for row in range(400)]
            lines = "".join(json.dumps({"id": i, "text": f"They fled the village {i}."}) + "\n" for i in ids).encode()
            client = (one, two)[number % 2]
            response = client.post("/v1/jobs", files={"file": ("rows.jsonl", lines)})
            assert response.status_code == 202, response.text
            sent[response.json()["id"]] = ids
            number += 1
            time.sleep(0.0 if number < 6 else 1.0)
        for job_id, ids in sent.items():
            for _ in range(1_200):
                if (job := two.get(f"/v1/jobs/{job_id}").json())["state"] not in UNFINISHED:
                    break
                time.sleep(0.1)
            assert job["state"] == "completed", job
            for client in (one, two):
                lines = client.get(f"/v1/jobs/{job_id}/results").text.splitlines()
                assert [json.loads(line)["id"] for line in lines] == ids
    with engine.begin() as connection:
        found = connection.execute(sa.text("SELECT worker, tries FROM rasid_jobs")).all()
    engine.dispose()
    assert len({row.worker for row in found}) == 2  # both took some
    assert {row.tries for row in found} == {1}

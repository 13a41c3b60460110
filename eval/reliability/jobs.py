"""Files scored in the background: killed again and again, and beside requests that want their answer at once."""

from __future__ import annotations

import json
import os
import random
import re
import signal
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from eval.contenders.process import ContenderError
from eval.reliability.finding import Finding
from eval.servers.running import RunningServer, Server

_KILLS = 10
_ENDED = ("completed", "failed", "cancelled", "expired")
_BOUNDARY = "rasid-eval-boundary"


def command_killed(
    bundle: Path, texts: Sequence[str], *, rows: int, threads: int, progress: Callable[[str], object] = lambda _told: None
) -> Finding:
    """`rasid score` is killed with SIGKILL ten times and gone on with; its output must be that of a run without a kill."""
    generator = random.Random(1)
    with tempfile.TemporaryDirectory() as folder:
        source, whole, output = (Path(folder) / name for name in ("in.jsonl", "whole.jsonl", "out.jsonl"))
        source.write_bytes(make_rows(texts, rows))
        environment = {**os.environ, "RASID_THREADS": str(threads)}
        command = [sys.executable, "-m", "service.cli", "score", str(source), "--bundle", str(bundle), "--quiet"]
        progress("without a kill")
        began = time.perf_counter()
        subprocess.run([*command, str(whole)], env=environment, check=True)
        seconds = time.perf_counter() - began
        moments = sorted(generator.uniform(0.05, 0.95) * seconds for _ in range(_KILLS))
        killed, spent = 0, 0.0
        for moment in [*moments, None]:
            progress(f"killed {killed} times")
            process = subprocess.Popen([*command, str(output), *(["--resume"] if killed else [])], env=environment)
            try:
                process.wait(None if moment is None else max(2.0, moment - spent))
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
                killed += 1
                spent = moment or 0.0
            else:
                break
        same = output.exists() and output.read_bytes() == whole.read_bytes()
    return Finding(
        f"rasid score, {rows:,} rows, killed again and again",
        {"kills": killed, "rows": rows, "without a kill, s": seconds},
        {"killed ten times": killed == _KILLS, "the output is that of a run without a kill": same},
    )


def job_killed(
    server: Server, texts: Sequence[str], *, rows: int, progress: Callable[[str], object] = lambda _told: None
) -> Finding:
    """A job is sent; its worker is killed seven times, the service with it three times. Every row must be there once."""
    generator = random.Random(2)
    content = make_rows(texts, rows)
    with tempfile.TemporaryDirectory() as folder:
        kept = Server(server.name, server.command, server.path, server.body, {**server.variables, "RASID_JOBS": folder})
        running = RunningServer(kept, probe=texts[0])
        try:
            began = time.perf_counter()
            job_id = send(running, content)["id"]
            killed = services = 0
            while killed < _KILLS:
                aim = rows * (killed + generator.random()) / (_KILLS + 1)
                while (job := ask(running, f"/v1/jobs/{job_id}"))["rows"] < aim and job["state"] not in _ENDED:
                    time.sleep(0.1)
                if job["state"] in _ENDED:
                    break
                progress(f"killed {killed} times, {job['rows']:,} rows done")
                time.sleep(generator.random() * 2)
                if killed % 3 == 2:
                    os.killpg(running.process.pid, signal.SIGKILL)
                    running.close()
                    running = RunningServer(kept, probe=texts[0])
                    services += 1
                elif (worker := find_worker(running)) is not None:
                    os.kill(worker, signal.SIGKILL)
                killed += 1
            job = until_ended(running, job_id)
            seconds = time.perf_counter() - began
            lines = fetch(running, f"/v1/jobs/{job_id}/results").splitlines() if job["state"] == "completed" else []
        finally:
            running.close()
    ids = [json.loads(line)["id"] for line in lines]
    return Finding(
        f"a job of {rows:,} rows, killed again and again",
        {"kills": killed, "of them the whole service": services, "rows": len(ids), "from sending to the end, s": seconds},
        {
            "killed ten times": killed == _KILLS,
            "completed": job["state"] == "completed",
            "every row once, in order": ids == [str(number) for number in range(rows)],
        },
    )


def latency_beside_a_job(server: Server, texts: Sequence[str], *, rounds: int = 3) -> Finding:
    """One text at a time, with no job and while one runs, in turns."""
    requests = [[text] for text in texts]
    alone, beside, shares = [], [], []
    with tempfile.TemporaryDirectory() as folder:
        kept = Server(server.name, server.command, server.path, server.body, {**server.variables, "RASID_JOBS": folder})
        with RunningServer(kept, probe=texts[0]) as running:
            running.load(requests)
            for _ in range(rounds):
                alone.append(running.load(requests))
                job_id = send(running, make_rows(texts, 200_000))["id"]
                while ask(running, f"/v1/jobs/{job_id}")["rows"] == 0:
                    time.sleep(0.2)
                before = _processor_seconds(find_worker(running))
                beside.append(running.load(requests))
                shares.append((_processor_seconds(find_worker(running)) - before) / beside[-1].seconds)
                ask(running, f"/v1/jobs/{job_id}/cancel", method="POST")
                while find_worker(running) is not None:  # it ends when it notices
                    time.sleep(0.5)
    middle = {
        name: sorted(loads, key=lambda load: load.latency(0.99))[rounds // 2] for name, loads in (("a", alone), ("b", beside))
    }
    figures = {
        "p50 alone, ms": 1_000 * middle["a"].latency(0.5),
        "p50 beside the job, ms": 1_000 * middle["b"].latency(0.5),
        "p99 alone, ms": 1_000 * middle["a"].latency(0.99),
        "p99 beside the job, ms": 1_000 * middle["b"].latency(0.99),
        "processors that the job got meanwhile": sorted(shares)[rounds // 2],
    }
    return Finding(
        "one text at a time beside a job",
        figures,
        {
            "p99 at most doubled": middle["b"].latency(0.99) <= 2 * middle["a"].latency(0.99),
            "the job went on": min(shares) > 0.05,
        },
    )


def make_rows(texts: Sequence[str], count: int) -> bytes:
    """JSON lines, each with an id and a text of its own."""
    rows = ({"id": str(number), "text": f"{texts[number % len(texts)]} {number}"} for number in range(count))
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows).encode()


def send(server: RunningServer, content: bytes) -> dict[str, Any]:
    """Send a job. Raises ContenderError."""
    head = f'--{_BOUNDARY}\r\nContent-Disposition: form-data; name="file"; filename="rows.jsonl"\r\n\r\n'.encode()
    body = head + content + f"\r\n--{_BOUNDARY}--\r\n".encode()
    return ask(server, "/v1/jobs", method="POST", body=body, kind=f"multipart/form-data; boundary={_BOUNDARY}")


def ask(server: RunningServer, path: str, *, method: str = "GET", body: bytes | None = None, kind: str = "") -> dict[str, Any]:
    """What a path answers. Raises ContenderError."""
    found: dict[str, Any] = json.loads(fetch(server, path, method=method, body=body, kind=kind))
    return found


def fetch(server: RunningServer, path: str, *, method: str = "GET", body: bytes | None = None, kind: str = "") -> bytes:
    """The bytes that a path answers. Raises ContenderError."""
    headers = {"Content-Type": kind} if kind else {}
    request = urllib.request.Request(f"http://127.0.0.1:{server.port}{path}", body, headers, method=method)
    try:
        with urllib.request.urlopen(request, timeout=120) as response:  # noqa: S310
            return bytes(response.read())
    except OSError as error:
        raise ContenderError(f"{method} {path} was not answered: {error}") from None


def until_ended(server: RunningServer, job_id: str) -> dict[str, Any]:
    """The job when it has ended."""
    while (job := ask(server, f"/v1/jobs/{job_id}"))["state"] not in _ENDED:
        time.sleep(0.2)
    return job


def _processor_seconds(process: int | None) -> float:
    """The processor time that a process has used."""
    if process is None:
        raise ContenderError("the service has no worker")
    fields = Path(f"/proc/{process}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def find_worker(server: RunningServer) -> int | None:
    """The process id of the service's worker."""
    for entry in Path("/proc").iterdir():
        if not entry.name.isdecimal():
            continue
        try:
            command = (entry / "cmdline").read_bytes()
            parent = re.search(r"^PPid:\s+(\d+)", (entry / "status").read_text(), re.MULTILINE)
        except OSError:  # it ended meanwhile
            continue
        if b"service.jobs.worker" in command and parent is not None and int(parent[1]) == server.process.pid:
            return int(entry.name)
    return None

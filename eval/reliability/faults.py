"""What goes wrong around a service: slow and leaving callers, a kill, a full disk, a clock set back, a model swapped."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import tempfile
import threading
import time
import urllib.request
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

from eval.contenders.process import ContenderError
from eval.reliability.finding import Finding
from eval.reliability.overload import CONNECTIONS
from eval.servers.running import RunningServer, Server

_OK = 200
_SLOW = 200
_LEAVING = 300
_SWAPS = 10
_FAKETIME = "/usr/lib/x86_64-linux-gnu/faketime/libfaketimeMT.so.1"


def slow_clients(server: RunningServer, texts: Sequence[str]) -> Finding:
    """200 callers send a byte now and then, and as many never read their answer; others must not notice."""
    requests = [[text] for text in texts]
    alone = server.load(requests, connections=1)
    body = json.dumps({"texts": [texts[0]] * 64, "evidence": True}).encode()
    head = f"POST /v1/classify HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    stop = threading.Event()
    with ExitStack() as stack:
        writers = [stack.enter_context(socket.create_connection(("127.0.0.1", server.port))) for _ in range(_SLOW)]
        readers = [stack.enter_context(socket.create_connection(("127.0.0.1", server.port))) for _ in range(_SLOW)]

        def drip() -> None:
            for byte in head.encode() + body:
                for one in writers:
                    one.send(bytes([byte]))
                if stop.wait(0.2):
                    return

        for one in readers:
            one.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2_048)
            one.sendall(head.encode() + body)
        dripping = threading.Thread(target=drip)
        dripping.start()
        time.sleep(1.0)
        beside = server.load(requests, connections=1)
        stop.set()
        dripping.join()
    figures = {
        "p50 alone, ms": 1_000 * alone.latency(0.5),
        "p50 beside them, ms": 1_000 * beside.latency(0.5),
        "p99 alone, ms": 1_000 * alone.latency(0.99),
        "p99 beside them, ms": 1_000 * beside.latency(0.99),
        "answered": beside.count(_OK),
    }
    return Finding(
        f"{_SLOW} slow writers and {_SLOW} that do not read",
        figures,
        {
            "every request of others answered": beside.count(_OK) == len(requests),
            "p50 of others at most doubled": beside.latency(0.5) <= 2 * alone.latency(0.5),
        },
    )


def leaving_clients(server: RunningServer, texts: Sequence[str]) -> Finding:
    """300 callers close the connection when they have sent 64 texts; what they asked for must not be computed."""
    body = json.dumps({"texts": [f"{n} {text}" for n, text in enumerate(texts[:64])]}).encode()
    before = metric(server, "rasid_inference_tokens_total")
    asked = server.load([[f"{n} {text}" for n, text in enumerate(texts[:64])]])
    whole = metric(server, "rasid_inference_tokens_total") - before
    before = metric(server, "rasid_inference_tokens_total")
    for number in range(_LEAVING):
        own = body.replace(b'"0 ', f'"{number} of those who leave: '.encode())
        head = f"POST /v1/classify HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: {len(own)}\r\n\r\n"
        with socket.create_connection(("127.0.0.1", server.port)) as one:
            one.sendall(head.encode() + own)
    time.sleep(2.0)
    spent = metric(server, "rasid_inference_tokens_total") - before
    waiting = metric(server, "rasid_queue_tokens")
    figures = {"tokens of one such request": whole, "requests left": _LEAVING, "tokens computed for all of them": spent}
    return Finding(
        f"{_LEAVING} callers who leave at once",
        figures,
        {
            "at most a tenth was computed": spent <= 0.1 * whole * _LEAVING,
            "nothing waits afterwards": waiting == 0,
            "others are answered": asked.count(_OK) == 1 and server.ask([texts[0]]) == _OK,
        },
    )


def killed(server: Server, texts: Sequence[str]) -> Finding:
    """The process is killed under load and started again: nothing on disk stands in its way."""
    requests = [[text] for text in texts]
    with RunningServer(server, probe=texts[0]) as first:
        threading.Timer(1.0, lambda: os.killpg(first.process.pid, signal.SIGKILL)).start()
        broken = first.load(requests * 4, connections=8)
    with RunningServer(server, probe=texts[0]) as second:
        again = second.load(requests, connections=8)
        seconds = second.start_seconds
    figures = {
        "answered before": broken.count(_OK),
        "broken connections": broken.count(0),
        "other statuses": len(broken.statuses) - broken.count(_OK) - broken.count(0),
        "from start to the first answer, s": seconds,
        "answered after": again.count(_OK),
    }
    return Finding(
        "killed with SIGKILL under load",
        figures,
        {
            "answers are whole or broken, never wrong": figures["other statuses"] == 0,
            "all answered after the restart": again.count(_OK) == len(requests),
        },
    )


def disk_full(server: Server, texts: Sequence[str]) -> Finding:
    """Its log goes to a full disk (`/dev/full`): requests are answered all the same."""
    logging = Server(server.name, server.command, server.path, server.body, {**server.variables, "RASID_LOG_LEVEL": "debug"})
    with RunningServer(logging, probe=texts[0], log=Path("/dev/full")) as running:
        load = running.load([[text] for text in texts], connections=8)
    return Finding(
        "the disk of the log is full",
        {"answered": load.count(_OK), "sent": len(texts)},
        {"every request answered": load.count(_OK) == len(texts)},
    )


def clock_set_back(server: Server, texts: Sequence[str]) -> Finding:
    """The wall clock jumps a day back, then two forward, under load and with a quota.

    Raises ContenderError without libfaketime.
    """
    if not Path(_FAKETIME).is_file():
        raise ContenderError("libfaketime is not installed: apt-get install faketime")
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "time"
        file.write_text("+0")
        variables = {
            **server.variables,
            "LD_PRELOAD": _FAKETIME,
            "FAKETIME_TIMESTAMP_FILE": str(file),
            "FAKETIME_NO_CACHE": "1",
            "FAKETIME_DONT_FAKE_MONOTONIC": "1",
            "RASID_RATE_PER_ADDRESS": "1000000/minute",
        }
        faked = Server(server.name, server.command, server.path, server.body, variables)
        with RunningServer(faked, probe=texts[0]) as running:
            timers = [threading.Timer(at, file.write_text, [shift]) for at, shift in ((0.7, "-1d"), (1.4, "+1d"))]
            for timer in timers:
                timer.start()
            load = running.load([[text] for text in [*texts, *texts]], connections=8)
            for timer in timers:
                timer.join()
    return Finding(
        "the clock is set back a day and forward two",
        {"answered": load.count(_OK), "sent": len(load.statuses), "p99, ms": 1_000 * load.latency(0.99)},
        {"every request answered": load.count(_OK) == len(load.statuses)},
    )


def swapped(server: RunningServer, bundle: str, texts: Sequence[str]) -> Finding:
    """The model is exchanged ten times under load; the folder RASID_BUNDLES of the server holds `bundle`."""
    done = threading.Event()
    exchanged: list[float] = []

    def exchange() -> None:
        while len(exchanged) < _SWAPS and not done.is_set():
            began = time.perf_counter()
            content = json.dumps({"bundle": bundle}).encode()
            address = f"http://127.0.0.1:{server.port}/v1/model/activate"
            request = urllib.request.Request(address, content, {"Content-Type": "application/json"})
            with urllib.request.urlopen(request, timeout=60):  # noqa: S310 - it is http
                exchanged.append(time.perf_counter() - began)

    thread = threading.Thread(target=exchange)
    thread.start()
    statuses: list[int] = []
    while thread.is_alive():
        statuses.extend(server.load([[text] for text in texts], connections=CONNECTIONS).statuses)
    done.set()
    thread.join()
    figures = {
        "exchanges": len(exchanged),
        "requests meanwhile": len(statuses),
        "failed": len(statuses) - statuses.count(_OK),
        "slowest exchange, s": max(exchanged, default=0.0),
        "memory afterwards, MB": server.memory_mb(),
    }
    return Finding(
        "the model is exchanged under load",
        figures,
        {"all exchanges done": len(exchanged) == _SWAPS, "no request failed": figures["failed"] == 0},
    )


def metric(server: RunningServer, name: str) -> float:
    """A metric without labels, as `/metrics` has it."""
    with urllib.request.urlopen(f"http://127.0.0.1:{server.port}/metrics", timeout=10) as response:
        page = response.read().decode()
    found = re.search(rf"^{name} (\S+)$", page, re.MULTILINE)
    if found is None:
        raise ContenderError(f"/metrics has no {name}")
    return float(found[1])

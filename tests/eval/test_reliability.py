from __future__ import annotations

import asyncio
import random

import pytest

from eval.reliability import fuzz
from eval.reliability.finding import Finding
from eval.servers.load import closed_loop, make_request, open_loop
from eval.servers.running import Load

SEEDS = ["قالت الوزارة إن العائلات نزحت. د. سمير في الحي!", "The ministry said that families fled. Who, then, will answer?"]


def test_random_texts_break_nothing() -> None:
    generator = random.Random(7)
    for number in range(3_000):
        fuzz.check(fuzz.mutate(SEEDS, generator), passages=number % 2 == 0)


def test_what_does_not_hold_is_found_with_its_seed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fuzz, "_SEEDS", SEEDS)
    monkeypatch.setattr(fuzz, "_CHUNK", 20)
    monkeypatch.setattr(fuzz, "detect_language", lambda text: 1 / 0)
    found = fuzz._chunk(5)
    assert len(found) == 20
    assert "ZeroDivisionError" in found[0]
    assert "seed 5" in found[0]


def test_a_finding_passes_when_every_demand_is_met() -> None:
    assert Finding("x", {"a": 1.0}, {"one": True, "two": True}).passed
    assert not Finding("x", {}, {"one": True, "two": False}).as_json()["passed"]


def test_quantiles_are_of_the_requests_with_the_status() -> None:
    load = Load(1.0, (200, 503, 200, 200), (0.1, 9.0, 0.3, 0.2), (0, 0, 0, 0), 0.0)
    assert (load.count(200), load.latency(0.5), load.latency(0.99), load.latency(0.5, 504)) == (3, 0.2, 0.3, 0.0)


def test_the_load_generator_sends_everything_and_counts_what_breaks() -> None:
    seen: list[bytes] = []

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                length = int(head.lower().split(b"content-length: ")[1].split(b"\r\n")[0])
                body = await reader.readexactly(length)
                seen.append(body)
                if body == b'"break"':
                    break
                writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}")
        except asyncio.IncompleteReadError:
            pass
        finally:
            writer.close()

    async def run() -> None:
        server = await asyncio.start_server(answer, "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        requests = [make_request("/x", f'"{n}"') for n in range(9)]
        result = await closed_loop(port, [*requests, make_request("/x", '"break"')], connections=3)
        assert sorted(result.statuses) == [0] + [200] * 9
        assert len(seen) == 10
        result = await open_loop(port, requests, rate=200, seconds=0.3)
        assert set(result.statuses) == {200}
        assert 20 < len(result.statuses) < 150
        arrivals, due = random.Random(1), [0.0]
        while due[-1] < 0.3:
            due.append(due[-1] + arrivals.expovariate(200))
        lateness = [sent - wanted for sent, wanted in zip(sorted(result.sent), due[1:], strict=True)]
        assert min(lateness) > -0.005
        assert result.late == pytest.approx(max(lateness), abs=1e-6)
        server.close()

    asyncio.run(run())

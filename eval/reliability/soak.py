"""Hours in minutes: a steady mixed load, with the memory read all along."""

from __future__ import annotations

import itertools
import random
import time
from collections.abc import Callable, Sequence

from eval.reliability.finding import Finding
from eval.reliability.overload import measure_capacity
from eval.servers.running import RunningServer

_OK = 200
_SHARE = 0.7
_SLICE_SECONDS = 15.0


def soak(
    server: RunningServer,
    texts: Sequence[str],
    *,
    minutes: float,
    progress: Callable[[int, int], object] = lambda _done, _total: None,
) -> Finding:
    """Send 0.7 of the capacity for so many minutes: single texts and, now and then, requests of twenty."""
    generator = random.Random(1)
    capacity = measure_capacity(server, texts)
    rate = _SHARE * capacity / (0.98 + 0.02 * 20)
    memory: list[float] = []
    statuses: list[int] = []
    latencies: list[float] = []
    total = max(4, round(60 * minutes / _SLICE_SECONDS))
    began = time.monotonic()
    for done in itertools.count(1):
        requests = [
            generator.choices(texts, k=20 if generator.random() < 0.02 else 1) for _ in range(round(rate * _SLICE_SECONDS))
        ]
        load = server.load(requests, rate=rate, seconds=_SLICE_SECONDS)
        statuses.extend(load.statuses)
        latencies.append(load.latency(0.99))
        memory.append(server.memory_mb())
        progress(min(done, total), total)
        if time.monotonic() - began >= 60 * minutes:
            break
    quarter = max(1, len(memory) // 4)
    first = sum(memory[quarter : 2 * quarter]) / quarter  # the first quarter is for warming up
    last = sum(memory[-quarter:]) / quarter
    figures = {
        "minutes": (time.monotonic() - began) / 60,
        "requests": len(statuses),
        "not answered with 200": len(statuses) - statuses.count(_OK),
        "memory in the second quarter, MB": first,
        "memory in the last quarter, MB": last,
        "highest memory, MB": max(memory),
        "p99 in the median slice, ms": 1_000 * sorted(latencies)[len(latencies) // 2],
        "p99 in the worst slice, ms": 1_000 * max(latencies),
    }
    return Finding(
        f"{minutes:g} minutes at {_SHARE:.0%} of capacity",
        figures,
        {
            "every request answered": figures["not answered with 200"] == 0,
            "memory flat within 2 %": last <= 1.02 * first,
            "at most 400 MB": max(memory) <= 400,
        },
    )

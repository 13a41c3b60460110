"""More than the service can do: what it answers, how fast it refuses, what it costs in memory."""

from __future__ import annotations

from collections.abc import Sequence

from eval.reliability.finding import Finding
from eval.servers.running import RunningServer

CONNECTIONS = 32
_WARM_UP_SECONDS = 5.0
_OK, _OVERLOADED, _LATE = 200, 503, 504


def measure_capacity(server: RunningServer, texts: Sequence[str]) -> float:
    """Texts a second, one a request, over 32 connections that are never idle."""
    load = server.load([[text] for text in texts], connections=CONNECTIONS)
    return load.count(_OK) / load.seconds


def overload(server: RunningServer, texts: Sequence[str], *, factor: float, seconds: float) -> Finding:
    """Send `factor` times the capacity for `seconds`, whatever is answered."""
    server.load([[text] for text in texts[:64]], connections=CONNECTIONS)
    before = measure_capacity(server, texts)
    count = round(1.2 * factor * before * seconds)  # each its own: what is the same in flight is computed once
    distinct = [[f"{number} {texts[number % len(texts)]}"] for number in range(count)]
    server.load(distinct, rate=factor * before, seconds=_WARM_UP_SECONDS)  # opens the connections, which cost memory once
    memory_before = server.memory_mb()
    load = server.load(distinct, rate=factor * before, seconds=seconds)
    memory_after = server.memory_mb()
    after = measure_capacity(server, texts)
    capacity = (before + after) / 2
    goodput = load.count(_OK) / load.seconds
    others = [status for status in load.statuses if status not in (_OK, _OVERLOADED, _LATE)]
    figures = {
        "capacity, texts/s (before and after)": capacity,
        "sent, texts/s": len(load.statuses) / seconds,
        "goodput, texts/s": goodput,
        "goodput of capacity": goodput / capacity,
        "refused (503)": load.count(_OVERLOADED),
        "refusal, p50 ms": 1_000 * load.latency(0.5, _OVERLOADED),
        "refusal, p99 ms": 1_000 * load.latency(0.99, _OVERLOADED),
        "answered, p50 ms": 1_000 * load.latency(0.5),
        "answered, p99 ms": 1_000 * load.latency(0.99),
        **{f"answered with {status or 'a broken connection'}": others.count(status) for status in sorted(set(others))},
        "memory before, MB": memory_before,
        "memory after, MB": memory_after,
        "generator late by at most, ms": 1_000 * load.late,
    }
    demands = {
        "goodput at least 95 % of capacity": goodput >= 0.95 * capacity,
        "refusals within 10 ms (p99)": load.latency(0.99, _OVERLOADED) <= 0.010,
        "nothing but 200, 503 and 504": not others,
        "memory within 5 %": memory_after <= 1.05 * memory_before,
        "still alive": server.ask([texts[0]]) == _OK,
    }
    return Finding(f"{factor:g} times capacity for {seconds:g} s", figures, demands)

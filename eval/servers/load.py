"""A load generator in a process of its own: texts over HTTP/1.1 connections that are kept open.

    python -m eval.servers.load < request.json > result.json

The request is one JSON object: `{"port", "path", "bodies": [...], "connections": 16, "rate": null, "seconds": null}`. Without a
rate it is a closed loop: every connection sends its next body when the last is answered, until all bodies are. With a rate the
bodies (repeated as needed for `seconds`) are sent at times drawn from a Poisson process whatever the answers do, each on a
connection of its own that waits in a pool. The answer is a `Result`. Its own work is small: bytes out, status and length in.
"""

from __future__ import annotations

import asyncio
import gc
import json
import random
import sys
import time
from collections import deque
from dataclasses import asdict, dataclass, field
from typing import Any

_TIMEOUT_SECONDS = 120.0


@dataclass(slots=True)
class Result:
    """What became of the requests, in the order of their answers; status 0 is a connection that broke.

    `late` is by how many seconds the generator itself was late at worst.
    """

    seconds: float = 0.0
    statuses: list[int] = field(default_factory=list)
    latencies: list[float] = field(default_factory=list)
    sent: list[float] = field(default_factory=list)
    late: float = 0.0


class Connection:
    """One kept connection."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None

    async def ask(self, request: bytes) -> int:
        """Send a request, read its answer whole, return the status; 0 where the connection breaks."""
        try:
            if self._streams is None:
                self._streams = await asyncio.open_connection("127.0.0.1", self._port, limit=2**22)
            reader, writer = self._streams
            writer.write(request)
            head = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), _TIMEOUT_SECONDS)
            lower = head.lower()
            at = lower.index(b"content-length:") + len(b"content-length:")
            await reader.readexactly(int(lower[at : lower.index(b"\r\n", at)]))
            if b"connection: close" in lower:
                self.close()
            return int(head[9:12])
        except (OSError, asyncio.IncompleteReadError, TimeoutError, ValueError):
            self.close()
            return 0

    def close(self) -> None:
        """Close the connection; the next request opens another."""
        if self._streams is not None:
            self._streams[1].close()
            self._streams = None


def make_request(path: str, body: str) -> bytes:
    """The bytes of a POST."""
    content = body.encode()
    head = (
        f"POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: {len(content)}\r\n\r\n"
    )
    return head.encode() + content


async def closed_loop(port: int, requests: list[bytes], connections: int) -> Result:
    """Every connection asks as fast as it is answered."""
    result = Result()
    waiting = deque(requests)

    async def work() -> None:
        connection = Connection(port)
        while waiting:
            request = waiting.popleft()
            began = time.perf_counter()
            status = await connection.ask(request)
            result.statuses.append(status)
            result.latencies.append(time.perf_counter() - began)
            result.sent.append(began - started)
        connection.close()

    started = time.perf_counter()
    await asyncio.gather(*(work() for _ in range(connections)))
    result.seconds = time.perf_counter() - started
    return result


async def open_loop(port: int, requests: list[bytes], rate: float, seconds: float, seed: int = 1) -> Result:
    """Requests come at a rate, whatever the answers do."""
    generator = random.Random(seed)
    result = Result()
    idle: list[Connection] = []
    tasks: set[asyncio.Task[None]] = set()

    async def one(request: bytes, due: float) -> None:
        connection = idle.pop() if idle else Connection(port)
        began = time.perf_counter()
        status = await connection.ask(request)
        idle.append(connection)
        result.statuses.append(status)
        result.latencies.append(time.perf_counter() - began)
        result.sent.append(began - started)
        result.late = max(result.late, began - due)

    started = time.perf_counter()
    due, count = started, 0
    while due - started < seconds:
        due += generator.expovariate(rate)
        delay = due - time.perf_counter()
        if delay > 0:
            await asyncio.sleep(delay)
        task = asyncio.ensure_future(one(requests[count % len(requests)], due))
        tasks.add(task)
        task.add_done_callback(tasks.discard)
        count += 1
    if tasks:
        await asyncio.wait(tasks)
    result.seconds = time.perf_counter() - started
    for connection in idle:
        connection.close()
    return result


def main() -> None:
    """Read the request, send the load, write the result."""
    wanted: dict[str, Any] = json.load(sys.stdin)
    requests = [make_request(wanted["path"], body) for body in wanted["bodies"]]
    gc.freeze()
    gc.disable()  # its pauses would be measured as the server's; a load leaves no cycles worth collecting
    if wanted.get("rate"):
        result = asyncio.run(open_loop(wanted["port"], requests, wanted["rate"], wanted["seconds"]))
    else:
        result = asyncio.run(closed_loop(wanted["port"], requests, wanted["connections"]))
    json.dump(asdict(result), sys.stdout)


if __name__ == "__main__":
    main()

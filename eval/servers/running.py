"""A server in a process group of its own: started, sent load, put to sleep while others are measured, and ended."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any, Self

from eval.contenders.process import ContenderError

_START_SECONDS = 180.0
_QUIET = {"HF_HUB_OFFLINE": "1", "TRANSFORMERS_VERBOSITY": "error", "HF_HUB_DISABLE_PROGRESS_BARS": "1"}


@dataclass(frozen=True, slots=True)
class Server:
    """How to start a server and how to ask it: `{port}` in the command or in a variable stands for its port."""

    name: str
    command: tuple[str, ...]
    path: str
    body: Callable[[Sequence[str]], dict[str, Any]]
    variables: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Load:
    """What became of a load: `eval.servers.load.Result`."""

    seconds: float
    statuses: tuple[int, ...]
    latencies: tuple[float, ...]
    sent: tuple[float, ...]
    late: float

    def count(self, status: int) -> int:
        """How many requests were answered with a status."""
        return self.statuses.count(status)

    def latency(self, share: float, status: int = 200) -> float:
        """The quantile of the seconds of the requests that were answered with a status; 0 where none was."""
        found = sorted(s for s, code in zip(self.latencies, self.statuses, strict=True) if code == status)
        return found[min(len(found) - 1, int(share * len(found)))] if found else 0.0


class RunningServer:
    """A server that answers. A context manager: leaving it ends the process group."""

    def __init__(self, server: Server, *, probe: str, log: Path | None = None) -> None:
        """Start it and wait until it answers the text `probe`; what it writes goes to `log`. Raises ContenderError."""
        self.server = server
        self.port = free_port()
        self._log: IO[bytes] = log.open("wb", buffering=0) if log else tempfile.TemporaryFile()  # noqa: SIM115 -- closed with the process
        filled = [part.replace("{port}", str(self.port)) for part in server.command]
        variables = {name: value.replace("{port}", str(self.port)) for name, value in server.variables.items()}
        began = time.perf_counter()
        self.process = subprocess.Popen(
            filled, stdout=self._log, stderr=self._log, env={**os.environ, **_QUIET, **variables}, start_new_session=True
        )
        try:
            while self.ask([probe]) != 200:
                if self.process.poll() is not None or time.perf_counter() - began > _START_SECONDS:
                    raise ContenderError(f"the server {server.name} does not answer: {self.last_words()}")
                time.sleep(0.02)
        except BaseException:
            self.close()
            raise
        self.start_seconds = time.perf_counter() - began

    def __enter__(self) -> Self:
        """The running server."""
        return self

    def __exit__(self, *_: object) -> None:
        """End the process group."""
        self.close()

    def ask(self, texts: Sequence[str]) -> int:
        """The status of one request; 0 where nobody listens."""
        try:
            return self.load([texts], connections=1).statuses[0]
        except (IndexError, ContenderError):
            return 0

    def load(
        self,
        requests: Sequence[Sequence[str]],
        *,
        connections: int = 1,
        rate: float | None = None,
        seconds: float | None = None,
        path: str | None = None,
    ) -> Load:
        """Send requests of texts, in a closed loop over connections or at a rate. Raises ContenderError."""
        wanted = {
            "port": self.port,
            "path": path or self.server.path,
            "bodies": [json.dumps(self.server.body(texts), ensure_ascii=False) for texts in requests],
            "connections": connections,
            "rate": rate,
            "seconds": seconds,
        }
        done = subprocess.run(
            [sys.executable, "-m", "eval.servers.load"], input=json.dumps(wanted), capture_output=True, text=True, check=False
        )
        if done.returncode:
            raise ContenderError(f"the load generator failed: {done.stderr.strip().splitlines()[-1:]}")
        found = json.loads(done.stdout)
        return Load(found["seconds"], tuple(found["statuses"]), tuple(found["latencies"]), tuple(found["sent"]), found["late"])

    def sleep(self) -> None:
        """Stop the whole group where it stands, so that it takes no time from others."""
        os.killpg(self.process.pid, signal.SIGSTOP)

    def wake(self) -> None:
        """Let it go on."""
        os.killpg(self.process.pid, signal.SIGCONT)

    def memory_mb(self) -> float:
        """Resident memory of the process group, in MiB."""
        pages = 0
        for entry in Path("/proc").iterdir():
            if not entry.name.isdecimal():
                continue
            try:
                fields = (entry / "stat").read_text().rsplit(")", 1)[1].split()
                if int(fields[2]) == self.process.pid:
                    pages += int((entry / "statm").read_text().split()[1])
            except (OSError, IndexError):  # it ended meanwhile
                continue
        return pages * os.sysconf("SC_PAGE_SIZE") / 2**20

    def last_words(self) -> str:
        """The last line that the server wrote."""
        if not self._log.readable():
            return "see its log"
        self._log.seek(0)
        lines = [line for line in self._log.read().decode("utf-8", "replace").splitlines() if line.strip()]
        return lines[-1].strip()[:300] if lines else "it said nothing"

    def close(self) -> None:
        """Ask the group to end, and kill what is left of it."""
        for number in (signal.SIGCONT, signal.SIGTERM):
            self._signal(number)
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.process.wait(timeout=10)
        self._signal(signal.SIGKILL)
        self.process.wait()
        self._log.close()

    def _signal(self, number: int) -> None:
        try:
            os.killpg(self.process.pid, number)
        except ProcessLookupError:
            return


def free_port() -> int:
    """A port that nobody listens on now."""
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


def rasid_server(bundle: Path, *, threads: int, **settings: str) -> Server:
    """Rasid's own service on a bundle; `settings` are further RASID_ variables by their lower-case names."""
    own = {"port": "{port}", "bundle": str(bundle), "threads": str(threads), "log_level": "warning", **settings}
    return Server(
        name="rasid",
        command=(sys.executable, "-m", "service.cli", "serve"),
        path="/v1/classify",
        body=lambda texts: {"texts": list(texts)},
        variables={f"RASID_{name.upper()}": value for name, value in own.items()},
    )

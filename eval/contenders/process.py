"""The line protocol, the benchmark's side: start a contender, ask it, and end it whatever happens."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import tempfile
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import IO, Any, Self

from models.errors import RasidError

TIMEOUT_SECONDS = 300.0
_THREAD_VARIABLES = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "RAYON_NUM_THREADS")
_QUIET = {"HF_HUB_OFFLINE": "1", "TRANSFORMERS_VERBOSITY": "error", "HF_HUB_DISABLE_PROGRESS_BARS": "1"}


class ContenderError(RasidError):
    """A contender's process died, hung or spoke out of turn."""

    code = "contender_failed"


@dataclass(frozen=True, slots=True)
class Contender:
    """One way to classify texts: its name in the tables and the command that starts it."""

    name: str
    command: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Timing:
    """One measurement: wall seconds in all and for each batch, and per text the letters of `protocol.Verdict`."""

    seconds: float
    batch_seconds: tuple[float, ...]
    decisions: tuple[str, ...]
    sides: tuple[str, ...]
    peak_memory_mb: float


class RunningContender:
    """A contender that has loaded its model and waits. A context manager: leaving it ends the process."""

    def __init__(self, contender: Contender, *, threads: int, timeout_seconds: float = TIMEOUT_SECONDS) -> None:
        """Start the process with `threads` for every library and wait until it is ready. Raises ContenderError."""
        self.name = contender.name
        self._command = contender.command
        self._timeout = timeout_seconds
        self._errors: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115 -- closed with the process
        began = time.perf_counter()
        self._process = subprocess.Popen(
            contender.command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            encoding="utf-8",
            env={**os.environ, **dict.fromkeys(_THREAD_VARIABLES, str(threads)), **_QUIET},
        )
        try:
            ready = self._read("while loading")
            if ready.get("ready") is not True:
                raise self._out_of_turn("ready")
            self.about = str(ready.get("about", ""))
            self.load_seconds = float(ready.get("load_seconds", 0.0))
            self.start_seconds = time.perf_counter() - began
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> Self:
        """The running contender."""
        return self

    def __exit__(self, *_: object) -> None:
        """End the process."""
        self.close()

    def classify(self, texts: Sequence[str], batch: int) -> Timing:
        """Classify `N` texts in batches. Raises ContenderError where the process does not answer for each of them."""
        stdin = self._process.stdin
        assert stdin is not None  # noqa: S101 -- Popen was given a pipe
        try:
            stdin.write(json.dumps({"texts": list(texts), "batch": batch}) + "\n")
            stdin.flush()
        except (BrokenPipeError, OSError):
            raise self._death(f"before a batch of {batch}", self._process.wait()) from None
        reply = self._read(f"on {len(texts)} texts in batches of {batch}")
        try:
            timing = Timing(
                seconds=float(reply["seconds"]),
                batch_seconds=tuple(map(float, reply["batch_seconds"])),
                decisions=tuple(map(str, reply["decisions"])),
                sides=tuple(map(str, reply["sides"])),
                peak_memory_mb=float(reply["peak_memory_mb"]),
            )
        except (KeyError, TypeError, ValueError):
            raise self._out_of_turn("seconds") from None
        if not len(timing.decisions) == len(timing.sides) == len(texts) or timing.seconds <= 0:
            raise self._out_of_turn(f"{len(texts)} decisions and")
        return timing

    def close(self) -> None:
        """Ask the process to end by closing its input, and kill it if it does not."""
        for pipe in (self._process.stdin, self._process.stdout):
            try:
                if pipe is not None:
                    pipe.close()
            except OSError:  # what was still to be written has no reader any more
                continue
        try:
            self._process.wait(timeout=2)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._errors.close()

    def _read(self, when: str) -> dict[str, Any]:
        stdout = self._process.stdout
        assert stdout is not None  # noqa: S101 -- Popen was given a pipe
        timer = threading.Timer(self._timeout, self._process.kill)
        timer.daemon = True
        began = time.perf_counter()
        timer.start()
        try:
            line = stdout.readline()
        finally:
            timer.cancel()
        if not line:
            if time.perf_counter() - began >= self._timeout:
                self._process.wait()
                raise ContenderError(f"the contender {self.name} gave no answer {when} within {self._timeout:.0f} s")
            raise self._death(when, self._process.wait())
        try:
            reply = json.loads(line)
        except ValueError:
            reply = None
        if not isinstance(reply, dict):
            raise self._out_of_turn("a JSON object")
        return reply

    def _death(self, when: str, code: int) -> ContenderError:
        end = f"signal {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"
        self._errors.seek(0)
        lines = [line for line in self._errors.read().decode("utf-8", "replace").splitlines() if line.strip()]
        last = lines[-1].strip()[:300] if lines else "it said nothing"
        return ContenderError(
            f"the contender {self.name} died {when} ({end}): {last}; run it by hand to see more: {' '.join(self._command)}"
        )

    def _out_of_turn(self, wanted: str) -> ContenderError:
        return ContenderError(
            f"the contender {self.name} did not keep to the line protocol: expected {wanted} of eval.contenders.protocol"
        )

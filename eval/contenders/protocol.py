"""The line protocol, the contender's side: JSON lines on standard input and output.

The process loads and says `{"ready": true, "load_seconds", "about"}`. For each line `{"texts": [...], "batch": n}` it
classifies the texts in batches of `n`, one call a batch, and answers

    {"seconds": 1.9, "batch_seconds": [...], "decisions": ["yrnn", ...], "sides": ["1000", ...], "peak_memory_mb": 318.2}

`decisions` has for each text one letter a label (yes, no, review), `sides` whether the probability reached the threshold. Only
the calls are timed. Standard output belongs to the protocol: what libraries print goes to standard error. An error ends the
process with one line there, which never holds a text.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import sys
import time
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Generic, TextIO, TypeVar

from eval.contenders import STARTED
from models.errors import RasidError

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Verdict:
    """What a contender says of one text: one letter a label in each."""

    decisions: str
    sides: str


@dataclass(frozen=True, slots=True)
class Loaded(Generic[T]):
    """A contender ready to work: `classify` is timed, `prepare` (before) and `judge` (after) are not."""

    about: str
    classify: Callable[[list[str]], list[T]]
    judge: Callable[[list[str], list[T]], list[Verdict]]
    prepare: Callable[[str], str] = str


@dataclass(frozen=True, slots=True)
class Arguments:
    """What every contender is told: the bundle, the file or folder of its own model, and its threads."""

    bundle: Path
    model: Path
    threads: int
    port: int = 0


def read_arguments(description: str, example: str, *, port: bool = False) -> Arguments:
    """Parse the command line of a contender."""
    parser = argparse.ArgumentParser(description=description, epilog=f"Example: {example}")
    parser.add_argument("--bundle", type=Path, required=True, help="bundle whose tokenizer and decision rule hold")
    parser.add_argument("--model", type=Path, help="the contender's own model, from rasid-train reference")
    parser.add_argument("--threads", type=int, required=True, help="inference threads")
    if port:
        parser.add_argument("--port", type=int, required=True, help="port to listen on")
    given = parser.parse_args()
    return Arguments(given.bundle, given.model or given.bundle, given.threads, given.port if port else 0)


def serve(load: Callable[[], Loaded[T]]) -> None:
    """Load, then answer line by line until standard input ends. Exits with 1 after an error."""
    replies = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    sys.stdout = sys.stderr
    reading = False
    try:
        loaded = load()
        _say(replies, {"ready": True, "load_seconds": time.perf_counter() - STARTED, "about": loaded.about})
        for line in sys.stdin:
            reading = True
            request = json.loads(line)
            _say(replies, _run(loaded, [loaded.prepare(text) for text in request["texts"]], int(request["batch"])))
    except Exception as error:
        sys.stderr.write(f"\n{_without_text(error, reading=reading)}\n")
        sys.exit(1)


def peak_memory_mb() -> float:
    """The largest resident memory of this process, in MiB (Linux: since its program started, not its parent's)."""
    status = Path("/proc/self/status")
    if status.is_file():
        for line in status.read_text(encoding="ascii", errors="replace").splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) / 1024
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 2**20


def _run(loaded: Loaded[T], texts: Sequence[str], size: int) -> dict[str, object]:
    results: list[T] = []
    batch_seconds = []
    for start in range(0, len(texts), size):
        batch = list(texts[start : start + size])
        began = time.perf_counter()
        found = loaded.classify(batch)
        batch_seconds.append(time.perf_counter() - began)
        results.extend(found)
    verdicts = loaded.judge(list(texts), results)
    return {
        "seconds": sum(batch_seconds),
        "batch_seconds": batch_seconds,
        "decisions": [verdict.decisions for verdict in verdicts],
        "sides": [verdict.sides for verdict in verdicts],
        "peak_memory_mb": peak_memory_mb(),
    }


def _say(replies: TextIO, content: dict[str, object]) -> None:
    replies.write(json.dumps(content) + "\n")
    replies.flush()


def _without_text(error: Exception, *, reading: bool) -> str:
    """An error in one line: in full where Rasid raised it or no text was read yet, else only its kind and place."""
    if isinstance(error, RasidError) or not reading:
        return f"{type(error).__name__}: {' '.join(str(error).split())}"
    place = traceback.extract_tb(error.__traceback__)[-1]
    return f"{type(error).__name__} at {Path(place.filename).name}:{place.lineno}"

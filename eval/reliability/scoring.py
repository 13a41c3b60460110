"""Scoring a large file: how fast against the classifier alone, in how much memory, the same whatever the order or engine."""

from __future__ import annotations

import gzip
import json
import os
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from eval.contenders.process import ContenderError
from eval.reliability.finding import Finding
from models.classifier import Classifier
from models.errors import InputError

_SAMPLE_ROWS = 2_048
_SHARES = (0.01, 0.5, 1.0)

Row = dict[str, str]


@dataclass(frozen=True, slots=True)
class _Run:
    """One run of `rasid score`."""

    seconds: float
    first_seconds: float
    memory_mb: tuple[float, ...]


def scored(
    bundle: Path,
    data: Sequence[Path],
    *,
    rows: int,
    threads: int,
    with_ray: bool,
    progress: Callable[[str], object] = lambda _told: None,
) -> Finding:
    """Score rows of real passages; then in another order; then on Ray. Raises InputError or ContenderError."""
    chosen = read_texts(data, rows)
    command = [sys.executable, "-m", "service.cli", "score", "--bundle", str(bundle), "--quiet"]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        straight, mixed = folder / "straight.jsonl", folder / "mixed.jsonl"
        write(straight, chosen)
        write(mixed, random.Random(1).sample(chosen, len(chosen)))
        classifier = Classifier.load(bundle, threads=threads)
        progress("the classifier alone")
        alone = [rate_alone(classifier, chosen)]
        outputs = {kind: folder / f"out-{kind}.jsonl" for kind in ("straight", "mixed", "ray")}
        progress("rasid score")
        run = _score([*command, str(straight), str(outputs["straight"])], outputs["straight"], rows, threads)
        alone.append(rate_alone(classifier, chosen[-_SAMPLE_ROWS:]))
        del classifier
        progress("in another order")
        _score([*command, str(mixed), str(outputs["mixed"])], outputs["mixed"], rows, threads)
        same_order = sorted(lines(outputs["straight"])) == sorted(lines(outputs["mixed"]))
        if with_ray:
            progress("on Ray")
            ray = _score([*command, str(straight), str(outputs["ray"]), "--engine", "ray"], outputs["ray"], rows, threads)
            same_ray = outputs["straight"].read_bytes() == outputs["ray"].read_bytes()
        answered = sum(1 for _ in lines(outputs["straight"]))
    middle = sum(alone) / len(alone)
    rate = rows / (run.seconds - run.first_seconds)
    figures = {
        "rows": rows,
        "of them different texts": len({row["text"] for row in chosen}),
        "answered": answered,
        "the classifier alone, rows/s (mean of before and after)": middle,
        "rasid score, rows/s": rate,
        "of the classifier alone": rate / middle,
        "start, s": run.first_seconds,
        **{f"memory at {share:.0%}, MB": memory for share, memory in zip(_SHARES, run.memory_mb, strict=True)},
        **({"on Ray, rows/s with its start": rows / ray.seconds} if with_ray else {}),
    }
    demands = {
        "at least 90 % of the classifier alone": rate >= 0.9 * middle,
        "memory flat within 5 %": max(run.memory_mb[1:]) <= 1.05 * run.memory_mb[0],
        "another order gives the same": same_order,
        **({"Ray gives the same, byte for byte": same_ray} if with_ray else {}),
    }
    return Finding(f"{rows:,} real passages scored", figures, demands)


def read_texts(data: Sequence[Path], rows: int) -> list[Row]:
    """Rows of all files in random order; where there are not enough, they come again. Raises InputError where there is none."""
    texts: list[str] = []
    for path in data:
        with gzip.open(path, "rt", encoding="utf-8") if path.suffix == ".gz" else path.open(encoding="utf-8") as file:
            texts += [json.loads(line)["text"] for line in file]
    if not texts:
        raise InputError(f"expected rows in {', '.join(map(str, data))}, found none")
    random.Random(2).shuffle(texts)
    return [{"id": str(number), "text": texts[number % len(texts)]} for number in range(rows)]


def rate_alone(classifier: Classifier, rows: Sequence[Row]) -> float:
    """Rows a second of the classifier in this process."""
    texts = [row["text"] for row in rows[:_SAMPLE_ROWS]]
    classifier.classify(texts[:64])
    began = time.perf_counter()
    for at in range(0, len(texts), 1_024):
        classifier.classify(texts[at : at + 1_024])
    return len(texts) / (time.perf_counter() - began)


def write(path: Path, rows: Sequence[Row]) -> None:
    """Rows as JSON lines."""
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")


def lines(path: Path) -> Iterator[bytes]:
    """The lines of a file."""
    with path.open("rb") as file:
        yield from file


def _score(command: list[str], output: Path, rows: int, threads: int) -> _Run:
    began = time.perf_counter()
    partial = Path(f"{output}.partial")
    process = subprocess.Popen(command, env={**os.environ, "RASID_THREADS": str(threads)})
    memory: list[float] = []
    first = 0.0
    while process.poll() is None:
        if not first and partial.exists():
            first = time.perf_counter() - began
        done = len(list(partial.glob("part-*.jsonl"))) * 1_024 / rows if partial.exists() else float(bool(first))
        now = _resident_mb(process.pid)
        while len(memory) < len(_SHARES) - 1 and done >= _SHARES[len(memory)]:
            memory.append(now)
        last = now or (memory[-1] if memory else 0.0)
        time.sleep(0.05)
    if process.returncode:
        raise ContenderError(f"rasid score ended with {process.returncode}")
    memory += [last] * (len(_SHARES) - len(memory))
    return _Run(time.perf_counter() - began, first, tuple(memory))


def _resident_mb(process: int) -> float:
    try:
        return int(Path(f"/proc/{process}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 2**20
    except (OSError, IndexError):  # it ended meanwhile
        return 0.0

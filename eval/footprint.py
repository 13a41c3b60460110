"""What a bundle costs before it earns: time to the first answer, memory, size on disk."""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from models.errors import EngineError

_PROBE = """
import json, sys, time
started = time.perf_counter()
from pathlib import Path
from eval.contenders.protocol import peak_memory_mb
from models.classifier import Classifier
classifier = Classifier.load(Path(sys.argv[1]), require_seal=False)
loaded = time.perf_counter()
classifier.classify(["The ministry said that forty families had fled."], granularity="document", evidence=True)
answered = time.perf_counter()
print(json.dumps({
    "load_seconds": loaded - started,
    "first_answer_seconds": answered - started,
    "peak_memory_mb": peak_memory_mb(),
    "torch_imported": "torch" in sys.modules,
}))
"""


@dataclass(frozen=True, slots=True)
class Footprint:
    """Medians over fresh processes: seconds from the first import, peak resident memory; and the bundle's size."""

    processes: int
    load_seconds: float
    first_answer_seconds: float
    peak_memory_mb: float
    torch_imported: bool
    bundle_mb: float


def measure_footprint(bundle: Path, *, processes: int = 5) -> Footprint:
    """Load a bundle and answer one text in `processes` fresh processes. Raises EngineError where one fails."""
    found = []
    for _ in range(processes):
        done = subprocess.run(
            [sys.executable, "-c", _PROBE, str(bundle.resolve())], capture_output=True, text=True, check=False
        )
        if done.returncode != 0:
            raise EngineError(f"a process that loads the bundle failed: {done.stderr.strip().splitlines()[-1:]}")
        found.append(json.loads(done.stdout))
    return Footprint(
        processes=processes,
        load_seconds=round(statistics.median(entry["load_seconds"] for entry in found), 3),
        first_answer_seconds=round(statistics.median(entry["first_answer_seconds"] for entry in found), 3),
        peak_memory_mb=round(statistics.median(entry["peak_memory_mb"] for entry in found), 1),
        torch_imported=any(entry["torch_imported"] for entry in found),
        bundle_mb=round(sum(file.stat().st_size for file in bundle.iterdir() if file.is_file()) / 1e6, 1),
    )

"""How fast is a bundle, against the same weights in float32 and in a plain transformers pipeline, on this machine and now?

Contenders run as processes of their own, loaded once, with equal threads (see `eval.contenders`). A round goes through all
cells (a text length in a batch size) in shuffled order, and in each cell through the contenders in shuffled order, on the same
texts; every round has texts of its own. Nothing runs at the same time. The arithmetic limit is measured between the rounds.
"""

from __future__ import annotations

import importlib.util
import json
import random
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from eval.contenders.arithmetic import Operations, PeakInt8, count_operations
from eval.contenders.figures import (
    Agreement,
    Cell,
    Ratio,
    Row,
    Spread,
    agreements_of,
    peak_memory_of,
    ratios_of,
    rows_of,
    spread,
    unsteadiness,
)
from eval.contenders.machine import moment, others_share, processor_name
from eval.contenders.process import Contender, RunningContender
from eval.contenders.workload import Plan, SizedText, make_texts, read_sources, token_counter
from eval.footprint import Footprint, measure_footprint
from models.bundle import Bundle, load_bundle
from models.engine import available_processors
from models.errors import InputError

RASID = "rasid"
_TORCH_PARTS = ("torch", "transformers")
_WARMUP_TEXTS = 8
_BUSY_SHARE = 0.05
_SETTLE_SECONDS = 0.1  # after a call, worker threads of ONNX Runtime were seen to spin for some 30 ms
_UNSTEADY = 1.25

Progress = Callable[[int, int], object]


@dataclass(frozen=True, slots=True)
class Facts:
    """What a contender is and costs: seconds from its command to readiness (median), and its process's peak memory."""

    name: str
    about: str
    start_seconds: float
    load_seconds: float
    peak_memory_mb: float


@dataclass(frozen=True, slots=True)
class Benchmark:
    """One run of the benchmark. `peak_operations` are int8 operations a second: median and ends between the rounds."""

    bundle: str
    model_hash: str
    texts: str
    processor: str
    processors: int
    threads: int
    rounds: int
    seconds: float
    footprint: Footprint
    operations: Operations
    peak_operations: Spread
    contenders: tuple[Facts, ...]
    rows: tuple[Row, ...]
    ratios: tuple[Ratio, ...]
    agreements: tuple[Agreement, ...]
    notices: tuple[str, ...]

    def as_json(self) -> dict[str, Any]:
        """All figures, as written to a file."""
        return {"bench_version": 1, **asdict(self)}


def benchmark(
    bundle_path: Path,
    plan: Plan,
    *,
    reference: Path,
    threads: int | None = None,
    data: Path | None = None,
    progress: Progress = lambda _done, _total: None,
) -> Benchmark:
    """Measure a bundle against its reference, or alone where there is no reference folder; `progress` gets texts done and all.

    Raises InputError where the reference is of another bundle or the texts cannot be used, BundleError, EngineError, or
    ContenderError where a contender dies. No process outlives the call.
    """
    began = time.perf_counter()
    threads = threads or available_processors()
    bundle = load_bundle(bundle_path, require_seal=False)
    contenders, notices = find_contenders(bundle, reference, threads=threads)
    plan, shortened = fit_plan(plan, bundle.manifest.max_tokens)
    sources, tokens_of = read_sources(bundle, data), token_counter(bundle)
    texts = {
        length.name: make_texts(sources, length, length.texts * plan.rounds, tokens_of=tokens_of) for length in plan.lengths
    }
    before = moment()
    footprint = measure_footprint(bundle.path, processes=plan.starts)
    peak = PeakInt8(threads=threads)
    with ExitStack() as stack:
        running, starts = _start(contenders, threads, plan.starts, stack)
        cells = run_rounds(running, plan, texts, progress=progress, between=peak.measure)
    if (share := others_share(before, moment())) > _BUSY_SHARE:
        notices.append(f"other programs had {share:.0%} of the processors: measure again while they rest")
    operations, memory = count_operations(bundle.model_path), peak_memory_of(cells)
    rows = rows_of(cells, RASID, operations, peak.best)
    if (change := unsteadiness(rows)) > _UNSTEADY:
        notices.append(
            f"the machine was unsteady: in a quarter of the rows the best round was more than {change:.2f} times as fast as "
            "the worst; take more --rounds, or see whether --threads 1 is steadier"
        )
    facts = [Facts(one.name, one.about, starts[one.name], one.load_seconds, memory[one.name]) for one in running]
    return Benchmark(
        bundle=f"{bundle.manifest.name} {bundle.manifest.version}",
        model_hash=bundle.manifest.model_hash,
        texts=data.name if data else "the project's minimal pairs",
        processor=processor_name(),
        processors=available_processors(),
        threads=threads,
        rounds=plan.rounds,
        seconds=time.perf_counter() - began,
        footprint=footprint,
        operations=operations,
        peak_operations=spread(peak.rates),
        contenders=tuple(facts),
        rows=tuple(rows),
        ratios=tuple(ratios_of(cells, RASID)),
        agreements=tuple(agreements_of(cells)),
        notices=(*notices, *shortened),
    )


def run_rounds(
    running: Sequence[RunningContender],
    plan: Plan,
    texts: dict[str, list[SizedText]],
    *,
    progress: Progress = lambda _done, _total: None,
    between: Callable[[], object] = lambda: None,
    seed: int = 1,
) -> list[Cell]:
    """Warm up, then measure every contender in every cell of every round; `between` is called before each round."""
    generator = random.Random(seed)
    cells = {(length.name, batch): Cell(length.name, batch) for length in plan.lengths for batch in plan.batches}
    for cell in cells.values():
        cell.timings.update({one.name: [] for one in running})
    total = len(running) * plan.rounds * len(plan.batches) * sum(length.texts for length in plan.lengths)
    done = 0
    for length in plan.lengths:
        for one in running:
            few = [text.text for text in texts[length.name][:_WARMUP_TEXTS]]
            for batch in (1, len(few)):
                one.classify(few, batch)
    for turn in range(plan.rounds):
        between()
        order = [(length, batch) for length in plan.lengths for batch in plan.batches]
        for length, batch in generator.sample(order, len(order)):
            chosen = texts[length.name][turn * length.texts : (turn + 1) * length.texts]
            cell = cells[length.name, batch]
            cell.tokens.append([text.tokens for text in chosen])
            for one in generator.sample(list(running), len(running)):
                time.sleep(_SETTLE_SECONDS)
                cell.timings[one.name].append(one.classify([text.text for text in chosen], batch))
                done += len(chosen)
                progress(done, total)
    between()
    return list(cells.values())


def find_contenders(bundle: Bundle, reference: Path, *, threads: int) -> tuple[list[Contender], list[str]]:
    """The contenders that can be measured with a bundle, Rasid first, and why others cannot.

    Raises InputError where the reference folder is none or of another bundle.
    """

    def contender(name: str, *own: str) -> Contender:
        common = ("--bundle", str(bundle.path.resolve()), "--threads", str(threads))
        return Contender(name, (sys.executable, "-m", f"eval.contenders.{name}", *common, *own))

    contenders = [contender(RASID)]
    if not reference.exists():
        make = f"rasid-train reference --bundle {bundle.path} --out {reference}"
        return contenders, [f"{reference} is not there, so Rasid is measured alone; make it with {make}"]
    _check_reference(bundle, reference)
    folder = reference.resolve()
    contenders.append(contender("float32", "--model", str(folder / "float32.onnx")))
    missing = [name for name in _TORCH_PARTS if importlib.util.find_spec(name) is None]
    if missing:
        notice = (
            f"the transformers pipeline is left out: {' and '.join(missing)} not installed "
            "(pip install -e '.[train]' in the checkout)"
        )
        return contenders, [notice]
    contenders.append(contender("pipeline", "--model", str(folder / "pytorch")))
    return contenders, []


def fit_plan(plan: Plan, max_tokens: int) -> tuple[Plan, list[str]]:
    """A plan without the lengths that the model would cut off, and a notice where it lost some. Raises InputError for all."""
    kept = tuple(replace(one, high=min(one.high, max_tokens)) for one in plan.lengths if one.low <= max_tokens)
    if not kept:
        raise InputError(
            f"the bundle takes {max_tokens} tokens, the shortest texts of the benchmark have {plan.lengths[0].low}"
        )
    lost = [one.name for one in plan.lengths if one.low > max_tokens]
    notices = [f"texts of {' and '.join(lost)} tokens are left out: the bundle takes {max_tokens}"] if lost else []
    return replace(plan, lengths=kept), notices


def _start(
    contenders: Sequence[Contender], threads: int, starts: int, stack: ExitStack
) -> tuple[list[RunningContender], dict[str, float]]:
    """Start every contender `starts` times, one after the other, and keep the last; the median of the start-up seconds."""
    running, seconds = [], {}
    for contender in contenders:
        taken = []
        for _ in range(starts - 1):
            with RunningContender(contender, threads=threads) as short:
                taken.append(short.start_seconds)
        running.append(stack.enter_context(RunningContender(contender, threads=threads)))
        seconds[contender.name] = statistics.median([*taken, running[-1].start_seconds])
    return running, seconds


def _check_reference(bundle: Bundle, folder: Path) -> None:
    again = f"run rasid-train reference --bundle {bundle.path} --out {folder}"
    try:
        content = json.loads((folder / "reference.json").read_text(encoding="utf-8"))
        made_from = str(content["model_hash"])
    except (OSError, ValueError, KeyError, TypeError):
        raise InputError(f"expected reference.json of rasid-train reference in {folder}; {again}") from None
    wanted = bundle.manifest.model_hash
    if made_from != wanted:
        raise InputError(f"{folder} was made from the model {made_from[:12]}, the bundle is {wanted[:12]}; {again}")
    for part in ("float32.onnx", "pytorch"):
        if not (folder / part).exists():
            raise InputError(f"{folder} lacks {part}; {again}")

"""The commands of `rasid-eval prove`."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer
from rich import box
from rich.console import Console
from rich.table import Table
from tqdm import tqdm

from eval.reliability import faults, jobs
from eval.reliability.finding import Finding
from eval.reliability.fuzz import fuzz
from eval.reliability.overload import overload
from eval.reliability.scoring import scored
from eval.reliability.soak import soak
from eval.servers.compare import mixed_texts
from eval.servers.running import RunningServer, Server, rasid_server
from eval.suites.pairs import SIDES, read_pairs
from models.bundle import load_bundle, released_bundle_path
from models.engine import available_processors
from models.errors import RasidError, told_failure

prove_app = typer.Typer(
    no_args_is_help=True,
    help="Prove that the service stays calm; exit code 1 where a demand is not met. Run with nothing else.",
)
_errors = Console(stderr=True)

Bundle = Annotated[Path | None, typer.Option(help="Bundle to serve; the released one by default.")]
Threads = Annotated[int | None, typer.Option(min=1, help="Inference threads; all processors by default.")]
Data = Annotated[Path | None, typer.Option(help="Texts to send; those of the minimal pairs by default.")]
Out = Annotated[Path | None, typer.Option(help="Also write the findings to this file, as JSON.")]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="No progress bar.")]


@prove_app.command("overload", epilog="Example: rasid-eval prove overload --factor 2 --factor 10")
def overload_command(
    factor: Annotated[list[float] | None, typer.Option(help="Times the capacity; again for more. [default: 2, 10]")] = None,
    seconds: Annotated[float, typer.Option(min=1, help="How long each.")] = 20.0,
    bundle: Bundle = None,
    threads: Threads = None,
    data: Data = None,
    out: Out = None,
) -> None:
    """Send more than the service can do: goodput, how fast it refuses, memory."""
    with told():
        server, texts = _service(bundle, threads, data)
        with RunningServer(server, probe=texts[0]) as running:
            _tell([overload(running, texts, factor=one, seconds=seconds) for one in factor or [2.0, 10.0]], out)


@prove_app.command("faults", epilog="Example: apt-get install faketime && rasid-eval prove faults")
def faults_command(
    bundle: Bundle = None,
    threads: Threads = None,
    data: Data = None,
    out: Out = None,
) -> None:
    """Slow and leaving callers, a killed process, a full disk, a clock set back, the model exchanged under load."""
    with told():
        path = (bundle or released_bundle_path()).resolve()
        server, texts = _service(bundle, threads, data, bundles=str(path.parent))
        found = []
        with RunningServer(server, probe=texts[0]) as running:
            found.append(faults.slow_clients(running, texts))
            found.append(faults.leaving_clients(running, texts))
            found.append(faults.swapped(running, path.name, texts))
        found.append(faults.killed(server, texts))
        found.append(faults.disk_full(server, texts))
        found.append(faults.clock_set_back(server, texts))
        _tell(found, out)


@prove_app.command("soak", epilog="Example: rasid-eval prove soak --minutes 30")
def soak_command(
    minutes: Annotated[float, typer.Option(min=0.5, help="How long.")] = 30.0,
    bundle: Bundle = None,
    threads: Threads = None,
    data: Data = None,
    out: Out = None,
    quiet: Quiet = False,
) -> None:
    """A steady load at 0.7 of the capacity, with the memory read all along."""
    with told(), tqdm(desc="soaking", unit=" slices", disable=quiet, dynamic_ncols=True) as bar:

        def progress(done: int, total: int) -> None:
            bar.total = total
            bar.update(done - bar.n)

        server, texts = _service(bundle, threads, data)
        with RunningServer(server, probe=texts[0]) as running:
            found = soak(running, texts, minutes=minutes, progress=progress)
    _tell([found], out)


@prove_app.command("fuzz", epilog="Example: rasid-eval prove fuzz --minutes 30 --inputs 10000000")
def fuzz_command(
    minutes: Annotated[float, typer.Option(min=0, help="At least so long,")] = 30.0,
    inputs: Annotated[int, typer.Option(min=1, help="and at least so many inputs.")] = 10_000_000,
    processes: Annotated[int | None, typer.Option(min=1, help="Processes; as many as processors by default.")] = None,
    out: Out = None,
    quiet: Quiet = False,
) -> None:
    """Throw any string at text preparation, language check and segmentation."""
    seeds = [pair[side]["text"] for pair in read_pairs() for side in SIDES]
    with told(), tqdm(desc="fuzzing", unit=" inputs", disable=quiet, dynamic_ncols=True, total=inputs) as bar:
        found = fuzz(
            seeds,
            minutes=minutes,
            inputs=inputs,
            processes=processes or available_processors(),
            progress=lambda done: bar.update(done - bar.n),
        )
    _tell([found], out)


@prove_app.command("jobs", epilog="Example: rasid-eval prove jobs --rows 20000")
def jobs_command(
    rows: Annotated[int, typer.Option(min=1_000, help="Rows of the file that is scored.")] = 20_000,
    bundle: Bundle = None,
    threads: Threads = None,
    data: Data = None,
    out: Out = None,
    quiet: Quiet = False,
) -> None:
    """Kill the scoring of a file ten times, by command and over HTTP; one text at a time beside a job."""
    with told(), tqdm(desc="scoring", bar_format="{desc} {elapsed}", disable=quiet) as bar:
        server, texts = _service(bundle, threads, data)
        path = (bundle or released_bundle_path()).resolve()
        found = [jobs.latency_beside_a_job(server, texts)]
        found.append(jobs.job_killed(server, texts, rows=rows, progress=bar.set_description_str))
        processors = threads or available_processors()
        found.append(jobs.command_killed(path, texts, rows=rows, threads=processors, progress=bar.set_description_str))
    _tell(found, out)


@prove_app.command("scoring", epilog="Example: rasid-eval prove scoring --data pool.en.jsonl.gz --data pool.ar.jsonl.gz")
def scoring_command(
    data: Annotated[list[Path], typer.Option(help="JSONL files of texts, also .gz; again for more.")],
    rows: Annotated[int, typer.Option(min=2_048, help="Rows to score; texts come again where there are fewer.")] = 100_000,
    with_ray: Annotated[bool, typer.Option("--ray/--no-ray", help="Also on Ray.")] = True,
    bundle: Bundle = None,
    threads: Threads = None,
    out: Out = None,
    quiet: Quiet = False,
) -> None:
    """Score many real passages: rate against the classifier alone, memory on the way, the same in another order and on Ray."""
    with told(), tqdm(desc="scoring", bar_format="{desc} {elapsed}", disable=quiet) as bar:
        path = (bundle or released_bundle_path()).resolve()
        processors = threads or available_processors()
        found = scored(path, data, rows=rows, threads=processors, with_ray=with_ray, progress=bar.set_description_str)
    _tell([found], out)


def _service(bundle: Path | None, threads: int | None, data: Path | None, **settings: str) -> tuple[Server, list[str]]:
    opened = load_bundle(bundle or released_bundle_path())
    texts = mixed_texts(opened, data, 400)
    return rasid_server(opened.path.resolve(), threads=threads or available_processors(), **settings), texts


def _tell(findings: Sequence[Finding], out: Path | None) -> None:
    console = Console(width=max(100, Console().width))
    for finding in findings:
        table = Table(title=finding.name, box=box.SIMPLE_HEAD, show_header=False, title_justify="left")
        for name, value in finding.figures.items():
            table.add_row(name, f"{value:,.2f}".rstrip("0").rstrip("."))
        for name, met in finding.demands.items():
            table.add_row(name, "yes" if met else "NO", style=None if met else "bold red")
        console.print(table)
    if out:
        with told():
            out.parent.mkdir(parents=True, exist_ok=True)
            out.write_text(json.dumps([finding.as_json() for finding in findings], indent=2) + "\n", encoding="utf-8")
    if not all(finding.passed for finding in findings):
        raise typer.Exit(1)


@contextmanager
def told() -> Iterator[None]:
    """Expected errors become one line and an exit code: 2 where the input cannot be used, else 1 (as for a full disk)."""
    try:
        yield
    except BrokenPipeError:  # who read our output left: typer ends quietly
        raise
    except (RasidError, OSError) as error:
        message, status = told_failure(error)
        _errors.print(f"rasid-eval: {message}", style="red", markup=False, highlight=False)
        raise typer.Exit(status) from None

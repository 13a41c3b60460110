"""`rasid score` in a terminal: a progress bar, Ctrl-C, a summary."""

from __future__ import annotations

import tempfile
import threading
from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path, PurePath

from rich.console import Console
from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Table

from models.errors import InputError
from service.score.outputs import STANDARD_OUTPUT
from service.score.rows import count_rows
from service.score.score import Summary, score
from service.score.sources import Source
from service.score.stores import is_url
from service.score.windows import ScoreOptions, Scorer


def run_score(
    scorer: Scorer,
    sources: Sequence[Source],
    output: str,
    rejects: str | None,
    options: ScoreOptions,
    *,
    resume: bool,
    restart: bool,
    console: Console | None,
) -> Summary | None:
    """Score and tell about it on the console. None where Ctrl-C stopped it; then what is done is kept."""
    to_pipe = output == STANDARD_OUTPUT
    if to_pipe and (resume or restart):
        raise InputError("what goes to standard output cannot be resumed; name a file")
    with tempfile.TemporaryDirectory() if to_pipe else nullcontext() as folder:
        place = PurePath(output.partition("?")[0]).name if is_url(output) else output  # what is done so far stays here
        partial = Path(folder or "") / "run" if to_pipe else Path(f"{place}.partial")
        refused = rejects or f"{'standard-output' if to_pipe else place}.rejects.jsonl"
        bar = Progress(
            SpinnerColumn(),
            TextColumn("{task.completed:,.0f} rows"),
            BarColumn(),
            TextColumn("{task.fields[rate]}"),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
            console=console or Console(quiet=True),
            disable=console is None,
            transient=True,
        )
        task = bar.add_task("", total=None, rate="")
        if console is not None:
            threading.Thread(
                target=lambda: bar.update(task, total=count_rows(sources)), name="rasid-count", daemon=True
            ).start()
        first: list[int] = []

        def progress(rows: int, rejected: int) -> None:
            first.append(rows)
            seconds = bar.tasks[0].elapsed or 0.0
            rate = (rows - first[0]) / seconds if seconds else 0.0
            told = f"{rate:,.0f} rows/s" + (f", {rejected:,} rejected" if rejected else "")
            bar.update(task, completed=rows, rate=told)

        try:
            with bar:
                summary = score(
                    scorer,
                    sources,
                    output,
                    refused,
                    options,
                    partial=partial,
                    resume=resume,
                    restart=restart,
                    progress=progress,
                )
        except KeyboardInterrupt:
            if console is not None:
                told = "nothing was written" if to_pipe else f"what is done lies in {partial}; go on with --resume"
                console.print(f"stopped: {told}", style="yellow", highlight=False)
            return None
    if console is not None:
        print_summary(summary, refused, console)
    return summary


def print_summary(summary: Summary, rejects: str, console: Console) -> None:
    """What the run came to, as a table."""
    counts = summary.as_json()
    languages = ", ".join(f"{name} {count:,}" for name, count in sorted(summary.languages.items()))
    console.print(f"{summary.scored:,} of {summary.rows:,} rows scored ({languages or 'none'})", highlight=False)
    if summary.rejected:
        reasons = ", ".join(f"{code} {count:,}" for code, count in summary.rejected.most_common())
        console.print(
            f"{sum(summary.rejected.values()):,} rejected ({reasons}): see {rejects}", style="yellow", highlight=False
        )
    if summary.truncated:
        console.print(f"{summary.truncated:,} texts were longer than the model reads", style="yellow", highlight=False)
    if not summary.scored:
        return
    table = Table(box=None)
    for column in ("", "yes", "review", "no", "to review"):
        table.add_column(column, justify="left" if not column else "right")
    for label, found in summary.decisions.items():
        share = counts["review_share"][label]
        table.add_row(label, *(f"{found[decision]:,}" for decision in ("yes", "review", "no")), f"{share:.1%}")
    console.print(table)

"""The server comparison for the terminal."""

from __future__ import annotations

from rich import box
from rich.console import Console
from rich.table import Table

from eval.contenders.figures import Spread
from eval.servers.compare import OURS, ServerComparison


def print_servers(found: ServerComparison, console: Console) -> None:
    """Print texts a second, ratios, start-up, memory, and the latency of one text alone."""
    for notice in found.notices:
        console.print(f"note: {notice}", style="yellow", markup=False, highlight=False)
    table = Table(
        title=f"{found.bundle}, threads: {found.threads}, {found.rounds} rounds of {found.texts_a_round} texts (20-60 tokens, "
        "2 % of 256); median (lowest-highest)",
        box=box.SIMPLE_HEAD,
    )
    for column in ("", "texts/s", f"times as fast: {OURS} against it", "start s", "memory MB"):
        table.add_column(column, justify="left" if not column else "right")
    for one in found.contestants:
        table.add_row(
            one.name,
            _shown(one.texts_per_second, 0),
            _shown(one.times, 2),
            "" if one.start_seconds is None else f"{one.start_seconds:.1f}",
            "" if one.memory_mb is None else f"{one.memory_mb:.0f}",
            style="bold" if one.name == OURS else None,
        )
    console.print(table)
    alone = found.latency
    console.print(
        f"one text alone: a bare call of the session {alone.session_p50:.1f} ms (p50); over HTTP {alone.request_p50:.1f} ms "
        "(p50, "
        f"{alone.request_p50 / alone.session_p50:.2f} times), {alone.request_p99:.1f} ms (p99, "
        f"{alone.request_p99 / alone.request_p50:.2f} times the p50)",
        highlight=False,
    )


def _shown(spread: Spread, digits: int) -> str:
    return f"{spread.median:.{digits}f} ({spread.low:.{digits}f}-{spread.high:.{digits}f})"

"""The benchmark's tables for the terminal."""

from __future__ import annotations

from rich import box
from rich.console import Console
from rich.table import Table

from eval.bench import RASID, Benchmark
from eval.contenders.figures import ALL, Spread


def print_benchmark(found: Benchmark, console: Console) -> None:
    """Print what was measured: speed by cell, ratios, agreement, start-up and memory, the arithmetic limit."""
    console.print(
        f"[bold]{found.bundle}[/bold], threads: {found.threads}, on {found.processor} ({found.processors} processors), "
        f"{found.rounds} rounds, texts of {found.texts}, {found.seconds:.0f} s; median (lowest-highest)",
        highlight=False,
    )
    for notice in found.notices:
        console.print(f"note: {notice}", style="yellow", markup=False, highlight=False)
    _print_rows(found, console)
    if found.ratios:
        _print_ratios(found, console)
    _print_contenders(found, console)
    _print_limit(found, console)


def _print_rows(found: Benchmark, console: Console) -> None:
    columns = ("tokens", "batch", "contender", "texts/s", "", "tokens/s", "p50 ms", "p99 ms", "of the limit")
    table = _table("speed", columns, left=("contender",))
    last = None
    for row in found.rows:
        cell = (row.length, str(row.batch))
        shown = ("", "") if cell == last else cell
        if last is not None and cell != last and row.batch == found.rows[0].batch:
            table.add_section()
        last = cell
        table.add_row(
            *shown,
            row.contender,
            f"{row.texts_per_second.median:.1f}",
            _ends(row.texts_per_second, 1),
            f"{row.tokens_per_second.median:,.0f}",
            "" if row.latency_p50_ms is None else f"{row.latency_p50_ms:.1f}",
            "" if row.latency_p99_ms is None else f"{row.latency_p99_ms:.1f}",
            "" if row.limit_share is None else f"{row.limit_share.median:.0%}",
            style="bold" if row.contender == RASID else None,
        )
    console.print(table)


def _print_ratios(found: Benchmark, console: Console) -> None:
    others = list(dict.fromkeys(ratio.against for ratio in found.ratios))
    table = _table(f"times as fast as, by round: {RASID} against", ("tokens", "batch", *others))
    by_cell: dict[tuple[str, int | None], dict[str, Spread]] = {}
    for ratio in found.ratios:
        by_cell.setdefault((ratio.length, ratio.batch), {})[ratio.against] = ratio.times
    for (length, batch), times in by_cell.items():
        figures = (f"{times[name].median:.2f} ({_ends(times[name], 2)})" for name in others)
        table.add_row(length, "" if batch is None else str(batch), *figures, style="bold" if length == ALL else None)
    console.print(table)


def _print_contenders(found: Benchmark, console: Console) -> None:
    columns = ("contender", "ready after s", "peak MB", "what")
    table = _table("processes", columns, left=("contender", "what"))
    for one in found.contenders:
        table.add_row(one.name, f"{one.start_seconds:.2f}", f"{one.peak_memory_mb:.0f}", one.about)
    console.print(table)
    footprint = found.footprint
    console.print(
        f"bundle {footprint.bundle_mb} MB; an empty process answers its first text after "
        f"{footprint.first_answer_seconds:.2f} s with {footprint.peak_memory_mb:.0f} MB",
        highlight=False,
    )
    for pair in found.agreements:
        console.print(
            f"{pair.first} and {pair.second}: {pair.differing:.2%} of {pair.decisions} decisions (yes, no, review) differ, "
            f"{pair.flipped:.2%} fall on the other side of the threshold",
            highlight=False,
        )


def _print_limit(found: Benchmark, console: Console) -> None:
    operations = found.operations
    console.print(
        f"arithmetic: {operations.int8_per_token / 1e6:.1f} million int8 operations a token and "
        f"{operations.attention_per_pair:,} in attention a pair of tokens; the best int8 matrix product here does "
        f"{found.peak_operations.high / 1e9:,.0f} billion a second (at worst {found.peak_operations.low / 1e9:,.0f})",
        highlight=False,
    )


def _table(title: str, columns: tuple[str, ...], *, left: tuple[str, ...] = ()) -> Table:
    table = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False)
    for column in columns:
        table.add_column(column, justify="left" if column in left else "right", no_wrap=column != "what")
    return table


def _ends(found: Spread, digits: int) -> str:
    return f"{found.low:.{digits}f}-{found.high:.{digits}f}"

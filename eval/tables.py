"""Tables for the terminal."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from rich import box
from rich.console import Console
from rich.table import Table

from eval.compare import Difference
from eval.documents import DocumentReport
from eval.gate import GateResult
from eval.report import Report
from eval.translations import TranslationAgreement


def print_report(report: Report, console: Console) -> None:
    """Print one table a slice. `review` is the share sent to review, `right else` the share of right answers elsewhere."""
    console.print(f"[bold]{report.bundle}[/bold] on {report.data}: {report.rejected} rejected, {report.seconds:.1f} s")
    for notice in report.notices:
        console.print(f"note: {notice}", style="yellow", markup=False, highlight=False)
    for part in report.slices:
        table = _table(
            f"{part.name}: {part.texts} texts",
            ("label", "support", "prec.", "recall", "F1", "95 %", "AP", "ECE", "review", "right else"),
        )
        for label, found in part.labels.items():
            table.add_row(
                label,
                str(found.support),
                f"{found.precision:.3f}",
                f"{found.recall:.3f}",
                f"{found.f1:.3f}",
                _interval(found.f1_interval),
                _optional(found.average_precision),
                _optional(found.calibration_error),
                f"{found.review_share:.1%}",
                _optional(found.decided_precision),
            )
        for name, average in part.averages.items():
            table.add_row(f"{name} average", "", "", "", f"{average.f1:.3f}", _interval(average.interval), style="bold")
        console.print(table)
    _print_contenders(report, console)
    if report.documents:
        _print_documents(report.documents, console)
    for suite in report.suites:
        table = _table(f"{suite.title}: {suite.measure}", ("cell", "items", "value", "95 %"))
        for name, cell in suite.summary().items():
            table.add_row(name.replace("_", " "), str(cell.items), f"{cell.value:.3f}", _interval(cell.interval))
        console.print(table)


def print_differences(found: Sequence[Difference], names: Sequence[str], data: str, console: Console) -> None:
    """Print a comparison, one table a slice."""
    console.print(f"A: [bold]{names[0]}[/bold], B: [bold]{names[1]}[/bold], on {data}")
    for part in dict.fromkeys(one.slice for one in found):
        columns = ("label", "support", "F1 A", "F1 B", "B - A", "95 %", "only A right", "only B right", "McNemar p")
        table = _table(part, columns)
        for one in (entry for entry in found if entry.slice == part):
            low, high = one.interval
            figures = (f"{one.first_f1:.3f}", f"{one.second_f1:.3f}", f"{one.difference:+.3f}", f"{low:+.3f} to {high:+.3f}")
            tested = ("", "", "") if one.p_value is None else (str(one.only_first), str(one.only_second), f"{one.p_value:.3f}")
            table.add_row(one.label, str(one.support), *figures, *tested, style="bold" if one.p_value is None else None)
        console.print(table)


def print_gate(result: GateResult, console: Console) -> None:
    """Print the headline checks, and of the details those that failed or come near."""
    holder = result.against[:12] if result.against else "constant answers"
    title = f"{result.candidate[:12]} against {holder} on {result.data}, margin {result.margin}"
    table = _table(title, ("check", "items", "released", "candidate", "change", "chance", "verdict"))
    shown = [check for check in result.checks if check.kind == "headline" or check.loss > result.margin]
    for check in shown:
        style = {"worse": "bold red", "too few": "dim"}.get(check.verdict)
        figures = (f"{check.released:.3f}", f"{check.candidate:.3f}", f"{-check.loss:+.3f}", f"{check.chance:.3f}")
        table.add_row(check.name.replace("_", " "), str(check.items), *figures, check.verdict, style=style)
    console.print(table)
    failed = sum(check.verdict == "worse" for check in result.checks)
    hidden = Counter(check.verdict for check in result.checks if check not in shown)
    told = ", ".join(f"{count} {verdict}" for verdict, count in sorted(hidden.items()))
    console.print(
        f"[bold]{'passed' if result.passed else 'refused'}[/bold]: {failed} of {len(result.checks)} checks failed"
        f"{f'; not shown: {told}' if told else ''}"
    )


def _print_contenders(report: Report, console: Console) -> None:
    if len(report.contenders) < 2:
        return
    names = [part.name for part in report.slices]
    table = _table("against baselines: macro F1", ("", *names))
    for one in report.contenders:
        table.add_row(one.name, *(f"{one.macro[name].f1:.3f} ({_interval(one.macro[name].interval)})" for name in names))
    console.print(table)


def _print_documents(found: DocumentReport, console: Console) -> None:
    title = f"{found.data}: {found.articles} articles, {found.sentences} sentences (F1, 95 %)"
    table = _table(title, ("label", "article", "", "sentence", "", "evidence", ""))
    for label in found.document_f1:
        cells = []
        for figures in (found.document_f1, found.sentence_f1, found.evidence_f1):
            cells += [f"{figures[label].value:.3f}", _interval(figures[label].interval)]
        table.add_row(label, *cells)
    console.print(table)
    faith = found.faithfulness
    console.print(
        f"deletion, {faith.cases} cases: probability falls by {faith.drop_without_evidence:.3f} without the evidence, by "
        f"{faith.drop_without_others:.3f} without as many other sentences; the evidence costs more in {faith.evidence_more:.0%}"
        f"; not compared: {faith.emptied} with fewer other sentences, {faith.unplaced} whose evidence covers no sentence"
    )


def print_translations(found: TranslationAgreement, console: Console) -> None:
    """Print how alike both sides are decided. `en`, `ar`: that side alone; `yes/no`: different with neither left to review."""
    columns = ("label", "both", "en", "ar", "neither", "agree", "yes/no", "en - ar")
    table = _table(f"{found.pairs} pairs: {found.exact_match:.1%} with the same labels in both languages", columns)
    for label, one in found.labels.items():
        counts = (one.both, one.english_only, one.arabic_only, one.neither)
        table.add_row(
            label,
            *map(str, counts),
            _optional(one.agreement),
            str(one.contradictions),
            f"{one.probability_difference:+.4f}",
        )
    table.add_row("all", *[""] * 4, _optional(found.agreement), "", "", style="bold")
    console.print(table)
    if found.left_out:
        console.print(f"note: {found.left_out} pairs left out, a side is detected as another language", style="yellow")


def _table(title: str, columns: tuple[str, ...]) -> Table:
    table = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False)
    for place, column in enumerate(columns):
        table.add_column(column, justify="right" if place else "left", no_wrap=True)
    return table


def _interval(interval: tuple[float, float]) -> str:
    return f"{interval[0]:.3f}-{interval[1]:.3f}"


def _optional(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"

"""The `rasid-eval` command."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from tqdm import tqdm

from eval.footprint import measure_footprint
from eval.report import print_report, write_report
from eval.run import evaluate
from eval.stability import measure_stability
from models.bundle import released_bundle_path
from models.classifier import Classifier
from models.errors import InputError, RasidError
from models.example import read_examples

app = typer.Typer(no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False)
_errors = Console(stderr=True)


@app.callback()
def main() -> None:
    """Measure a bundle on labelled texts.

    Exit codes: 0 done, 1 the bundle or the machine failed, 2 the input cannot be used.
    """


@contextmanager
def _told() -> Iterator[None]:
    try:
        yield
    except RasidError as error:
        _errors.print(f"rasid-eval: {error}", style="red", markup=False, highlight=False)
        raise typer.Exit(2 if isinstance(error, InputError) else 1) from None


@app.command(epilog="Example: rasid-eval run --data my-labels.jsonl --out runs/report.json")
def run(
    data: Annotated[Path, typer.Option(help="Labelled texts, JSONL or CSV: text and labels.")],
    bundle: Annotated[Path | None, typer.Option(help="Bundle to measure; the released one by default.")] = None,
    out: Annotated[Path, typer.Option(help="Where to write the report.")] = Path("report.json"),
    as_json: Annotated[bool, typer.Option("--json", help="Print the report as JSON instead of tables.")] = False,
    threads: Annotated[int | None, typer.Option(min=1, help="Inference threads; all processors by default.")] = None,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="No progress bar.")] = False,
) -> None:
    """Score a labelled file through the classifier that serves, and write report.json.

    Per label and language: precision, recall, F1 with 95 % bootstrap intervals, average precision, calibration error
    and the share sent to review.
    """
    with _told():
        classifier = Classifier.load(bundle, threads=threads, require_seal=False)
        total = len(read_examples(data, classifier.bundle.taxonomy))
        with tqdm(total=total, unit="text", disable=quiet) as bar:
            report = evaluate(classifier, data, progress=bar.update)
        write_report(report, out)
    if as_json:
        typer.echo(json.dumps(report.as_json(), ensure_ascii=False))
    else:
        print_report(report, Console(width=max(120, Console().width)))
        typer.echo(f"report written to {out}")


@app.command(epilog="Example: rasid-eval footprint")
def footprint(
    bundle: Annotated[Path | None, typer.Option(help="Bundle to measure; the released one by default.")] = None,
    processes: Annotated[int, typer.Option(min=1, help="Fresh processes to take the median of.")] = 5,
) -> None:
    """Measure time to the first answer, memory and size of a bundle, in fresh processes. Prints JSON."""
    with _told():
        found = measure_footprint(bundle or released_bundle_path(), processes=processes)
        typer.echo(json.dumps(asdict(found), indent=2))


@app.command(epilog="Example: rasid-eval stability --data my-labels.jsonl --limit 400")
def stability(
    data: Annotated[Path, typer.Option(help="Labelled texts, JSONL or CSV; the labels are not used.")],
    bundle: Annotated[Path | None, typer.Option(help="Bundle to measure; the released one by default.")] = None,
    limit: Annotated[int, typer.Option(min=2, help="Use that many texts, spread over the file.")] = 400,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="No progress bar.")] = False,
) -> None:
    """Check that a text's answer is the same alone, in any batch and in any order. Prints JSON."""
    with _told():
        classifier = Classifier.load(bundle, require_seal=False)
        texts = [example.text for example in read_examples(data, classifier.bundle.taxonomy)]
        chosen = texts[:: max(1, len(texts) // limit)][:limit]
        with tqdm(total=4 * len(chosen), unit="text", disable=quiet) as bar:
            found = measure_stability(classifier, chosen, progress=bar.update)
        typer.echo(json.dumps(asdict(found), indent=2))


if __name__ == "__main__":
    app()

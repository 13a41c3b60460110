"""The commands of `rasid-train` for annotating a pool: choose texts, compare readings, keep the labels without the texts."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer
from rich import box
from rich.console import Console
from rich.table import Table

from models.bundle import released_bundle_path
from models.classifier import Classifier
from models.errors import RasidError, told_failure
from models.taxonomy import DEFAULT_TAXONOMY_PATH, load_taxonomy
from training.agreement import Agreement, measure_agreement
from training.jsonl import refuse_existing, write_rows, write_text
from training.pairing import read_sides
from training.pseudo import pseudo_label
from training.readings import standoff_rows
from training.sample import SampleFormat, draw_sample, sample_files, write_sample

_errors = Console(stderr=True)

TaxonomyPath = Annotated[Path, typer.Option("--taxonomy", help="Taxonomy of the labels.")]
Annotators = Annotated[
    list[str] | None, typer.Option("--annotator", help="Annotator of a Label Studio export to take; repeatable.")
]


@contextmanager
def told() -> Iterator[None]:
    """Expected errors become one line and an exit code: 2 where the input cannot be used, else 1 (as for a full disk)."""
    try:
        yield
    except BrokenPipeError:  # who read our output left: typer ends quietly
        raise
    except (RasidError, OSError) as error:
        message, status = told_failure(error)
        _errors.print(f"rasid-train: {message}", style="red", markup=False, highlight=False)
        raise typer.Exit(status) from None


def sample(
    pool: Annotated[list[Path], typer.Option(help="Unlabelled passages, JSONL (.gz): text, and id, source; repeatable.")],
    out: Annotated[Path, typer.Option(help="File to write; never overwritten.")],
    count: Annotated[int, typer.Option(min=1, help="How many passages.")] = 500,
    bundle: Annotated[
        list[Path] | None,
        typer.Option(help="Bundle whose doubt counts, the released one by default; further ones for disagreement."),
    ] = None,
    exclude: Annotated[
        list[Path] | None, typer.Option(help="Texts that are labelled already: file or folder, standoff rows too; repeatable.")
    ] = None,
    language: Annotated[str | None, typer.Option(help="Only passages in this language.")] = None,
    per_document: Annotated[int, typer.Option(min=1, help="At most that many passages of a document.")] = 2,
    file_format: Annotated[SampleFormat, typer.Option("--format", help="Rows, or tasks for Label Studio with their form.")] = (
        "jsonl"
    ),
    show_probabilities: Annotated[
        bool, typer.Option("--show-probabilities", help="Show the model's answer. It leads annotators; for review only.")
    ] = False,
    seed: Annotated[int, typer.Option(help="The same pool, bundles and seed give the same sample.")] = 1,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="No progress bars.")] = False,
) -> None:
    """Choose passages of a pool to annotate: by doubt, disagreement, rare labels, uncovered topics, and at random."""
    with told():
        sample_files(out, file_format)
        classifiers = [Classifier.load(path, require_seal=False) for path in bundle or [released_bundle_path()]]
        found = draw_sample(
            pool,
            classifiers,
            count,
            exclude=exclude or (),
            language=language,
            per_document=per_document,
            seed=seed,
            show_progress=not quiet,
        )
        written = write_sample(
            found, out, classifiers[0].bundle.taxonomy, file_format=file_format, show_probabilities=show_probabilities
        )
    table = _table("chosen because of", "language", "passages")
    for (reason, lang), number in found.counts().items():
        table.add_row(reason, lang, str(number))
    Console().print(table)
    passed_over = ", ".join(f"{number} {reason}" for reason, number in found.passed_over.items() if number)
    typer.echo(
        f"{len(found.passages)} of {found.usable} usable passages ({found.rows} rows; {passed_over or 'none passed over'})"
    )
    if len(found.passages) < count:
        typer.echo(f"fewer than the {count} asked for: the pool has no more within --per-document {per_document}", err=True)
    typer.echo(f"written to {' and '.join(map(str, written))}")


def give_pseudo_labels(
    pool: Annotated[list[Path], typer.Option(help="Unlabelled passages, JSONL (.gz): text, and id; repeatable.")],
    out: Annotated[Path, typer.Option(help="Standoff file to write; never overwritten.")],
    bundle: Annotated[
        list[Path] | None, typer.Option(help="Bundle to ask, the released one by default; of several the mean counts.")
    ] = None,
    count: Annotated[int, typer.Option(min=1, help="How many passages.")] = 20_000,
    exclude: Annotated[
        list[Path] | None,
        typer.Option(help="Texts that are labelled or kept for evaluation: file or folder, standoff rows too; repeatable."),
    ] = None,
    seed: Annotated[int, typer.Option(help="The same pool, bundles and seed give the same rows.")] = 1,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="No progress bars.")] = False,
) -> None:
    """Ask models for the labels of unlabelled passages: probabilities that rasid-train run --pseudo learns from."""
    with told():
        refuse_existing(out)
        classifiers = [Classifier.load(path, require_seal=False) for path in bundle or [released_bundle_path()]]
        found = pseudo_label(pool, classifiers, count, exclude=exclude or (), seed=seed, show_progress=not quiet)
        write_rows(out, found.rows)
    typer.echo(f"{len(found.rows)} of {found.usable} usable passages ({found.likely} with a likely label) written to {out}")


def agreement(
    first: Annotated[Path, typer.Argument(help="Labelled JSONL or CSV, standoff rows, or a Label Studio export (.json).")],
    second: Annotated[
        Path | None, typer.Argument(help="The other reading; without it, two annotators of one export are compared.")
    ] = None,
    collection: Annotated[
        list[Path] | None, typer.Option(help="JSONL (.gz) with the texts of standoff rows; repeatable.")
    ] = None,
    annotator: Annotators = None,
    taxonomy: TaxonomyPath = DEFAULT_TAXONOMY_PATH,
    out: Annotated[
        Path | None, typer.Option(help="Also write the figures and the differences, without texts, as JSON.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of tables.")] = False,
) -> None:
    """Measure how far two readings of the same passages agree, per label and language, and list where they differ."""
    with told():
        loaded = load_taxonomy(taxonomy)
        sides = read_sides(first, second, loaded, collections=collection or (), names=annotator or ())
        found = measure_agreement(sides, loaded)
        content = json.dumps(found.as_json(loaded), ensure_ascii=False, indent=2)
        if out:
            write_text(out, content + "\n")
    if as_json:
        typer.echo(content)
    else:
        _print_agreement(found)


def keep_annotations(
    labelled: Annotated[Path, typer.Argument(help="Annotated passages: JSONL, CSV or a Label Studio export (.json).")],
    out: Annotated[Path, typer.Option(help="Standoff file to write; never overwritten.")],
    annotator: Annotators = None,
    taxonomy: TaxonomyPath = DEFAULT_TAXONOMY_PATH,
) -> None:
    """Turn annotated passages into standoff rows: id, SHA-256 and labels, no text. rasid-train run reads them."""
    with told():
        refuse_existing(out)
        rows = standoff_rows(labelled, load_taxonomy(taxonomy), annotator or ())
        write_rows(out, rows)
        typer.echo(f"{len(rows)} rows written to {out}")


def _print_agreement(found: Agreement) -> None:
    console = Console(width=max(120, Console().width))
    console.print(
        f"{found.first} and {found.second}: {found.common} passages in common, {found.identical} with the same labels; "
        f"only in one: {found.only_first} and {found.only_second}; unsure: {found.unsure_first} and {found.unsure_second}",
        markup=False,
        highlight=False,
    )
    if found.by_id:
        console.print(f"{found.by_id} were matched by id alone; give the texts with --collection", style="yellow")
    if found.other_text:
        console.print(f"{found.other_text} have an id in common but another text, and are left out", style="yellow")
    table = _table("language", "label", "passages", "first", "second", "raw", "kappa", "alpha", "F1", "95 % interval", left=2)
    for one in found.labels:
        interval = "" if one.f1_interval is None else f"{one.f1_interval[0]:.3f}-{one.f1_interval[1]:.3f}"
        figures = ("" if value is None else f"{value:.3f}" for value in (one.raw, one.kappa, one.alpha, one.f1))
        table.add_row(one.language, one.label, str(one.rows), str(one.first), str(one.second), *figures, interval)
    console.print(table)
    for difference in found.differences:
        first, second = ((", ".join(sorted(side.labels)) or "none") for side in (difference.first, difference.second))
        console.print(f"{difference.first.id}: {first} | {second}", markup=False, highlight=False)


def _table(*columns: str, left: int = 2) -> Table:
    table = Table(box=box.SIMPLE_HEAD)
    for number, column in enumerate(columns):
        table.add_column(column, justify="left" if number < left else "right", no_wrap=True)
    return table

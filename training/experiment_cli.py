"""The commands of `rasid-train` for experiments: what a part of the recipe buys, and which texts are translations."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer
from rich import box
from rich.console import Console
from rich.table import Table

from models.errors import InputError
from training.ablation.run import FIGURES, Scale, summarise
from training.ablation.run import ablate as run_ablations
from training.ablation.variants import BASELINE, VARIANTS
from training.alignment import align as find_translations
from training.alignment import read_candidates
from training.annotation_cli import told
from training.base import DEFAULT_BASE, load_base
from training.jsonl import refuse_existing, write_rows

Base = Annotated[str, typer.Option(help="Base encoder: the default, a local directory or a hub name.")]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="No progress bars.")]

_COLUMNS = dict(
    zip(FIGURES, ("AP", "F1", "validation AP", "validation F1", "pairs right", "agreement of languages"), strict=True)
)


def ablate(
    work: Annotated[Path, typer.Option(help="Work folder of a fitted run: its rows are used.")],
    data: Annotated[Path, typer.Option(help="Labelled file to measure on, JSONL or CSV; never trained on.")],
    out: Annotated[
        Path,
        typer.Option(help="JSONL file of outcomes; what it has already by the same rows, base and settings is not run again."),
    ] = Path("runs/ablations.jsonl"),
    variant: Annotated[
        list[str] | None,
        typer.Option(help=f"One of {', '.join(VARIANTS)}; repeatable. [default: all but consistency, pretrained and pseudo]"),
    ] = None,
    seed: Annotated[list[int] | None, typer.Option(help="Seed; repeatable. [default: 1]")] = None,
    rows: Annotated[int, typer.Option(min=1, help="Training rows of a run.")] = Scale().rows,
    epochs: Annotated[int, typer.Option(min=1)] = Scale().epochs,
    pool: Annotated[
        list[Path] | None, typer.Option(help="Unlabelled passages, JSONL (.gz), for the variant pretrained; repeatable.")
    ] = None,
    translations: Annotated[
        list[Path] | None,
        typer.Option(
            help="Passages in both languages for the variant consistency: JSONL rows with id, lang (en or ar) and text, one id "
            "for both; file or folder; repeatable."
        ),
    ] = None,
    measured_translations: Annotated[
        list[Path] | None,
        typer.Option(
            help="Passages in both languages, none trained on: of the sides that get a label, the share whose other side gets "
            "it too; repeatable."
        ),
    ] = None,
    base: Base = DEFAULT_BASE,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")] = False,
    quiet: Quiet = False,
) -> None:
    """Measure what each part of the recipe buys: small fine-tunings that differ in one thing.

    A run of 6,000 rows takes five to ten minutes on two cores, all variants hours; give several seeds, for one says little.
    """
    with told():
        chosen = variant or [name for name, one in VARIANTS.items() if not one.needs_more]
        scale = Scale(rows=rows, epochs=epochs)
        outcomes = run_ablations(
            work,
            data,
            out,
            variants=chosen,
            seeds=seed or [1],
            base=base,
            scale=scale,
            pool=pool or (),
            translations=translations or (),
            measured_translations=measured_translations or (),
            show_progress=not quiet,
        )
    summaries = summarise(outcomes)
    if as_json:
        typer.echo(json.dumps([asdict(summary) for summary in summaries], indent=2))
        return
    table = Table(box=box.SIMPLE_HEAD)
    for column in ("variant", "seeds", *(_COLUMNS[figure] for figure in summaries[0].figures)):
        table.add_column(column, justify="left" if column == "variant" else "right")
    for summary in summaries:
        cells = []
        for figure, (mean, deviation) in summary.figures.items():
            difference = summary.difference[figure]
            told_difference = "" if difference is None or summary.variant == BASELINE else f" ({difference:+.3f})"
            cells.append(f"{mean:.3f} ± {deviation:.3f}{told_difference}")
        table.add_row(summary.variant, str(summary.seeds), *cells)
    Console().print(table)


def align(
    files: Annotated[list[Path], typer.Argument(help="JSONL (.gz) rows with text and lang, en or ar, in any order.")],
    out: Annotated[Path, typer.Option(help="JSONL file of the translations, two rows a pair; never overwritten.")],
    base: Base = DEFAULT_BASE,
    quiet: Quiet = False,
) -> None:
    """Find the passages that are translations of each other, by the vectors of the base encoder.

    For files of which each passage is expected to have its translation somewhere in the other language. The rows of a pair
    share an id, as --translations of ablate and rasid-eval translations read them, and have their margin: the cosine over the
    mean cosine to the four nearest neighbours of both sides. Where rows have a label or labels, the share of pairs with the
    same is told.
    """
    with told():
        refuse_existing(out)
        candidates = read_candidates(files)
        pairs = find_translations(candidates, load_base(base), show_progress=not quiet)
        if not pairs:
            raise InputError("expected translations of each other, found no two passages that are each other's nearest")
        rows = [
            {"id": f"{pair.en.id}={pair.ar.id}", "lang": lang, "text": side.text, "margin": round(pair.margin, 4)}
            for pair in pairs
            for lang, side in (("en", pair.en), ("ar", pair.ar))
        ]
        write_rows(out, rows)
    counts = ", ".join(f"{len(side)} in {language}" for language, side in candidates.items())
    typer.echo(f"{len(pairs)} pairs of {counts} written to {out}")
    labelled = [pair for pair in pairs if pair.en.labels is not None and pair.ar.labels is not None]
    if labelled:
        same = sum(pair.en.labels == pair.ar.labels for pair in labelled)
        typer.echo(f"{same} of the {len(labelled)} pairs with labels on both sides ({same / len(labelled):.1%}) have the same")

"""The `rasid-train` command."""

from __future__ import annotations

import json
import logging
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer
from datasets import disable_progress_bars
from rich import box
from rich.console import Console
from rich.progress import track
from rich.table import Table

from models.bundle import released_bundle_path
from models.taxonomy import DEFAULT_TAXONOMY_PATH, load_taxonomy
from training.annotation_cli import agreement, give_pseudo_labels, keep_annotations, sample, told
from training.base import DEFAULT_BASE
from training.experiment_cli import Base, Quiet, ablate, align
from training.finetune import FineTuneSettings
from training.measure import measure as measure_network
from training.noise import Noise
from training.pipeline import DataSettings, calibrate_bundle, export, fit, measure_parity, prepare_data
from training.plover import run_plover
from training.reference import write_reference
from training.release import release as release_bundle
from training.soup import average_networks

app = typer.Typer(no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False)
_DEFAULTS = FineTuneSettings()

Data = Annotated[
    list[Path] | None,
    typer.Option("--data", help="Labelled file (JSONL, CSV) or a folder of them; repeatable. [default: own corpus]"),
]
Annotations = Annotated[list[Path] | None, typer.Option("--annotations", help="Standoff labels: file or folder; repeatable.")]
Articles = Annotated[
    list[Path] | None,
    typer.Option(
        "--articles", help="Standoff labels of whole articles, sentence by sentence: thresholds for articles; repeatable."
    ),
]
Collections = Annotated[
    list[Path] | None,
    typer.Option("--collection", help="JSONL (.gz) with the texts of the standoff labels; repeatable."),
]
Corrections = Annotated[
    list[Path] | None,
    typer.Option(help="Standoff labels that take the place of those of the same text: file or folder; repeatable."),
]
Pseudo = Annotated[
    list[Path] | None,
    typer.Option(help="Standoff probabilities by rasid-train pseudo-label: soft targets for training; repeatable."),
]
Exclude = Annotated[
    list[Path] | None,
    typer.Option(
        help="Evaluation files (labelled, or articles): rows and annotated articles of their documents, or with ten words in "
        "a row of theirs, are left out; repeatable."
    ),
]
Validation = Annotated[
    list[Path] | None, typer.Option("--validation", help="Labelled validation file; else a share of the documents.")
]
Work = Annotated[Path, typer.Option(help="Work folder: checkpoints, rows, network, candidate bundle.")]
TaxonomyPath = Annotated[Path, typer.Option("--taxonomy", help="Taxonomy to train for.")]
Name = Annotated[str, typer.Option(help="Name of the bundle.")]
Version = Annotated[str, typer.Option(help="Version of the bundle.")]
Seeds = Annotated[
    list[int] | None, typer.Option("--seed", help="Seed; repeatable: the weights of the runs are averaged. [default: 1]")
]
WithNoise = Annotated[
    bool,
    typer.Option(
        "--noise/--no-noise",
        help="Swap names of communities, vary spelling, casing and punctuation of training texts. Switch it off where "
        "your labels depend on which community is named.",
    ),
]
OWN_CORPUS = Path(__file__).with_name("corpus")


@app.callback()
def main() -> None:
    """Train, export and release a model.

    Exit codes: 0 done, 1 the machine or a part failed, 2 the input cannot be used.
    """
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    disable_progress_bars()
    for noisy in ("httpx", "datasets", "torch"):
        logging.getLogger(noisy).setLevel(logging.WARNING)


@app.command(
    epilog="Example: rasid-train run --data training/corpus --data my-labels.jsonl --work runs/mine --name mine --version 1"
)
def run(
    data: Data = None,
    annotations: Annotations = None,
    articles: Articles = None,
    collection: Collections = None,
    corrections: Corrections = None,
    pseudo: Pseudo = None,
    exclude: Exclude = None,
    validation: Validation = None,
    work: Work = Path("runs/latest"),
    taxonomy: TaxonomyPath = DEFAULT_TAXONOMY_PATH,
    base: Base = DEFAULT_BASE,
    name: Name = "rasid",
    version: Version = "dev",
    epochs: Annotated[int, typer.Option(min=1)] = _DEFAULTS.epochs,
    batch_size: Annotated[int, typer.Option(min=1)] = _DEFAULTS.batch_size,
    learning_rate: Annotated[float, typer.Option(min=0.0)] = _DEFAULTS.learning_rate,
    seed: Seeds = None,
    noise: WithNoise = True,
    quiet: Quiet = False,
) -> None:
    """Go from labelled files to a candidate bundle: fit, export, calibrate. Stopped half-way, the same command goes on."""
    fit_network(
        data=data,
        annotations=annotations,
        collection=collection,
        corrections=corrections,
        pseudo=pseudo,
        exclude=exclude,
        validation=validation,
        work=work,
        taxonomy=taxonomy,
        base=base,
        epochs=epochs,
        batch_size=batch_size,
        learning_rate=learning_rate,
        seed=seed,
        noise=noise,
        quiet=quiet,
    )
    export_network(work, quiet)
    calibrate_exported(work, name, version, articles, collection, exclude)


@app.command("fit", epilog="Example: rasid-train fit --data my-labels.jsonl --work runs/mine --epochs 5")
def fit_network(
    data: Data = None,
    annotations: Annotations = None,
    collection: Collections = None,
    corrections: Corrections = None,
    pseudo: Pseudo = None,
    exclude: Exclude = None,
    validation: Validation = None,
    work: Work = Path("runs/latest"),
    taxonomy: TaxonomyPath = DEFAULT_TAXONOMY_PATH,
    base: Base = DEFAULT_BASE,
    epochs: Annotated[int, typer.Option(min=1)] = _DEFAULTS.epochs,
    batch_size: Annotated[int, typer.Option(min=1)] = _DEFAULTS.batch_size,
    learning_rate: Annotated[float, typer.Option(min=0.0)] = _DEFAULTS.learning_rate,
    seed: Seeds = None,
    noise: WithNoise = True,
    quiet: Quiet = False,
) -> None:
    """Read and split the labelled data and fine-tune. Resumes from the newest checkpoint in the work folder."""
    with told():
        settings = FineTuneSettings(epochs=epochs, batch_size=batch_size, learning_rate=learning_rate)
        loaded = load_taxonomy(taxonomy)
        dataset = prepare_data(
            DataSettings(
                paths=tuple(data or [OWN_CORPUS]),
                annotations=tuple(annotations or ()),
                collections=tuple(collection or ()),
                corrections=tuple(corrections or ()),
                pseudo=tuple(pseudo or ()),
                exclude=tuple(exclude or ()),
                validation_paths=tuple(validation or ()),
            ),
            loaded,
            work,
        )
        disturbance = Noise() if noise else None
        fit(dataset, loaded, settings, work, base=base, seeds=seed or [1], noise=disturbance, show_progress=not quiet)
        typer.echo(f"fitted network in {work}")


@app.command("average", epilog="Example: rasid-train average runs/first runs/second --work runs/both")
def average(
    part: Annotated[list[Path], typer.Argument(help="Work folders with fitted networks of one base, two or more.")],
    work: Annotated[Path, typer.Option(help="Work folder of the average; rasid-train export and calibrate go on from it.")],
) -> None:
    """Average the weights of networks that were fitted apart: one network, often better than each."""
    with told():
        typer.echo(f"averaged network in {average_networks(part, work)}")


@app.command(epilog="Example: rasid-train measure runs/first runs/second runs/both --data my-test.jsonl")
def measure(
    work: Annotated[list[Path], typer.Argument(help="Work folders with fitted or averaged networks.")],
    data: Annotated[Path, typer.Option(help="Labelled file to measure on, JSONL or CSV; never trained on.")],
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")] = False,
) -> None:
    """Compare fitted networks before export: average precision, and F1 at thresholds found on the validation rows.

    What is released is measured by rasid-eval run, which adds intervals, articles and suites.
    """
    with told():
        found = [measure_network(one, data) for one in track(work, "measuring", disable=as_json, console=Console(stderr=True))]
    if as_json:
        typer.echo(json.dumps([asdict(one) for one in found], indent=2))
        return
    languages = list(dict.fromkeys(language for one in found for language in one.languages))
    table = Table(box=box.SIMPLE_HEAD)
    table.add_column("work", overflow="fold")
    for column in ("validation AP", "validation F1", "AP", "F1", *(f"F1 {language}" for language in languages)):
        table.add_column(column, justify="right")
    for one in found:
        figures = [one.validation_average_precision, one.validation_macro_f1, one.average_precision, one.macro_f1]
        cells = [f"{figure:.3f}" for figure in figures]
        cells += [f"{one.languages[language]:.3f}" if language in one.languages else "" for language in languages]
        table.add_row(one.work, *cells)
    Console().print(table)


@app.command("export", epilog="Example: rasid-train export --work runs/mine")
def export_network(work: Work = Path("runs/latest"), quiet: Quiet = False) -> None:
    """Quantise a fitted network to int8 and write its ONNX file."""
    with told():
        typer.echo(f"exported to {export(work, show_progress=not quiet)}")


@app.command("calibrate", epilog="Example: rasid-train calibrate --work runs/mine --name mine --version 1")
def calibrate_exported(
    work: Work = Path("runs/latest"),
    name: Name = "rasid",
    version: Version = "dev",
    articles: Articles = None,
    collection: Collections = None,
    exclude: Exclude = None,
) -> None:
    """Calibrate an exported model, check it against PyTorch and make the candidate bundle."""
    with told():
        bundle = calibrate_bundle(
            work, name=name, version=version, articles=articles or (), collections=collection or (), exclude=exclude or ()
        )
        typer.echo(f"candidate bundle in {bundle}")


@app.command(epilog="Example: rasid-train parity --work runs/mine --data my-labels.jsonl")
def parity(
    data: Annotated[Path, typer.Option(help="Labelled texts, JSONL or CSV.")],
    work: Work = Path("runs/latest"),
) -> None:
    """Compare a candidate's int8 model with the fitted PyTorch network on a labelled file. Prints JSON."""
    with told():
        typer.echo(json.dumps(asdict(measure_parity(work, data)), indent=2))


@app.command(epilog="Example: rasid-train reference --out runs/reference")
def reference(
    bundle: Annotated[Path | None, typer.Option(help="Bundle; the released one by default.")] = None,
    out: Annotated[Path, typer.Option(help="Folder to write; an older reference there is replaced.")] = Path("runs/reference"),
    base: Annotated[str | None, typer.Option(help="Base encoder; by default the one that the bundle names.")] = None,
) -> None:
    """Write what rasid-eval compares a bundle with: the same model in float32 and for PyTorch, and its base encoder."""
    with told():
        typer.echo(f"reference written to {write_reference(bundle or released_bundle_path(), out, base=base)}")


@app.command(epilog="Example: rasid-train plover --data plover --work runs/plover")
def plover(
    data: Annotated[
        Path, typer.Option(help="Folder with matconf.en.jsonl, matconf.ar.jsonl, matcoop.en.jsonl, matcoop.ar.jsonl.")
    ],
    work: Annotated[Path, typer.Option(help="Work folder: finished runs and checkpoints.")] = Path("runs/plover"),
    base: Base = DEFAULT_BASE,
    seeds: Annotated[int, typer.Option(min=1, help="How many seeds, from 1 on.")] = 5,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")] = False,
    quiet: Quiet = False,
) -> None:
    """Measure the encoder on ConfliBERT's yardstick by its protocol and print our figures beside the published ones.

    Five seeds are twenty fine-tunings: about an hour and a half on two cores. Stopped half-way, the same command goes on.
    """
    with told():
        found = run_plover(data, work, base=base, seeds=range(1, seeds + 1), show_progress=not quiet)
    if as_json:
        typer.echo(json.dumps([asdict(comparison) for comparison in found], indent=2))
        return
    table = Table(box=box.SIMPLE_HEAD)
    for column in ("task", "language", "seeds", "F1 (mean)", "deviation", "published", "difference"):
        table.add_column(column, justify="left" if column in ("task", "language") else "right")
    for one in found:
        figures = (
            f"{one.mean_f1:.3f}",
            f"{one.deviation:.3f}",
            f"{one.published_f1:.3f}",
            f"{one.mean_f1 - one.published_f1:+.3f}",
        )
        table.add_row(one.task, one.language, str(one.seeds), *figures)
    Console().print(table)


@app.command(epilog="Example: rasid-train release runs/mine/bundle --report runs/mine/report.json --gate runs/mine/gate.json")
def release(
    candidate: Annotated[Path, typer.Argument(help="Candidate bundle.")],
    report: Annotated[Path, typer.Option(help="Report of rasid-eval run on that candidate.")],
    gate: Annotated[Path, typer.Option(help="Verdict of rasid-eval gate on that candidate and the report's file.")],
    destination: Annotated[Path, typer.Option(help="Folder of released bundles.")] = Path("bundles"),
    reduced_report: Annotated[
        Path | None, typer.Option(help="Report of a model made from the repository alone, for the card.")
    ] = None,
) -> None:
    """Add report and model card to a candidate that passed the gate, and seal it."""
    with told():
        released = release_bundle(candidate, report, gate, destination, reduced_report_path=reduced_report)
        typer.echo(f"released {released}")


app.command(epilog="Example: rasid-train sample --pool pool.jsonl.gz --exclude my-labels.jsonl --count 500 --out round1.jsonl")(
    sample
)
app.command(
    "pseudo-label",
    epilog="Example: rasid-train pseudo-label --pool pool.jsonl.gz --bundle runs/a/bundle --bundle runs/b/bundle "
    "--exclude my-labels.jsonl --out runs/pseudo.jsonl",
)(give_pseudo_labels)
app.command(epilog="Example: rasid-train agreement first.jsonl second.jsonl")(agreement)
app.command("annotations", epilog="Example: rasid-train annotations round1.jsonl --out training/annotations/round1.jsonl")(
    keep_annotations
)
app.command(
    epilog="Example: rasid-train ablate --work runs/mine --data t.jsonl --variant baseline --variant no-pairs --seed 1 --seed 2"
)(ablate)
app.command(epilog="Example: rasid-train align statements.en.jsonl statements.ar.jsonl --out runs/translations.jsonl")(align)


if __name__ == "__main__":
    app()

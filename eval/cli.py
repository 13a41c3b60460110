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

from eval.bench import benchmark
from eval.compare import compare
from eval.contenders.tables import print_benchmark
from eval.contenders.workload import FULL, QUICK
from eval.footprint import measure_footprint
from eval.gate import MARGIN, gate
from eval.page import write_page
from eval.reliability.cli import prove_app, told
from eval.report import write_report
from eval.run import Stage, evaluate
from eval.scoring import Progress
from eval.servers.compare import compare_servers
from eval.servers.tables import print_servers
from eval.stability import measure_stability
from eval.tables import print_differences, print_gate, print_report, print_translations
from eval.translations import measure_translations
from models.bundle import released_bundle_path
from models.classifier import Classifier
from models.example import read_examples
from models.translations import read_translations

app = typer.Typer(no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False)
app.add_typer(prove_app, name="prove")

Bundle = Annotated[Path | None, typer.Option(help="Bundle to measure; the released one by default.")]
Documents = Annotated[Path | None, typer.Option(help="Labelled articles, JSONL: id and sentences, each with text and labels.")]
Suites = Annotated[bool, typer.Option("--suites/--no-suites", help="Run the project's own suites.")]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="No progress bar.")]


@app.callback()
def main() -> None:
    """Measure a bundle on labelled texts.

    Exit codes: 0 done, 1 the bundle or the machine failed, 2 the input cannot be used.
    """


def _stage(quiet: bool) -> Stage:
    """A progress bar for each stage of a measurement."""

    @contextmanager
    def stage(name: str) -> Iterator[Progress]:
        with tqdm(desc=name, unit=" texts", disable=quiet, dynamic_ncols=True) as bar:
            yield bar.update

    return stage


@app.command(epilog="Example: rasid-eval run --data my-labels.jsonl --train my-training.jsonl --out runs/report.json")
def run(
    data: Annotated[Path, typer.Option(help="Labelled texts, JSONL or CSV: text and labels.")],
    bundle: Bundle = None,
    documents: Documents = None,
    train: Annotated[
        list[Path] | None,
        typer.Option(help="Labelled texts that the trained baselines learn from, file or folder; repeatable."),
    ] = None,
    reference: Annotated[
        Path | None, typer.Option(help="Folder of `rasid-train reference`, for the baseline on the frozen base encoder.")
    ] = None,
    suites: Suites = True,
    out: Annotated[Path, typer.Option(help="Where to write the report; the page goes beside it as .html.")] = Path(
        "report.json"
    ),
    show_text: Annotated[bool, typer.Option("--show-text", help="Show the texts of the worst mistakes on the page.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the report as JSON instead of tables.")] = False,
    threads: Annotated[int | None, typer.Option(min=1, help="Inference threads; all processors by default.")] = None,
    quiet: Quiet = False,
) -> None:
    """Score a labelled file through the classifier that serves; write report.json and report.html.

    Per label and language: precision, recall, F1 with 95 % bootstrap intervals, average precision, calibration error
    and the share sent to review; baselines on the same texts; where it is weak; articles and their evidence; the project's
    own suites.
    """
    with told():
        classifier = Classifier.load(bundle, threads=threads, require_seal=False)
        evaluation = evaluate(
            classifier,
            data,
            documents=documents,
            train=train or (),
            base_encoder=reference,
            suites=suites,
            stage=_stage(quiet),
        )
        report = evaluation.report
        write_report(report, out)
        page = out.with_suffix(".html")
        write_page(evaluation, page, show_text=show_text)
    if as_json:
        typer.echo(json.dumps(report.as_json(), ensure_ascii=False))
    else:
        print_report(report, Console(width=max(120, Console().width)))
        typer.echo(f"report written to {out}, page to {page}")


@app.command(
    "compare", epilog="Example: rasid-eval compare models/released/rasid-1.2.0 runs/mine/bundle --data my-labels.jsonl"
)
def compare_bundles(
    first: Annotated[Path, typer.Argument(metavar="A", help="Bundle A.")],
    second: Annotated[Path, typer.Argument(metavar="B", help="Bundle B.")],
    data: Annotated[Path, typer.Option(help="Labelled texts, JSONL or CSV.")],
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")] = False,
    quiet: Quiet = False,
) -> None:
    """Compare two bundles on the same texts: F1 of both, paired bootstrap interval of B minus A, McNemar's test a label."""
    with told():
        classifiers = [Classifier.load(path, require_seal=False) for path in (first, second)]
        found = compare(classifiers[0], classifiers[1], data, stage=_stage(quiet))
    if as_json:
        typer.echo(json.dumps([asdict(one) for one in found], indent=2))
        return
    names = [f"{one.bundle.manifest.name} {one.bundle.manifest.version}" for one in classifiers]
    print_differences(found, names, data.name, Console(width=max(110, Console().width)))


@app.command("gate", epilog="Example: rasid-eval gate runs/mine/bundle --data my-labels.jsonl --out runs/mine/gate.json")
def pass_gate(
    candidate: Annotated[Path, typer.Argument(help="Candidate bundle.")],
    data: Annotated[Path, typer.Option(help="Labelled texts, JSONL or CSV; none of them trained on.")],
    against: Annotated[Path | None, typer.Option(help="Bundle to beat; the released one by default.")] = None,
    first: Annotated[
        bool,
        typer.Option(
            "--first",
            help="There is no bundle of this taxonomy yet: it must beat constant answers on the texts; articles and suites are "
            "not measured.",
        ),
    ] = False,
    documents: Documents = None,
    suites: Suites = True,
    margin: Annotated[float, typer.Option(min=0.0, max=0.5, help="Loss that a check forgives, in [0, 1].")] = MARGIN,
    out: Annotated[Path, typer.Option(help="Where to write the verdict, for rasid-train release.")] = Path("gate.json"),
    quiet: Quiet = False,
) -> None:
    """Judge whether a candidate may replace the released bundle. Exit code 1 where it may not.

    It fails where it is worse by more than the margin, beyond chance, on a label, a language, articles (their labels,
    their evidence, their sentences), a suite or the decisions outside the review band; and, all looks together, on a label
    in one language or in articles, or a part of a suite.
    """
    with told():
        challenger = Classifier.load(candidate, require_seal=False)
        holder = None if first else Classifier.load(against, require_seal=False)
        result = gate(challenger, holder, data, documents=documents, suites=suites, margin=margin, stage=_stage(quiet))
        out.parent.mkdir(parents=True, exist_ok=True)
        out.write_text(json.dumps(result.as_json(), indent=2) + "\n", encoding="utf-8")
    print_gate(result, Console(width=max(110, Console().width)))
    typer.echo(f"verdict written to {out}")
    if not result.passed:
        raise typer.Exit(1)


@app.command(epilog="Example: rasid-train reference --out runs/reference && rasid-eval bench --reference runs/reference")
def bench(
    bundle: Bundle = None,
    reference: Annotated[
        Path, typer.Option(help="Folder of `rasid-train reference`: the contenders. Without it the bundle is measured alone.")
    ] = Path("runs/reference"),
    data: Annotated[Path | None, typer.Option(help="Texts to measure with; those of the minimal pairs by default.")] = None,
    threads: Annotated[int | None, typer.Option(min=1, help="Threads of every contender; all processors by default.")] = None,
    quick: Annotated[bool, typer.Option("--quick", help="Fewer lengths, batches and rounds: about two minutes.")] = False,
    out: Annotated[Path | None, typer.Option(help="Also write all figures to this file, as JSON.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of tables.")] = False,
    quiet: Quiet = False,
) -> None:
    """Measure speed against the same model in float32 and in a transformers pipeline: interleaved, one run, equal threads.

    Texts a second and latency by length and batch, ratios, start-up, memory, size and the share of the arithmetic limit.
    Run it with nothing else at work; about ten minutes on two cores.
    """
    with told(), tqdm(desc="measuring", unit=" texts", disable=quiet, dynamic_ncols=True) as bar:

        def progress(done: int, total: int) -> None:
            bar.total = total
            bar.update(done - bar.n)

        found = benchmark(
            bundle or released_bundle_path(),
            QUICK if quick else FULL,
            reference=reference,
            threads=threads,
            data=data,
            progress=progress,
        )
        if out:
            out.parent.mkdir(parents=True, exist_ok=True)
            out.write_text(json.dumps(found.as_json(), indent=2) + "\n", encoding="utf-8")
    if as_json:
        typer.echo(json.dumps(found.as_json(), indent=2))
    else:
        print_benchmark(found, Console(width=max(120, Console().width)))


@app.command("bench-servers", epilog="Example: pip install litserve && rasid-eval bench-servers --reference runs/reference")
def bench_servers(
    bundle: Bundle = None,
    reference: Annotated[Path, typer.Option(help="Folder of `rasid-train reference`: what the other servers serve.")] = Path(
        "runs/reference"
    ),
    data: Annotated[Path | None, typer.Option(help="Texts to measure with; those of the minimal pairs by default.")] = None,
    infinity: Annotated[Path | None, typer.Option(help="Python of an environment with infinity-emb.")] = None,
    threads: Annotated[int | None, typer.Option(min=1, help="Threads of every server; all processors by default.")] = None,
    rounds: Annotated[int, typer.Option(min=1, help="Rounds; every server is measured once in each.")] = 5,
    texts: Annotated[int, typer.Option(min=32, help="Texts a round.")] = 256,
    out: Annotated[Path | None, typer.Option(help="Also write all figures to this file, as JSON.")] = None,
    quiet: Quiet = False,
) -> None:
    """Measure the service against LitServe, Infinity and the policy of text-embeddings-inference: interleaved, one run.

    Run it with nothing else at work; about five minutes on two cores.
    """
    with told(), tqdm(desc="measuring", unit=" turns", disable=quiet, dynamic_ncols=True) as bar:

        def progress(done: int, total: int) -> None:
            bar.total = total
            bar.update(done - bar.n)

        found = compare_servers(
            bundle or released_bundle_path(),
            reference=reference,
            rounds=rounds,
            texts_a_round=texts,
            threads=threads,
            data=data,
            infinity=infinity,
            progress=progress,
        )
        if out:
            out.parent.mkdir(parents=True, exist_ok=True)
            out.write_text(json.dumps(found.as_json(), indent=2) + "\n", encoding="utf-8")
    print_servers(found, Console(width=max(120, Console().width)))


@app.command(epilog="Example: rasid-eval footprint")
def footprint(
    bundle: Bundle = None,
    processes: Annotated[int, typer.Option(min=1, help="Fresh processes to take the median of.")] = 5,
) -> None:
    """Measure time to the first answer, memory and size of a bundle, in fresh processes. Prints JSON."""
    with told():
        found = measure_footprint(bundle or released_bundle_path(), processes=processes)
        typer.echo(json.dumps(asdict(found), indent=2))


@app.command(epilog="Example: rasid-eval stability --data my-labels.jsonl --limit 400")
def stability(
    data: Annotated[Path, typer.Option(help="Labelled texts, JSONL or CSV; the labels are not used.")],
    bundle: Bundle = None,
    limit: Annotated[int, typer.Option(min=2, help="Use that many texts, spread over the file.")] = 400,
    quiet: Quiet = False,
) -> None:
    """Check that a text's answer is the same alone, in any batch and in any order. Prints JSON."""
    with told():
        classifier = Classifier.load(bundle, require_seal=False)
        texts = [example.text for example in read_examples(data, classifier.bundle.taxonomy)]
        chosen = texts[:: max(1, len(texts) // limit)][:limit]
        with tqdm(total=4 * len(chosen), unit="text", disable=quiet) as bar:
            found = measure_stability(classifier, chosen, progress=bar.update)
        typer.echo(json.dumps(asdict(found), indent=2))


@app.command(epilog="Example: rasid-eval translations my-translations.jsonl")
def translations(
    files: Annotated[
        list[Path],
        typer.Argument(help="JSONL rows with id, lang (en or ar) and text, one id for both; file or folder."),
    ],
    bundle: Bundle = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")] = False,
    quiet: Quiet = False,
) -> None:
    """Check that passages get the same labels in both languages; nobody needs to have labelled them."""
    with told():
        pairs = read_translations(files)
        classifier = Classifier.load(bundle, require_seal=False)
        with tqdm(total=2 * len(pairs), unit=" texts", disable=quiet, dynamic_ncols=True) as bar:
            found = measure_translations(classifier, pairs, progress=bar.update)
    if as_json:
        typer.echo(json.dumps(asdict(found), indent=2))
    else:
        print_translations(found, Console(width=max(110, Console().width)))


if __name__ == "__main__":
    app()

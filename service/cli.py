"""The `rasid` command."""

from __future__ import annotations

import gc
import json
import logging
import os
import signal
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Annotated, Literal, NoReturn

import typer
from pydantic import ValidationError
from rich.console import Console

from models.classifier import Classifier, TextItem
from models.errors import InputError, RasidError
from models.prediction import Granularity, Rejection
from models.text import replace_surrogates
from service.auth import Scope, add_key, read_keys, remove_key
from service.lines import read_line
from service.settings import Settings
from service.terminal import Bidi, print_answers

app = typer.Typer(no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False)
keys_app = typer.Typer(no_args_is_help=True, help="Make, list and remove API keys.")
app.add_typer(keys_app, name="keys")
KeyFile = Annotated[Path, typer.Option("--file", envvar="RASID_KEYS", help="File of the keys [RASID_KEYS].")]
_errors = Console(stderr=True)
_CHUNK = 64


@app.callback()
def main() -> None:
    """Read Arabic and English text about conflict.

    Exit codes: 0 done, 1 the model or the machine failed, 2 the input cannot be used, 130 interrupted (Ctrl-C).
    """


@contextmanager
def _told() -> Iterator[None]:
    try:
        yield
    except BrokenPipeError:  # the reader of our output went away, as `head` does
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise typer.Exit(0) from None
    except InputError as error:
        _fail(str(error), 2)
    except RasidError as error:
        _fail(str(error), 1)
    except OSError as error:
        _fail(f"{error.strerror or type(error).__name__}: {error.filename or 'the machine'}", 1)
    except ValidationError as error:
        first = error.errors(include_input=False)[0]
        _fail(f"RASID_{'_'.join(map(str, first['loc'])).upper()}: {first['msg']}", 2)


def _fail(message: str, status: int) -> NoReturn:
    _errors.print(f"rasid: {message}", style="red", markup=False, highlight=False)
    raise typer.Exit(status)


def _seldom_interrupt() -> None:
    """Keep Python from holding up requests: a full collection takes a tenth of a second with 400 requests in work.

    What was loaded stays and is not gone through again. Requests leave hardly any cycles, so the collector may wait for many
    more new objects than by default. The interval is how long a request waits for a thread of inference to let go.
    """
    gc.freeze()
    gc.set_threshold(50_000, 20, 20)
    sys.setswitchinterval(0.001)


@app.command(epilog="Example: RASID_PORT=9000 rasid serve")
def serve(
    host: Annotated[str | None, typer.Option(help="Address to listen on [RASID_HOST, 127.0.0.1].")] = None,
    port: Annotated[int | None, typer.Option(min=0, max=65_535, help="Port [RASID_PORT, 8080].")] = None,
    bundle: Annotated[Path | None, typer.Option(help="Bundle to serve [RASID_BUNDLE, the released one].")] = None,
    keys: Annotated[Path | None, typer.Option(help="File of API keys, made by `rasid keys add` [RASID_KEYS].")] = None,
    allow_anonymous: Annotated[
        bool | None, typer.Option("--allow-anonymous", help="Listen beyond loopback without keys [RASID_ALLOW_ANONYMOUS].")
    ] = None,
) -> None:
    """Start the HTTP service. Settings come from RASID_... variables; options here win.

    Beyond loopback it wants API keys. On SIGTERM it finishes what it has and stops.
    """
    import uvicorn  # noqa: PLC0415 - `rasid classify` must not pay for the web stack

    from service.app import create_app, is_exposed  # noqa: PLC0415
    from service.logs import configure_logging  # noqa: PLC0415
    from service.serving import give_memory_back  # noqa: PLC0415

    with _told():
        given = {"host": host, "port": port, "bundle": bundle, "keys": keys, "allow_anonymous": allow_anonymous}
        settings = Settings(**{key: value for key, value in given.items() if value is not None})  # type: ignore[arg-type]
        if is_exposed(settings):
            raise InputError(
                f"{settings.host} can be reached by others, and there are no API keys: make one with rasid keys add NAME "
                "--file FILE and start with RASID_KEYS=FILE, or say RASID_ALLOW_ANONYMOUS=1 where a gateway checks them"
            )
        configure_logging(settings.log_level)
        classifier = Classifier.load(settings.bundle, threads=settings.threads, engine=settings.engine)
        manifest = classifier.bundle.manifest
        facts = {"model": manifest.name, "version": manifest.version, "host": settings.host, "port": settings.port}
        logging.getLogger("rasid").info("starting", extra=facts)
        application = create_app(classifier, settings)
        del classifier  # it may be exchanged for another, and must not be kept for ever
        config = uvicorn.Config(
            application,
            ws="none",
            host=settings.host,
            port=settings.port,
            log_config=None,
            access_log=False,
            server_header=False,
            timeout_keep_alive=75,
            timeout_graceful_shutdown=settings.drain_seconds,
        )
        give_memory_back()
        _seldom_interrupt()
        server = uvicorn.Server(config)
        server.run()
        if not server.started:
            raise typer.Exit(1)


@app.command(
    epilog='Examples: rasid classify "The ministry said ..."   |   rasid classify - --evidence < article.txt   |   '
    "rasid classify - --format jsonl < texts.jsonl"
)
def classify(
    text: Annotated[str, typer.Argument(help="The text, or - to read standard input.")] = "-",
    granularity: Annotated[
        Granularity | None,
        typer.Option(help="Judge a text as one passage, or its sentences. [default: document; passage with jsonl]"),
    ] = None,
    evidence: Annotated[
        bool | None,
        typer.Option("--evidence/--no-evidence", help="Name the sentences that carry labels. [default: yes; no with jsonl]"),
    ] = None,
    output: Annotated[
        Literal["table", "json", "jsonl"],
        typer.Option("--format", help="table, json, or jsonl: {id, text} lines in, one prediction a line out."),
    ] = "table",
    bundle: Annotated[Path | None, typer.Option(help="Bundle to use [RASID_BUNDLE, the released one].")] = None,
    bidi: Annotated[
        Bidi, typer.Option(help="Who orders Arabic in the table: the terminal, or rasid where it cannot.")
    ] = "auto",
) -> None:
    """Classify a text, or lines of texts, and print labels with evidence."""
    with _told():
        settings = Settings()
        classifier = Classifier.load(bundle or settings.bundle, threads=settings.threads, engine=settings.engine)
        if output == "jsonl":
            _classify_lines(classifier, text, granularity or "passage", bool(evidence))
            return
        content = _read_text() if text == "-" else replace_surrogates(text)
        answers = classifier.classify(
            [TextItem("text", content)], granularity=granularity or "document", evidence=evidence is not False
        )
        if output == "json":
            typer.echo(answers[0].model_dump_json())
        else:
            print_answers(answers, classifier.bundle.taxonomy, Console(), bidi=bidi)
        if isinstance(answers[0], Rejection):
            raise typer.Exit(2)


def _read_text() -> str:
    raw = sys.stdin.buffer.read()
    try:
        return raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise InputError(f"expected UTF-8 on standard input, byte {error.start} is not; convert it first") from None


def _classify_lines(classifier: Classifier, text: str, granularity: Granularity, evidence: bool) -> None:
    if text != "-":
        raise InputError("--format jsonl reads standard input: give - instead of a text")
    waiting: list[TextItem | Rejection] = []

    def flush() -> None:
        items = [entry for entry in waiting if isinstance(entry, TextItem)]
        answers = iter(classifier.classify(items, granularity=granularity, evidence=evidence))
        for entry in waiting:
            answer = entry if isinstance(entry, Rejection) else next(answers)
            sys.stdout.write(answer.model_dump_json() + "\n")
        sys.stdout.flush()
        waiting.clear()

    for number, raw in enumerate(sys.stdin.buffer, 1):
        if not raw.strip():
            continue
        waiting.append(read_line(raw, number))
        if len(waiting) == _CHUNK:
            flush()
    flush()


@app.command(
    epilog="Examples: rasid score articles.csv scored.csv   |   rasid score 'news/*.jsonl.gz' out.parquet --keep-columns   |   "
    "rasid score folder/ out.xlsx --granularity document --evidence"
)
def score(
    inputs: Annotated[
        list[str], typer.Argument(help="Files (.jsonl .csv .tsv .parquet .xlsx .txt, also .gz .zst), folders, patterns, or -.")
    ],
    output: Annotated[str, typer.Argument(help="Output: .jsonl, .csv, .tsv, .parquet or .xlsx, or - for JSON lines.")],
    granularity: Annotated[Granularity, typer.Option(help="Judge a text as one passage, or its sentences.")] = "passage",
    evidence: Annotated[bool, typer.Option("--evidence", help="Name the sentences that carry labels.")] = False,
    text_column: Annotated[str | None, typer.Option(help="Column of the text; found by its name otherwise.")] = None,
    id_column: Annotated[str | None, typer.Option(help="Column of the id; found by its name, else rows are numbered.")] = None,
    keep_columns: Annotated[bool, typer.Option("--keep-columns", help="Carry all columns of the input over.")] = False,
    input_format: Annotated[
        Literal["jsonl", "csv", "tsv", "parquet", "xlsx", "txt"] | None,
        typer.Option(help="What the input is, whatever its name."),
    ] = None,
    rejects: Annotated[
        str | None, typer.Option(help="File of what could not be scored. [default: OUTPUT.rejects.jsonl]")
    ] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with a run that was stopped.")] = False,
    restart: Annotated[bool, typer.Option("--restart", help="Forget a run that was stopped.")] = False,
    engine: Annotated[
        Literal["onnxruntime", "openvino", "ray"] | None,
        typer.Option(help="What computes [RASID_ENGINE, onnxruntime]; ray for a cluster, that of RAY_ADDRESS."),
    ] = None,
    workers: Annotated[int | None, typer.Option(min=1, help="Actors of --engine ray; by default one a processor.")] = None,
    bundle: Annotated[Path | None, typer.Option(help="Bundle to use [RASID_BUNDLE, the released one].")] = None,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="No progress bar and no table.")] = False,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print the summary, counts by label and reason, as JSON on standard output.")
    ] = False,
) -> None:
    """Score files of texts, of any size, on this machine or in an object store (s3://, gs://, abfs://, hdfs://).

    What cannot be scored goes to a file of its own with the reason. Stopped at any moment, by Ctrl-C, a kill or a power cut, it
    goes on with --resume; the output appears when it is whole.
    """
    from service.score.command import run_score  # noqa: PLC0415 - what it needs takes a while to load
    from service.score.rows import Columns  # noqa: PLC0415
    from service.score.sources import find_sources  # noqa: PLC0415
    from service.score.windows import ScoreOptions, Scorer  # noqa: PLC0415

    with _told(), ExitStack() as stack:
        if workers is not None and engine != "ray":
            raise InputError("--workers is for --engine ray; on this machine RASID_THREADS says how many threads compute")
        if as_json and output == "-":
            raise InputError("--json prints the summary on standard output, where - prints the answers; name a file")
        settings = Settings()
        options = ScoreOptions(
            columns=Columns(text_column, id_column),
            granularity=granularity,
            evidence=evidence,
            keep_columns=keep_columns,
            max_characters=settings.max_text_characters,
        )
        own = [] if output == "-" or "://" in output else [Path(f"{output}{end}") for end in ("", ".partial", ".rejects.jsonl")]
        sources = find_sources(inputs, input_format, but=own)
        signal.signal(signal.SIGTERM, signal.default_int_handler)  # as Ctrl-C: nothing of the texts is left lying about
        scorer: Scorer
        if engine == "ray":
            from service.score.on_ray import RayScorer  # noqa: PLC0415

            scorer = stack.enter_context(RayScorer(bundle or settings.bundle, workers=workers))
        else:
            from service.score.here import LocalScorer  # noqa: PLC0415

            opened = bundle or settings.bundle
            scorer = LocalScorer(Classifier.load(opened, threads=settings.threads, engine=engine or settings.engine))
        summary = run_score(
            scorer, sources, output, rejects, options, resume=resume, restart=restart, console=None if quiet else _errors
        )
        if summary is None:
            raise typer.Exit(130)
        if as_json:
            typer.echo(json.dumps(summary.as_json()))


@keys_app.command("add", epilog="Example: rasid keys add newsroom --scope classify --rate 6000/minute --file keys.json")
def add(
    name: Annotated[str, typer.Argument(help="Who uses the key; it stands in the log.")],
    file: KeyFile,
    scope: Annotated[list[Scope] | None, typer.Option(help="What it may do; again for more. [default: classify]")] = None,
    rate: Annotated[str | None, typer.Option(help="Texts that may be sent, as 6000/minute.")] = None,
) -> None:
    """Make a key and print it. The file keeps only its hash, so it cannot be shown again."""
    with _told():
        typer.echo(add_key(file, name, scopes=scope or [Scope.CLASSIFY], rate=rate))


@keys_app.command("list", epilog="Example: rasid keys list --file keys.json")
def list_(file: KeyFile) -> None:
    """List the keys: name, scopes, rate, when made."""
    with _told():
        for key in read_keys(file):
            typer.echo("\t".join((key.name, ",".join(key.scopes), key.rate or "-", key.created)))


@keys_app.command("remove", epilog="Example: rasid keys remove newsroom --file keys.json")
def remove(name: Annotated[str, typer.Argument(help="Whose key.")], file: KeyFile) -> None:
    """Take a key away; a running service must be started again to learn of it."""
    with _told():
        remove_key(file, name)


if __name__ == "__main__":
    app()

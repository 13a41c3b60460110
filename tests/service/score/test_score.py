from __future__ import annotations

import csv
import gzip
import io
import json
import os
import random
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import openpyxl
import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner

from models.classifier import Classifier
from models.errors import InputError
from service.cli import app
from service.score import windows
from service.score.here import LocalScorer
from service.score.outputs import harmless, write_output
from service.score.rows import Columns, MissingColumnError, MissingIdColumnError, read_rows
from service.score.score import score
from service.score.sources import find_sources
from service.score.windows import ScoreOptions
from tests.service.score.running import TEXTS, jsonl, run

runner = CliRunner()


def read_table(path: Path, kind: str) -> list[dict]:
    """The rows of an output, by the names in its header."""
    if kind == "parquet":
        return pq.read_table(path).to_pylist()
    if kind == "xlsx":
        names, *cells = openpyxl.load_workbook(path).active.iter_rows(values_only=True)
        return [dict(zip(names, line, strict=True)) for line in cells]
    content = gzip.decompress(path.read_bytes()) if kind.endswith("gz") else path.read_bytes()
    return list(csv.DictReader(io.StringIO(content.decode("utf-8-sig")), delimiter="\t" if kind == "tsv" else ","))


def test_rows_come_out_as_the_classifier_answers_them_in_order(tiny: Classifier, tmp_path: Path) -> None:
    rows = [{"id": f"r{n}", "text": f"{TEXTS[n % 4]} {n}"} for n in range(2_500)]
    found, rejects = run(tiny, jsonl(tmp_path / "in.jsonl", rows), tmp_path / "out.jsonl", evidence=True)
    assert rejects == []
    assert [row["id"] for row in found] == [row["id"] for row in rows]
    answers = tiny.classify([row["text"] for row in rows[1_000:1_100]], evidence=True)
    for answer, row in zip(answers, found[1_000:1_100], strict=True):
        assert row == {**answer.model_dump(), "id": row["id"], "model": "tiny 0"}


def test_the_order_of_the_input_changes_no_answer(tiny: Classifier, tmp_path: Path) -> None:
    rows = [{"id": str(n), "text": f"{TEXTS[n % 4]} {n % 7}"} for n in range(200)]
    one, _ = run(tiny, jsonl(tmp_path / "a.jsonl", rows), tmp_path / "one.jsonl")
    other, _ = run(tiny, jsonl(tmp_path / "b.jsonl", random.Random(1).sample(rows, 200)), tmp_path / "other.jsonl")
    assert sorted(map(str, one)) == sorted(map(str, other))


@pytest.mark.parametrize("kind", ["csv", "tsv", "parquet", "xlsx", "csv.gz"])
def test_tables_hold_probabilities_decisions_and_kept_columns(tiny: Classifier, tmp_path: Path, kind: str) -> None:
    rows = [{"id": "=cmd()", "text": TEXTS[0], "note": "@SUM(1)"}, {"id": "b", "text": TEXTS[1], "note": "plain"}]
    output = tmp_path / f"out.{kind}"
    score(
        LocalScorer(tiny),
        find_sources([str(jsonl(tmp_path / "in.jsonl", rows))]),
        str(output),
        str(tmp_path / "rejects"),
        ScoreOptions(keep_columns=True, evidence=True),
        partial=tmp_path / "partial",
    )
    read = read_table(output, kind)
    answers = tiny.classify([row["text"] for row in rows], evidence=True)
    assert len(read) == 2
    assert any(answer.evidence for answer in answers)
    for row, answer in zip(read, answers, strict=True):
        for label, given in answer.labels.items():
            assert float(row[f"{label}_probability"]) == given.probability
            assert row[f"{label}_decision"] == given.decision
        assert json.loads(row["evidence"] or "[]") == [piece.model_dump() for piece in answer.evidence]
        assert row["model"] == "tiny 0"
    plain = kind == "parquet"  # no program runs what stands in a Parquet file
    assert (read[0]["id"], read[0]["note"]) == (("=cmd()", "@SUM(1)") if plain else ("'=cmd()", "'@SUM(1)"))
    assert read[1]["note"] == "plain"


@pytest.mark.parametrize("value", ["=1", "+1", "-1", "@a", "\t=1", "\r=1"])
def test_no_cell_is_taken_for_a_formula(value: str) -> None:
    assert harmless(value) == f"'{value}"
    assert harmless(-0.5) == -0.5
    assert harmless("a=1") == "a=1"


def test_a_run_goes_on_where_it_stopped(tiny: Classifier, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(windows, "WINDOW_ROWS", 10)
    source = jsonl(tmp_path / "in.jsonl", [{"id": str(n), "text": f"They fled {n}."} for n in range(95)])
    whole, _ = run(tiny, source, tmp_path / "whole.jsonl")

    def stop(rows: int, _rejected: int) -> None:
        if rows >= 30:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(tiny, source, tmp_path / "out.jsonl", progress=stop)
    assert not (tmp_path / "out.jsonl").exists()
    with pytest.raises(InputError, match="--resume goes on"):
        run(tiny, source, tmp_path / "out.jsonl")
    with pytest.raises(InputError, match="evidence"):
        run(tiny, source, tmp_path / "out.jsonl", resume=True, evidence=True)
    seen: list[int] = []
    found, _ = run(tiny, source, tmp_path / "out.jsonl", resume=True, progress=lambda rows, _: seen.append(rows))
    assert seen[0] == 30
    assert found == whole
    with pytest.raises(KeyboardInterrupt):
        run(tiny, source, tmp_path / "other.jsonl", progress=stop)
    found, _ = run(tiny, source, tmp_path / "other.jsonl", restart=True)
    assert found == whole


def test_a_changed_input_is_not_gone_on_with(tiny: Classifier, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(windows, "WINDOW_ROWS", 2)
    source = jsonl(tmp_path / "in.jsonl", [{"text": text} for text in TEXTS])

    def stop(rows: int, _rejected: int) -> None:
        if rows:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(tiny, source, tmp_path / "out.jsonl", progress=stop)
    jsonl(source, [{"text": text} for text in [*TEXTS, "more"]])
    with pytest.raises(InputError, match="other sources"):
        run(tiny, source, tmp_path / "out.jsonl", resume=True)


OTHER_CONDITIONS = {
    "granularity": {"granularity": "document"},
    "evidence": {"evidence": True},
    "text column": {"columns": Columns(text="text")},
    "id column": {"columns": Columns(id="id")},
    "kept columns": {"keep_columns": True},
    "longest text": {"max_characters": 100},
    "model": {},
}


@pytest.mark.parametrize("changed", OTHER_CONDITIONS)
def test_a_run_is_not_gone_on_with_under_other_conditions(tiny: Classifier, tmp_path: Path, changed: str) -> None:
    source = jsonl(tmp_path / "in.jsonl", [{"id": "a", "text": TEXTS[0]}])

    def stop(rows: int, _rejected: int) -> None:
        if rows:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(tiny, source, tmp_path / "out.jsonl", progress=stop)
    classifier = tiny
    if changed == "model":
        manifest = tiny.bundle.manifest
        other = manifest.model_copy(update={"files": {**manifest.files, "decision.json": "0" * 64}})
        classifier = Classifier(replace(tiny.bundle, manifest=other), tiny.engine)
    with pytest.raises(InputError, match=f"begun with other {changed}: "):
        run(classifier, source, tmp_path / "out.jsonl", resume=True, **OTHER_CONDITIONS[changed])
    assert not (tmp_path / "out.jsonl").exists()


def test_an_output_that_fails_half_way_leaves_nothing_under_its_name(tiny: Classifier, tmp_path: Path) -> None:
    def entries() -> Any:
        yield {"id": "a"}
        raise OSError("the disk is full")

    with pytest.raises(OSError, match="full"):
        write_output(str(tmp_path / "out.jsonl"), entries(), tiny.labels)
    assert list(tmp_path.iterdir()) == []


def test_inputs_that_cannot_be_used_are_told_with_what_to_do(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("one,two\n1,2\n")
    (tmp_path / "a.docx").write_text("")
    (tmp_path / "bad.parquet").write_text("x")
    (tmp_path / "bad.xlsx").write_text("x")
    (tmp_path / "bad.jsonl.gz").write_bytes(b"\x1f\x8bnot gzip")
    (tmp_path / "empty").mkdir()
    for name, told in (
        ("a.docx", "--input-format"),
        ("none.csv", "there is no file"),
        ("empty", "no file that can be read"),
        ("none*.csv", "nothing matches"),
    ):
        with pytest.raises(InputError, match=told):
            find_sources([str(tmp_path / name)])
    for name, told in (
        ("a.csv", "--text-column"),
        ("bad.parquet", "Parquet"),
        ("bad.xlsx", "Excel"),
        ("bad.jsonl.gz", "unpacked"),
    ):
        with pytest.raises(InputError, match=told):
            list(read_rows(find_sources([str(tmp_path / name)]), Columns(), max_characters=100))
    with pytest.raises(MissingIdColumnError, match="expected a column three, found one, two; name it with --id-column"):
        list(read_rows(find_sources([str(tmp_path / "a.csv")]), Columns("one", "three"), max_characters=100))


@pytest.mark.parametrize("columns", [Columns(), Columns(text="text"), Columns(text="1", id="id")])
def test_a_table_without_header_is_refused_without_telling_its_first_row(tmp_path: Path, columns: Columns) -> None:
    (tmp_path / "a.csv").write_text("1,Gunmen burned the homes.,Qamishli " + "x" * 30 + ",البلد,\n2,Rain.,b,c,\n")
    told = r"found 1, البلد and 3 that look like no names \(is there a header\?\); name it with --(text|id)-column$"
    with pytest.raises(MissingColumnError, match=told):
        list(read_rows(find_sources([str(tmp_path / "a.csv")]), columns, max_characters=100))


def test_the_summary_is_printed_as_json_where_the_answers_do_not_go(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tiny: Classifier
) -> None:
    monkeypatch.setattr(Classifier, "load", lambda *_arguments, **_options: tiny)
    source = jsonl(tmp_path / "in.jsonl", [{"text": text} for text in [*TEXTS, ""]])
    done = runner.invoke(app, ["score", str(source), str(tmp_path / "out.csv"), "--json"])
    assert done.exit_code == 0, done.output
    summary = json.loads(done.stdout)
    assert (summary["rows"], summary["scored"], summary["rejected"]) == (5, 4, {"empty_text": 1})
    assert summary["decisions"].keys() == summary["review_share"].keys() == set(tiny.labels)
    assert "4 of 5 rows scored" in done.stderr
    refused = runner.invoke(app, ["score", str(source), "-", "--json"])
    assert (refused.exit_code, refused.stdout) == (2, "")
    assert "name a file" in refused.stderr


def test_an_interrupted_run_ends_with_the_exit_code_that_help_names(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tiny: Classifier
) -> None:
    def interrupted(*_arguments: Any, **_options: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(Classifier, "load", lambda *_arguments, **_options: tiny)
    monkeypatch.setattr(LocalScorer, "score", interrupted)
    source = jsonl(tmp_path / "in.jsonl", [{"text": TEXTS[0]}])
    done = runner.invoke(app, ["score", str(source), str(tmp_path / "out.csv"), "--json"])
    assert (done.exit_code, done.stdout) == (130, "")
    assert "go on with --resume" in " ".join(done.stderr.split())
    assert "130 interrupted" in " ".join(runner.invoke(app, ["--help"]).stdout.split())


def test_the_command_scores_a_file_and_tells_what_came_of_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = jsonl(tmp_path / "in.jsonl", [{"text": text} for text in [*TEXTS, ""]])
    done = runner.invoke(app, ["score", str(source), str(tmp_path / "out.csv")])
    assert done.exit_code == 0, done.output
    assert "4 of 5 rows scored" in done.output
    assert "empty_text 1" in done.output
    assert (tmp_path / "out.csv.rejects.jsonl").exists()
    monkeypatch.chdir(tmp_path)
    piped = runner.invoke(app, ["score", "-", "-", "-q"], input=source.read_text())
    assert [json.loads(line)["language"] for line in piped.stdout.splitlines()] == ["en", "ar", "en", "en"]
    refused = runner.invoke(app, ["score", str(source), str(tmp_path / "out.doc")])
    assert refused.exit_code == 2
    assert "expected an output named" in refused.output


def test_each_option_of_the_command_is_heeded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tiny: Classifier) -> None:
    monkeypatch.setattr(Classifier, "load", lambda *_arguments, **_options: tiny)
    texts = [" ".join(TEXTS), "They fled the village. Rain fell. The ministry denied it!"]
    rows = [{"id": f"wrong {n}", "text": "Rain.", "key": f"k{n}", "words": text, "n": n} for n, text in enumerate([*texts, ""])]
    source, output, rejects = jsonl(tmp_path / "in.data", rows), tmp_path / "out.jsonl", tmp_path / "refused.jsonl"
    decided, passages = tiny.classify(texts, granularity="document", evidence=True), tiny.classify(texts)
    assert all(answer.evidence for answer in decided)
    assert all(a.labels != b.labels for a, b in zip(decided, passages, strict=True))

    def stop(rows: int, _rejected: int) -> None:
        if rows:
            raise KeyboardInterrupt

    sources, partial = find_sources([str(source)], "jsonl"), tmp_path / "out.jsonl.partial"
    with pytest.raises(KeyboardInterrupt):
        score(LocalScorer(tiny), sources, str(output), "rejects", ScoreOptions(), partial=partial, progress=stop)
    assert partial.exists()
    options = ["--granularity", "document", "--evidence", "--text-column", "words", "--id-column", "key", "--keep-columns"]
    options += ["--input-format", "jsonl", "--rejects", str(rejects), "--restart"]
    done = runner.invoke(app, ["score", str(source), str(output), *options])
    assert done.exit_code == 0, done.output
    found = [json.loads(line) for line in output.read_text().splitlines()]
    for answer, row, given in zip(decided, found, rows[:2], strict=True):
        assert row == {**answer.model_dump(), "id": given["key"], "model": "tiny 0", "columns": given}
    assert [json.loads(line)["id"] for line in rejects.read_text().splitlines()] == ["k2"]
    assert not partial.exists()


def test_a_killed_run_loses_and_doubles_nothing(tmp_path: Path) -> None:
    rows = [{"id": str(n), "text": f"{TEXTS[n % 4]} {n}"} for n in range(4_000)]
    source, output = jsonl(tmp_path / "in.jsonl", rows), tmp_path / "out.jsonl"
    command = [sys.executable, "-m", "service.cli", "score", str(source), str(output), "-q", "--resume"]
    begun: list[int] = []  # of each kill, when the first part was written
    for attempt in range(20):
        process = subprocess.Popen(command, stderr=subprocess.PIPE)
        parts = len(list(tmp_path.glob("out.jsonl.partial/part-*"))) if attempt else 0
        while attempt < 2 and process.poll() is None:
            if len(list(tmp_path.glob("out.jsonl.partial/part-*"))) > parts:
                os.kill(process.pid, signal.SIGKILL)
                begun.append((tmp_path / "out.jsonl.partial" / "part-000001.jsonl").stat().st_mtime_ns)
                break
            time.sleep(0.01)
        _, errors = process.communicate()
        if process.returncode == 0:
            break
        assert process.returncode == -signal.SIGKILL, errors.decode()
    assert len(begun) == 2
    assert len(set(begun)) == 1  # what was done was not done again
    assert [json.loads(line)["id"] for line in output.read_text().splitlines()] == [row["id"] for row in rows]


@pytest.mark.parametrize("kind", ["jsonl", "csv", "parquet", "xlsx"])
def test_kept_columns_are_written_whatever_they_hold_and_wherever_they_come(
    tiny: Classifier, tmp_path: Path, kind: str
) -> None:
    path = tmp_path / "in.jsonl"
    rows = [
        '{"id": "a", "text": "They fled. \\ud83d", "note": "x"}',
        '{"id": "b", "text": "Rain.", "late": {"deep": [NaN, "\\ud83d"]}, "language": "de", "score": NaN}',
    ]
    path.write_text("\n".join(rows))
    output = tmp_path / f"out.{kind}"
    found, _ = run(tiny, path, output, keep_columns=True)
    if kind == "jsonl":
        assert found[1]["columns"]["late"] == {"deep": [None, "\ufffd"]}
    else:
        table = read_table(output, kind)
        assert [row["note"] or "" for row in table] == ["x", ""]
        assert [row["text"] for row in table] == ["They fled. \ufffd", "Rain."]
        assert [row["input_language"] or "" for row in table] == ["", "de"]
        assert [row["language"] for row in table] == ["en", "en"]
        assert not any(row["score"] for row in table)
        assert json.loads(table[1]["late"]) == {"deep": [None, "\ufffd"]}


@pytest.mark.parametrize("kind", ["csv", "tsv", "parquet", "xlsx"])
def test_every_kept_column_has_a_name_of_its_own(tiny: Classifier, tmp_path: Path, kind: str) -> None:
    row = {"text": "They fled.", "language": "a", "input_language": "b", "input_input_language": "c", "model": "d"}
    output = tmp_path / f"out.{kind}"
    run(tiny, jsonl(tmp_path / "in.jsonl", [row]), output, keep_columns=True)
    if kind == "parquet":
        names, [cells] = pq.read_table(output).column_names, [list(r.values()) for r in pq.read_table(output).to_pylist()]
    elif kind == "xlsx":
        names, cells = openpyxl.load_workbook(output).active.iter_rows(values_only=True)
    else:
        names, cells = csv.reader(io.StringIO(output.read_text("utf-8-sig")), delimiter="\t" if kind == "tsv" else ",")
    assert len(set(names)) == len(names) == len(cells)
    found = dict(zip(names, cells, strict=True))
    assert (found["input_language"], found["input_input_language"], found["input_model"]) == ("b", "c", "d")
    assert (found["input_input_input_language"], found["language"], found["model"]) == ("a", "en", "tiny 0")


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere names of files are always UTF-8")
def test_a_file_whose_name_is_not_utf8_is_scored_and_gone_on_with(tiny: Classifier, tmp_path: Path) -> None:
    folder = tmp_path / os.fsdecode(b"caf\xe9")
    folder.mkdir()
    jsonl(folder / os.fsdecode(b"\xe9.jsonl"), [{"text": TEXTS[0]}, {"id": "x"}])
    (folder / os.fsdecode(b"\xe9.txt")).write_text(TEXTS[0])
    output = folder / "out.jsonl"

    def stop(rows: int, _rejected: int) -> None:
        if rows:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(tiny, [str(folder)], output, progress=stop)
    found, rejects = run(tiny, [str(folder / "*\udce9*")], output, resume=True)
    assert [row["id"] for row in found] == ["1", "\ufffd.txt"]
    assert [reject["place"] for reject in rejects] == ["\ufffd.jsonl:2"]
    _, rejects = run(tiny, [str(folder / "*.jsonl")], tmp_path / "out.jsonl", columns=Columns(text="\udce9"))
    assert [reject["code"] for reject in rejects] == ["missing_text"] * 4


@pytest.mark.parametrize("engine", [(), ("--engine", "onnxruntime")])
def test_workers_without_a_cluster_are_refused(tmp_path: Path, engine: tuple[str, ...]) -> None:
    source = jsonl(tmp_path / "in.jsonl", [{"text": TEXTS[0]}])
    done = runner.invoke(app, ["score", str(source), str(tmp_path / "out.csv"), "--workers", "2", *engine])
    assert done.exit_code == 2
    assert "--workers is for --engine ray" in " ".join(done.output.split())
    assert not (tmp_path / "out.csv").exists()

from __future__ import annotations

import csv
import datetime
import gzip
import io
import json
import os
import random
import re
import signal
import subprocess
import sys
import time
import zipfile
from pathlib import Path
from typing import Any

import openpyxl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner

from models.classifier import Classifier
from models.errors import InputError
from service.cli import app
from service.score import sources, windows
from service.score.here import LocalScorer
from service.score.outputs import check_output, harmless, write_output
from service.score.rows import Columns, count_rows, read_rows
from service.score.score import score
from service.score.sources import find_sources
from service.score.windows import ScoreOptions

runner = CliRunner()
TEXTS = ["They fled the village.", "قالت الوزارة إن العائلات نزحت.", "Rain.", "Gunmen burned the homes of Druze families."]


def run(classifier: Classifier, path: Path | list[str], output: Path, **options: Any) -> tuple[list[dict], list[dict]]:
    inputs = [str(path)] if isinstance(path, Path) else path
    settings = {key: options.pop(key) for key in ("resume", "restart", "progress") if key in options}
    rejects = output.with_suffix(".rejects")
    score(
        LocalScorer(classifier),
        find_sources(inputs, options.pop("input_format", None)),
        str(output),
        str(rejects),
        ScoreOptions(**options),
        partial=output.with_suffix(".partial"),
        **settings,
    )
    assert not output.with_suffix(".partial").exists()
    read = [json.loads(line) for line in output.read_text().splitlines()] if output.suffix == ".jsonl" else []
    return read, [json.loads(line) for line in rejects.read_text().splitlines()] if rejects.exists() else []


def jsonl(path: Path, rows: list[Any]) -> Path:
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))
    return path


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


def broken_files(folder: Path) -> None:
    jsonl(folder / "a.jsonl", [{"id": "a1", "text": TEXTS[0]}])
    with (folder / "a.jsonl").open("ab") as file:
        file.write(b'{"text": "unfinished\n')
        file.write(b'{"id": "a3", "title": "no text"}\r\n')
        file.write(b'{"id": "a4", "text": 5}\n[1]\n"a bare string"\n\n')
        file.write(b'{"id": "a8", "text": "caf\xe9"}\n')
        file.write(json.dumps({"id": "a9", "text": "x" * 1_000_000}).encode() + b"\n")
        file.write(b'{"id": "a10", "text": "a\\u0000b"}\r{"id": "a11", "text": " \\u200b"}\r\n')
    with (folder / "b.csv").open("w", newline="", encoding="utf-8-sig") as file:
        file.write('Id,TEXT,score\r\nb1,"one, with a comma and\na line end",=1+1\nb2,short\nb3,"two",3\r\n')
    (folder / "c.tsv").write_text("النص\tid\n" + f"{TEXTS[1]}\tc1\n", encoding="utf-16")
    book = openpyxl.Workbook()
    book.active.append(["id", "text"])
    book.active.append(["d1", TEXTS[3]])
    book.active.append(["d2", datetime.datetime(2024, 5, 1)])  # noqa: DTZ001 - as Excel has it
    book.active.append(["d3", None])
    book.save(folder / "d.xlsx")
    pq.write_table(pa.table({"id": ["e1", "e2"], "text": [TEXTS[2], None]}), folder / "e.parquet")
    (folder / "f.txt").write_text(TEXTS[0])
    (folder / "g.jsonl.gz").write_bytes(gzip.compress(json.dumps({"id": "g1", "text": TEXTS[0]}).encode()))
    packed = pa.compress(json.dumps({"id": "h1", "text": TEXTS[0]}).encode(), codec="zstd", asbytes=True)
    (folder / "h.jsonl.zst").write_bytes(packed)
    (folder / "notes.md").write_text("not looked at")


def test_broken_rows_are_told_with_place_and_reason_and_the_rest_is_scored(tiny: Classifier, tmp_path: Path) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    broken_files(folder)
    found, rejects = run(tiny, folder, tmp_path / "out.jsonl")
    assert [row["id"] for row in found] == ["a1", "6", "b1", "b3", "c1", "d1", "e1", "f.txt", "g1", "h1"]
    assert [(row["place"], row["code"]) for row in rejects] == [
        ("a.jsonl:2", "invalid_json"),
        ("a.jsonl:3", "missing_text"),
        ("a.jsonl:4", "not_text"),
        ("a.jsonl:5", "invalid_json"),
        ("a.jsonl:8", "not_utf8"),
        ("a.jsonl:9", "text_too_long"),
        ("a.jsonl:10", "nul_character"),
        ("a.jsonl:11", "empty_text"),
        ("b.csv:3", "invalid_csv"),
        ("d.xlsx:3", "not_text"),
        ("d.xlsx:4", "missing_text"),
        ("e.parquet:2", "missing_text"),
    ]
    assert "a date" in rejects[9]["detail"]
    assert len(found) + len(rejects) == max(row["row"] for row in rejects) + 3  # f, g and h come after the last reject
    assert TEXTS[0] not in json.dumps(rejects)


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
    if kind == "parquet":
        read = pq.read_table(output).to_pylist()
    elif kind == "xlsx":
        cells = list(openpyxl.load_workbook(output).active.iter_rows(values_only=True))
        read = [dict(zip(cells[0], line, strict=True)) for line in cells[1:]]
    else:
        content = gzip.decompress(output.read_bytes()) if kind.endswith("gz") else output.read_bytes()
        text = io.StringIO(content.decode("utf-8-sig"))
        read = list(csv.DictReader(text, delimiter="\t" if kind == "tsv" else ","))
    answers = tiny.classify([row["text"] for row in rows], evidence=True)
    assert len(read) == 2
    for row, answer in zip(read, answers, strict=True):
        for label, given in answer.labels.items():
            assert float(row[f"{label}_probability"]) == given.probability
            assert row[f"{label}_decision"] == given.decision
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


def test_an_output_that_fails_half_way_leaves_nothing_under_its_name(tiny: Classifier, tmp_path: Path) -> None:
    def entries() -> Any:
        yield {"id": "a"}
        raise OSError("the disk is full")

    with pytest.raises(OSError, match="full"):
        write_output(str(tmp_path / "out.jsonl"), entries(), tiny.labels)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("names", "columns", "expected"),
    [
        (["Title", "Content"], Columns(), "Content"),
        (["النص", "id"], Columns(), "النص"),
        (["a", "b"], Columns(text="b"), "b"),
    ],
)
def test_the_text_column_is_found_or_named(tmp_path: Path, names: list[str], columns: Columns, expected: str) -> None:
    (tmp_path / "a.csv").write_text(",".join(names) + "\n" + ",".join(f"in {name}" for name in names) + "\n")
    [row] = read_rows(find_sources([str(tmp_path / "a.csv")]), columns, max_characters=100)
    assert row.item is not None
    assert row.item.text == f"in {expected}"


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


def test_a_killed_run_loses_and_doubles_nothing(tmp_path: Path) -> None:
    rows = [{"id": str(n), "text": f"{TEXTS[n % 4]} {n}"} for n in range(4_000)]
    source, output = jsonl(tmp_path / "in.jsonl", rows), tmp_path / "out.jsonl"
    command = [sys.executable, "-m", "service.cli", "score", str(source), str(output), "-q", "--resume"]
    for attempt in range(20):
        process = subprocess.Popen(command, stderr=subprocess.PIPE)
        parts = len(list(tmp_path.glob("out.jsonl.partial/part-*"))) if attempt else 0
        while attempt < 2 and process.poll() is None:
            if len(list(tmp_path.glob("out.jsonl.partial/part-*"))) > parts:
                os.kill(process.pid, signal.SIGKILL)
                break
            time.sleep(0.01)
        _, errors = process.communicate()
        if process.returncode == 0:
            break
        assert process.returncode == -signal.SIGKILL, errors.decode()
    assert [json.loads(line)["id"] for line in output.read_text().splitlines()] == [row["id"] for row in rows]


def test_a_line_that_fills_the_memory_is_rejected_and_the_rest_scored(
    tiny: Classifier, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sources, "_LINE_LIMIT", 100)
    monkeypatch.setattr(sources, "_TOO_LONG", sources.Broken("line_too_long", "long"))
    path = tmp_path / "a.jsonl"
    path.write_text("\n".join(json.dumps(text) for text in ("They fled.", "x" * 350, "Rain.")))
    found, rejects = run(tiny, path, tmp_path / "out.jsonl")
    assert ([row["id"] for row in found], [row["code"] for row in rejects]) == (["1", "3"], ["line_too_long"])
    table = tmp_path / "a.csv"
    table.write_text("id,text\n1,They fled.\n2," + "x" * 350 + "\n3,Rain.\n")
    found, rejects = run(tiny, table, tmp_path / "out.jsonl")
    assert ([row["id"] for row in found], [row["code"] for row in rejects]) == (["1", "3"], ["line_too_long"])


def test_a_packed_file_is_read_up_to_its_limit(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl.gz"
    path.write_bytes(gzip.compress(b'"They fled."\n' * 1_000))
    assert len(list(sources.read_records(sources.Source(str(path), "jsonl", 20_000)))) == 1_000
    with pytest.raises(sources.TooMuchError, match="at most 5000 bytes"):
        list(sources.read_records(sources.Source(str(path), "jsonl", 5_000)))


@pytest.mark.parametrize("kind", ["jsonl", "csv", "parquet", "xlsx"])
def test_files_in_a_store_are_named_by_url(tiny: Classifier, tmp_path: Path, kind: str) -> None:
    (tmp_path / "in" / "deep").mkdir(parents=True)
    rows = [{"id": str(number), "text": text} for number, text in enumerate(TEXTS)]
    run(tiny, jsonl(tmp_path / "in.jsonl", rows), tmp_path / "in" / f"a.{kind}", keep_columns=True)
    jsonl(tmp_path / "in" / "deep" / "b.jsonl", [*rows[:2], {"id": "x"}])
    (tmp_path / "in" / "c.bin").write_bytes(b"0")
    (tmp_path / "out").mkdir()
    url = (tmp_path / "in").as_uri()
    assert len(find_sources([url])) == 2
    assert [Path(source.path).name for source in find_sources([url + "/*/*.jsonl"])] == ["b.jsonl"]
    output = tmp_path / "out" / "all.jsonl"
    score(
        LocalScorer(tiny),
        find_sources([url]),
        output.as_uri(),
        (tmp_path / "out" / "rejects.jsonl").as_uri(),
        ScoreOptions(),
        partial=tmp_path / "partial",
    )
    if kind != "jsonl":  # its own lines have no text
        assert [json.loads(line)["id"] for line in output.read_text().splitlines()] == [*map(str, range(len(TEXTS))), "0", "1"]
    assert "missing_text" in (tmp_path / "out" / "rejects.jsonl").read_text()
    with pytest.raises(InputError, match="make it first"):
        check_output((tmp_path / "none" / "x.csv").as_uri())
    for bad in (url + "/none.jsonl", "nothing://x/y", url + "/c.bin"):
        with pytest.raises(InputError):
            find_sources([bad])


def test_rows_are_counted_for_the_progress_bar_where_that_is_cheap(tmp_path: Path) -> None:
    path = jsonl(tmp_path / "a.jsonl", [{"text": text} for text in TEXTS])
    assert count_rows(find_sources([str(path), str(path)])) == 2 * len(TEXTS)
    assert count_rows(find_sources([str(path), "-"])) is None
    assert count_rows(find_sources([path.as_uri()])) is None
    (tmp_path / "bad.parquet").write_bytes(b"x")
    assert count_rows(find_sources([str(tmp_path / "bad.parquet")])) is None


def test_an_excel_sheet_is_read_whole_whatever_it_says_of_its_size(tiny: Classifier, tmp_path: Path) -> None:
    book = openpyxl.Workbook()
    for row in [["id", "text"], *([str(number), text] for number, text in enumerate(TEXTS))]:
        book.active.append(row)
    book.save(tmp_path / "honest.xlsx")
    with zipfile.ZipFile(tmp_path / "honest.xlsx") as whole, zipfile.ZipFile(tmp_path / "a.xlsx", "w") as lying:
        for entry in whole.namelist():
            content = whole.read(entry)
            if entry.endswith("sheet1.xml"):
                content = re.sub(rb'<dimension ref="[^"]*"', b'<dimension ref="A1"', content)
            lying.writestr(entry, content)
    found, rejects = run(tiny, tmp_path / "a.xlsx", tmp_path / "out.jsonl")
    assert ([row["id"] for row in found], rejects) == ([str(number) for number in range(len(TEXTS))], [])


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
    elif kind == "csv":
        table = list(csv.DictReader(io.StringIO(output.read_text("utf-8-sig"))))
        assert [row["note"] for row in table] == ["x", ""]
        assert [row["input_language"] for row in table] == ["", "de"]
        assert [row["language"] for row in table] == ["en", "en"]
        assert json.loads(table[1]["late"]) == {"deep": [None, "\ufffd"]}


def test_columns_that_nobody_wants_take_no_memory(tmp_path: Path) -> None:
    path = jsonl(tmp_path / "a.jsonl", [{"text": "They fled.", "html": "x" * 1_100_000} for _ in range(9)])
    columns = Columns()
    assert all(not row.columns for row in read_rows(find_sources([str(path)]), columns, max_characters=100))
    kept = read_rows(find_sources([str(path)]), columns, max_characters=100, keep_columns=True)
    assert [len(window) for window in windows.cut_windows(kept)] == [2, 2, 2, 2, 1]


@pytest.mark.parametrize("name", ["a.parquet", "a.xlsx", "a.jsonl.gz", "a.csv"])
def test_a_damaged_file_is_told_and_not_a_traceback(tiny: Classifier, tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    if name == "a.csv":
        path.write_bytes("id,نص\n1,x\n".encode("cp1256"))
    else:
        run(tiny, jsonl(tmp_path / "in.jsonl", [{"text": text} for text in TEXTS * 50]), path)
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(InputError, match=name):
        run(tiny, path, tmp_path / "out.jsonl")


def test_a_record_without_an_end_is_rejected_before_it_fills_the_memory(
    tiny: Classifier, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sources, "_LINE_LIMIT", 100)
    path = tmp_path / "a.csv"
    path.write_text('id,text\n1,They fled.\n2,"' + '","\n' * 80 + '"\n3,Rain.\n')
    found, rejects = run(tiny, path, tmp_path / "out.jsonl")
    assert found[0]["id"] == "1"
    assert rejects[0]["code"] == "line_too_long"


def test_what_a_run_writes_is_not_what_it_reads(tiny: Classifier, tmp_path: Path) -> None:
    jsonl(tmp_path / "a.jsonl", [{"text": TEXTS[0]}])
    (tmp_path / "out.jsonl.partial").mkdir()
    for path in ("out.jsonl", "out.jsonl.partial/part-000001.jsonl"):
        (tmp_path / path).write_text("{}\n")
    own = [tmp_path / "out.jsonl", tmp_path / "out.jsonl.partial"]
    assert [Path(one.path).name for one in find_sources([str(tmp_path)], but=own)] == ["a.jsonl"]
    assert [Path(one.path).name for one in find_sources([str(tmp_path / "*.jsonl")], but=own)] == ["a.jsonl"]
    with pytest.raises(InputError, match="written by this run"):
        find_sources([str(tmp_path / "out.jsonl")], but=own)

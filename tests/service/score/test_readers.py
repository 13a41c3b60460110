"""What is read, from where, and what is done with files that are broken."""

from __future__ import annotations

import csv
import datetime
import gzip
import json
import re
import zipfile
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote

import openpyxl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from models.classifier import Classifier
from models.errors import InputError
from service.score import readers, windows
from service.score.here import LocalScorer
from service.score.outputs import check_output
from service.score.rows import Columns, MissingIdColumnError, count_rows, read_rows
from service.score.score import score
from service.score.sources import Source, find_sources
from service.score.windows import ScoreOptions
from tests.service.score.running import TEXTS, jsonl, run


@pytest.fixture
def short_lines(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Lines and cells may have a hundred characters."""
    monkeypatch.setattr(readers, "_LINE_LIMIT", 100)
    before = csv.field_size_limit()
    yield
    csv.field_size_limit(before)


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


def test_a_line_that_fills_the_memory_is_rejected_and_the_rest_scored(
    tiny: Classifier, tmp_path: Path, short_lines: None
) -> None:
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
    assert len(list(readers.read_records(Source(str(path), "jsonl", 20_000)))) == 1_000
    with pytest.raises(readers.TooMuchError, match="at most 5000 bytes"):
        list(readers.read_records(Source(str(path), "jsonl", 5_000)))


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
    tiny: Classifier, tmp_path: Path, short_lines: None
) -> None:
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


@pytest.mark.parametrize("kind", ["csv", "tsv", "parquet", "xlsx"])
def test_a_column_of_ids_that_was_named_is_there_or_nothing_is_scored(tmp_path: Path, kind: str) -> None:
    path = tmp_path / f"a.{kind}"
    rows = [["text", "ref"], ["They fled.", None], ["Rain.", "r2"]]
    if kind == "parquet":
        pq.write_table(pa.table({"text": ["They fled.", "Rain."], "ref": [None, "r2"]}), path)
    elif kind == "xlsx":
        book = openpyxl.Workbook()
        for row in rows:
            book.active.append(row)
        book.save(path)
    else:
        with path.open("w", newline="") as file:
            csv.writer(file, delimiter="\t" if kind == "tsv" else ",").writerows(rows)
    sources = find_sources([str(path)])
    assert [row.id for row in read_rows(sources, Columns(id="ref"), max_characters=100)] == ["1", "r2"]
    with pytest.raises(MissingIdColumnError, match="--id-column"):
        list(read_rows(sources, Columns(id="reference"), max_characters=100))


def test_a_row_of_json_without_the_id_that_was_named_is_rejected(tiny: Classifier, tmp_path: Path) -> None:
    rows = [{"id": "a", "text": TEXTS[0]}, {"ref": "b", "text": TEXTS[0]}, {"ref": None, "text": TEXTS[0]}]
    path = jsonl(tmp_path / "a.jsonl", rows)
    found, rejects = run(tiny, path, tmp_path / "out.jsonl", columns=Columns(id="ref"))
    assert [row["id"] for row in found] == ["b", "3"]
    assert [(reject["row"], reject["code"]) for reject in rejects] == [(1, "missing_id")]


@pytest.mark.parametrize("folder", ["plain", "with space", "أخبار", "a#b [1] %20"])
def test_a_folder_in_a_store_may_be_called_anything(tiny: Classifier, tmp_path: Path, folder: str) -> None:
    names = ["deep/خبر.txt", "a b.txt", "q?x#y.txt", "100%.txt"]
    for name in names:
        path = tmp_path / folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"{TEXTS[0]} {name}")
    url = (tmp_path / folder).as_uri()
    for given in (url, url + "/", url + "/*.txt", url + "/?"):
        found = find_sources([given])
        assert [source.name for source in found] == ["100%.txt", "a b.txt", "خبر.txt", "q?x#y.txt"]
        rows = list(read_rows(found, Columns(), max_characters=100))
        assert [row.item.text for row in rows if row.item] == [f"{TEXTS[0]} {name}" for name in sorted(names)]
        assert [row.id for row in rows] == [source.name for source in found]
        assert all(source.facts[0] for source in found)
    for given in (url + "/deep/خبر.txt", url + "/deep/" + quote("خبر.txt"), url + "/deep/خ*", url + "/deep/%D8%AE*"):
        [source] = find_sources([given])
        [row] = read_rows([source], Columns(), max_characters=100)
        assert (row.id, row.place) == ("خبر.txt", "خبر.txt:1")
    if "%" not in folder:  # as people write it
        assert len(find_sources([f"file://{tmp_path}/{folder}/"])) == 4

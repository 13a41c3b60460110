from __future__ import annotations

import gzip
import hashlib
import json
from pathlib import Path

import pytest

from models.errors import ExampleFormatError, InputError
from training.rows import in_share, load_dataset, source_document
from training.standoff import resolve_annotations, text_digest


def write(path: Path, rows: list[dict]) -> Path:
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
    return path


def row(i: int, text: str | None = None, labels: list[str] | None = None, document: int | None = None) -> dict:
    return {"id": f"d{i if document is None else document}#{i}", "text": text or f"text number {i}", "labels": labels or []}


def test_documents_are_never_torn_apart(tmp_path: Path, taxonomy) -> None:
    rows = [row(i, document=i // 3) for i in range(300)]
    dataset = load_dataset([write(tmp_path / "a.jsonl", rows)], taxonomy, validation_share=0.2)
    train, validation = ({r.document for r in part} for part in (dataset.train, dataset.validation))
    assert not train & validation
    assert 5 < len(validation) < 40


def test_adding_rows_moves_no_old_row_to_the_other_side(tmp_path: Path, taxonomy) -> None:
    rows = [row(i) for i in range(200)]
    before = {r.id for r in load_dataset([write(tmp_path / "a.jsonl", rows[:100])], taxonomy).validation}
    after = {r.id for r in load_dataset([write(tmp_path / "a.jsonl", rows)], taxonomy).validation}
    assert before <= after


def test_the_same_text_is_kept_once_and_a_contradiction_is_doubted(tmp_path: Path, taxonomy) -> None:
    rows = [row(i) for i in range(60)]
    rows += [row(100, "قَالَ الوزير"), row(101, "قال الوزير", ["official_statement"]), row(102, "قال  الوزير")]
    dataset = load_dataset([write(tmp_path / "a.jsonl", rows)], taxonomy)
    kept = [r for r in (*dataset.train, *dataset.validation) if r.text == "قال الوزير"]
    assert [(r.id, r.unsure) for r in kept] == [("d100#100", True)]
    assert dataset.dropped_duplicates == 2


def test_corrections_take_the_place_of_the_labels_of_the_same_text(tmp_path: Path, taxonomy) -> None:
    rows = [row(i) for i in range(60)] + [row(100, "They fled."), row(101, "He said so.", ["displacement"])]
    corrected = [
        {"id": "d101#101", "sha256": text_digest("He said so."), "labels": ["official_statement"], "unsure": True},
        {"id": "none", "sha256": text_digest("Nowhere."), "labels": []},
    ]
    data, file = write(tmp_path / "a.jsonl", rows), write(tmp_path / "again.jsonl", corrected)
    dataset = load_dataset([data], taxonomy, corrections=[file])
    kept = {r.text: r for r in (*dataset.train, *dataset.validation)}
    assert (kept["He said so."].targets, kept["He said so."].unsure) == ((0, 0, 1, 0), True)
    assert (kept["They fled."].targets, kept["They fled."].unsure) == ((0, 0, 0, 0), False)
    assert "corrections/again.jsonl" in dataset.digests
    with pytest.raises(ExampleFormatError, match=r"again\.jsonl:1: unknown label 'other'"):
        load_dataset([data], taxonomy, corrections=[write(file, [{"sha256": "0", "labels": ["other"]}])])
    twice = [{"sha256": "AB", "labels": []}, {"sha256": "ab", "labels": []}, {"sha256": "ab", "labels": ["displacement"]}]
    with pytest.raises(ExampleFormatError, match=r"again\.jsonl:3: the text was corrected otherwise"):
        load_dataset([data], taxonomy, corrections=[write(file, twice)])
    with pytest.raises(ExampleFormatError, match="lacks labels"):
        load_dataset([data], taxonomy, corrections=[write(file, [{"sha256": "0"}])])


def test_validation_rows_can_be_given(tmp_path: Path, taxonomy) -> None:
    train = write(tmp_path / "a.jsonl", [row(i) for i in range(9)])
    validation = write(tmp_path / "v.jsonl", [row(i) for i in range(20, 24)])
    dataset = load_dataset([train], taxonomy, validation_paths=[validation])
    assert (len(dataset.train), len(dataset.validation)) == (9, 4)


def test_nothing_of_given_validation_files_is_trained_on(tmp_path: Path, taxonomy) -> None:
    rows = [row(i) for i in range(6)] + [row(50, "told twice"), row(51, document=20), {"id": "7", "text": "a", "labels": []}]
    train = write(tmp_path / "a.jsonl", rows)
    judged = [row(20), row(21), row(22, "told twice"), {"id": "7", "text": "another text of that name", "labels": []}]
    dataset = load_dataset([train], taxonomy, validation_paths=[write(tmp_path / "v.jsonl", judged)])
    assert {r.id for r in dataset.validation} == {"d20#20", "d21#21", "d22#22", "7"}
    assert {r.text for r in dataset.train} == {*(f"text number {i}" for i in range(6)), "a"}


def test_what_evaluation_files_hold_is_in_neither_part(tmp_path: Path, taxonomy) -> None:
    wire = "The ministry said on Monday that nine families had left the village of Kafr after the raid"
    rows = [row(i) for i in range(60)]
    rows += [
        row(70, f"{wire}."),
        row(71, f"Earlier, {wire.lower()}"),
        row(72, " ".join(wire.split()[:9])),
        row(73, document=90),
    ]
    rows += [
        row(74, "They left. Nobody came back to the village before the winter of that year."),
        {"id": "5", "text": "b", "labels": []},
    ]
    passages = write(
        tmp_path / "dev.jsonl", [row(80, f"{wire}, agencies say"), row(81, document=90), {"id": "5", "text": "c", "labels": []}]
    )
    sentences = [
        {"text": "Nobody came back to the village", "labels": []},
        {"text": "before the winter of that year.", "labels": []},
    ]
    articles = write(tmp_path / "docs.jsonl", [{"id": "a", "sentences": sentences}])
    dataset = load_dataset([write(tmp_path / "a.jsonl", rows)], taxonomy, exclude=[passages, articles])
    assert dataset.excluded == 4
    left = {r.id for r in (*dataset.train, *dataset.validation)}
    assert {"d72#72", "5"} <= left
    assert not {"d70#70", "d71#71", "d90#73", "d74#74"} & left
    with pytest.raises(ExampleFormatError, match=r"docs\.jsonl:1: expected an article with id and sentences"):
        load_dataset([tmp_path / "a.jsonl"], taxonomy, exclude=[write(articles, [{"id": "a", "sentences": ["x"]}])])


def test_sentences_of_a_story_are_of_its_document(taxonomy) -> None:
    assert source_document("india_police_events_sents:1216.9#0") == source_document("india_police_events:1216#7")
    assert source_document("ant_cnn:CN-1-2#3") == "ant_cnn:CN-1-2"


def test_files_of_one_name_keep_their_digests_apart(tmp_path: Path, taxonomy) -> None:
    for folder in ("one", "two"):
        (tmp_path / folder).mkdir()
        write(tmp_path / folder / "a.jsonl", [row(i, f"{folder} {i}") for i in range(40)])
    dataset = load_dataset([tmp_path / "one", tmp_path / "two"], taxonomy)
    assert list(dataset.digests) == ["one/a.jsonl", "two/a.jsonl"]
    assert len(set(dataset.digests.values())) == 2


def test_an_empty_part_is_told(tmp_path: Path, taxonomy) -> None:
    with pytest.raises(InputError, match="expected rows for training and for validation, got"):
        load_dataset([write(tmp_path / "a.jsonl", [row(1)])], taxonomy)


def test_a_folder_stands_for_its_files(tmp_path: Path, taxonomy) -> None:
    for name in ("b.jsonl", "a.jsonl"):
        write(tmp_path / name, [row(i, f"{name} {i}") for i in range(40)])
    (tmp_path / "README.md").write_text("not data")
    dataset = load_dataset([tmp_path], taxonomy)
    assert list(dataset.digests) == ["a.jsonl", "b.jsonl"]
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="found none"):
        load_dataset([tmp_path / "empty"], taxonomy)


def test_shares_are_about_right() -> None:
    assert sum(in_share(str(i), 0.25) for i in range(4_000)) == pytest.approx(1_000, abs=100)


def standoff(text: str, **changes: object) -> dict:
    found = {"id": "p#1", "lang": "en", "sha256": hashlib.sha256(text.encode()).hexdigest(), "labels": ["displacement"]}
    return {**found, **changes}


def test_standoff_labels_find_their_texts(tmp_path: Path, taxonomy) -> None:
    labels = write(tmp_path / "labels.jsonl", [standoff("they fled", unsure=True)])
    pool = tmp_path / "pool.jsonl.gz"
    with gzip.open(pool, "wt") as handle:
        handle.write('{"id": "p#0", "text": "others"}\n{"id": "p#1", "text": "they fled"}\n')
    [example], digests = resolve_annotations([labels], [pool], taxonomy)
    assert (example.text, example.labels, example.unsure) == ("they fled", {"displacement"}, True)
    assert list(digests) == ["labels.jsonl"]


def test_two_readings_of_a_text_that_differ_are_doubted(tmp_path: Path, taxonomy) -> None:
    texts = [{"id": f"p{i}#1", "text": f"passage {i}"} for i in range(60)]
    pool = write(tmp_path / "pool.jsonl", texts)
    first = [standoff(one["text"], id=one["id"]) for one in texts]
    again = [standoff("passage 3", id="p3#1", labels=[]), standoff("passage 4", id="p4#1")]
    again[0]["sha256"] = again[0]["sha256"].upper()
    (tmp_path / "second").mkdir()
    files = [write(tmp_path / "pool-en.jsonl", first), write(tmp_path / "second" / "pool-en.jsonl", again)]
    dataset = load_dataset([write(tmp_path / "a.jsonl", [row(1), row(2)])], taxonomy, annotations=files, collections=[pool])
    assert {r.id for r in (*dataset.train, *dataset.validation) if r.unsure} == {"p3#1"}
    assert dataset.dropped_duplicates == 2
    assert len(dataset.digests) == 3


def test_standoff_faults_are_told(tmp_path: Path, taxonomy) -> None:
    pool = write(tmp_path / "pool.jsonl", [{"id": "p#1", "text": "changed since"}])
    with pytest.raises(ExampleFormatError, match=r"labels\.jsonl:1: the text of 'p#1' is in none of the 1 collections"):
        resolve_annotations([write(tmp_path / "labels.jsonl", [standoff("they fled")])], [pool], taxonomy)
    with pytest.raises(ExampleFormatError, match="the row lacks sha256"):
        resolve_annotations([write(tmp_path / "labels.jsonl", [{"id": "a", "lang": "en", "labels": []}])], [pool], taxonomy)
    for fault, told in (
        ({"labels": ["war"]}, "unknown label 'war'"),
        ({"labels": "displacement"}, "expected labels to be a list of names"),
        ({"labels": None}, "expected labels to be a list of names"),
        ({"unsure": "false"}, "expected unsure to be true or false, got str"),
    ):
        with pytest.raises(ExampleFormatError, match=rf"labels\.jsonl:1: {told}"):
            resolve_annotations([write(tmp_path / "labels.jsonl", [standoff("x", **fault)])], [pool], taxonomy)
    titles = write(tmp_path / "titles.jsonl", [{"id": "p#1", "title": "they fled"}])
    with pytest.raises(ExampleFormatError, match=r"titles\.jsonl:1: expected a field text"):
        resolve_annotations([write(tmp_path / "labels.jsonl", [standoff("they fled")])], [titles], taxonomy)

"""Out to Label Studio and back, and from labelled files to standoff rows."""

from __future__ import annotations

import json
from pathlib import Path
from xml.etree import ElementTree

import pytest
from hypothesis import given
from hypothesis import strategies as st

from models.errors import ExampleFormatError, InputError
from models.taxonomy import load_taxonomy
from training.jsonl import to_json, write_text
from training.labelstudio import labelling_config, read_export, task
from training.readings import read_readings, standoff_rows
from training.standoff import resolve_annotations, text_digest

TAXONOMY = load_taxonomy()
LABELS = TAXONOMY.label_ids


def passage(number: int = 1, text: str | None = None, **more: object) -> dict:
    row = {"id": f"d{number}#0", "lang": "en", "source": "news", "text": text or f"text {number}", "chosen": "random"}
    return {**row, **more}


def result(control: str, *choices: str) -> dict:
    return {"from_name": control, "to_name": "text", "type": "choices", "value": {"choices": list(choices)}}


def annotation(*labels: str, by: object = 1, unsure: bool = False, **more: object) -> dict:
    results = [result("labels", *labels)] * bool(labels) + [result("unsure", "unsure")] * unsure
    return {"id": 7, "completed_by": by, "was_cancelled": False, "result": results, **more}


def annotated(row: dict, *annotations: dict, number: int = 1) -> dict:
    return {"id": number, **task(row), "annotations": list(annotations), "predictions": [], "drafts": []}


def as_min(tasks: list[dict]) -> list[dict]:
    """JSON-MIN as Label Studio's converter makes it of the JSON export."""
    rows = []
    for one in tasks:
        for item in one["annotations"]:
            if item["was_cancelled"]:
                continue
            row = {**one["data"], "id": one["id"]}
            for part in item["result"]:
                choices = part["value"]["choices"]
                row[part["from_name"]] = choices[0] if len(choices) == 1 else {"choices": choices}
            by = item["completed_by"]
            rows.append({**row, "annotator": by.get("email") if isinstance(by, dict) else by, "annotation_id": item["id"]})
    return rows


def export(path: Path, tasks: list[dict]) -> Path:
    write_text(path, to_json(tasks))
    return path


def test_the_form_names_the_labels_in_both_languages_and_lets_the_text_choose_its_direction() -> None:
    form = ElementTree.fromstring(labelling_config(TAXONOMY))
    choices = {choice.get("alias"): choice.get("value") for choice in form.iter("Choice")}
    assert list(choices) == [*LABELS, "unsure"]
    assert choices["displacement"] == "Displacement / نزوح وتهجير"
    assert {one.get("choice") for one in form.iter("Choices")} == {"multiple"}
    assert [one.get("value") for one in form.iter("Text")] == ["$text"]
    style = form.find("Style")
    assert style is not None
    assert "unicode-bidi: plaintext" in (style.text or "")
    shown = ElementTree.fromstring(labelling_config(TAXONOMY, show_probabilities=True))
    assert [one.get("value") for one in shown.iter("Text")] == ["$text", "$probabilities"]


def test_probabilities_are_in_a_task_only_where_they_are_shown() -> None:
    assert "probabilities" not in task(passage())["data"]
    assert task(passage(probabilities={"displacement": 0.934}))["data"]["probabilities"] == "displacement 0.93"


# Lone surrogates come in by JSON escapes; an export must survive them.
texts = st.text(min_size=1, max_size=30).filter(lambda text: bool(text.strip()))
answers = st.lists(
    st.tuples(texts, st.sets(st.sampled_from(LABELS)), st.booleans(), st.sampled_from(["ar", "en"])), min_size=1, max_size=6
)


@given(answers)
def test_what_is_annotated_comes_back_from_both_exports(tmp_path_factory: pytest.TempPathFactory, rows: list) -> None:
    tasks = [
        annotated(
            passage(n, text, lang=lang), annotation(*sorted(labels), unsure=unsure, by={"id": 3, "email": "a@b"}), number=n
        )
        for n, (text, labels, unsure, lang) in enumerate(rows, 100)
    ]
    folder = tmp_path_factory.mktemp("export")
    wanted = [(f"d{n}#0", text, labels, unsure, lang, "a@b") for n, (text, labels, unsure, lang) in enumerate(rows, 100)]
    exports = [tasks, as_min(tasks)] if any(labels for _, labels, _, _ in rows) else [tasks]
    for content in exports:
        found = read_export(export(folder / "e.json", content), TAXONOMY)
        assert [(e.id, e.text, e.labels, e.unsure, e.lang, e.extra["annotator"]) for e in found] == wanted
        assert {(e.source, e.extra["chosen"]) for e in found} == {("news", "random")}


def test_every_annotator_counts_but_not_the_cancelled_nor_the_tasks_nobody_did(tmp_path: Path) -> None:
    tasks = [
        annotated(passage(1), annotation("displacement", by=1), annotation(by=2), number=1),
        annotated(passage(2), annotation("displacement", was_cancelled=True), number=2),
        annotated(passage(3), number=3),
    ]
    flat = [*as_min(tasks), {**passage(4), "id": 4, "annotator": None, "annotation_id": None}]
    for content in (tasks, flat):
        found = read_export(export(tmp_path / "e.json", content), TAXONOMY)
        assert [(e.id, e.extra["annotator"], set(e.labels)) for e in found] == [
            ("d1#0", "1", {"displacement"}),
            ("d1#0", "2", set()),
        ]


def test_of_one_annotator_the_newest_counts_and_nameless_ones_are_not_mixed_up(tmp_path: Path) -> None:
    tasks = [
        annotated(
            passage(1),
            annotation("displacement", updated_at="2026-01-02T00:00:00Z"),
            annotation("official_statement", updated_at="2026-01-01T00:00:00Z"),
        ),
        annotated(passage(2), annotation("displacement", by=None), annotation(by=None)),
    ]
    found = read_export(export(tmp_path / "e.json", tasks), TAXONOMY)
    assert [(e.id, set(e.labels), e.extra["annotator"]) for e in found] == [
        ("d1#0", {"displacement"}, "1"),
        ("d2#0", {"displacement"}, "#1"),
        ("d2#0", set(), "#2"),
    ]


def test_names_shown_are_understood_as_well_as_ids(tmp_path: Path) -> None:
    names = ["Displacement / نزوح وتهجير", "تصريح رسمي", "Call for accountability", "Unsure / غير متأكد"]
    [example] = read_export(export(tmp_path / "e.json", [annotated(passage(), annotation(*names))]), TAXONOMY)
    assert (example.labels, example.unsure) == ({"displacement", "official_statement", "accountability_call"}, True)


def test_tasks_of_another_making_get_ids_of_their_file(tmp_path: Path) -> None:
    tasks = [{"id": 12, "data": {"text": "theirs"}, "annotations": [annotation("displacement")]}]
    [example] = read_export(export(tmp_path / "e.json", tasks), TAXONOMY)
    [flat] = read_export(export(tmp_path / "f.json", as_min(tasks)), TAXONOMY)
    assert (example.id, flat.id) == ("e.json:task 1", "f.json:12")


def test_a_form_with_other_names_is_refused_instead_of_read_as_no_labels(tmp_path: Path) -> None:
    tasks = [annotated(passage(), {**annotation(), "result": [result("topic", "Displacement")]})]
    for content, got in ((tasks, "topic"), (as_min(tasks), "none")):
        with pytest.raises(ExampleFormatError, match=f"expected choices of a control named 'labels', got {got}"):
            read_export(export(tmp_path / "e.json", content), TAXONOMY)
    tasks.append(annotated(passage(2), annotation("displacement")))
    assert len(read_export(export(tmp_path / "e.json", tasks), TAXONOMY)) == 2


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", r"e\.json:1: expected JSON"),
        ("{}", "expected a list of tasks"),
        ('[{"data": {"html": "x"}}]', "task 1: expected data with a field 'text'"),
        ("[]", "the export has none that was submitted"),
        ('[{"data": {"text": "x"}, "annotations": 3}]', "expected annotations and results to be lists"),
        (to_json([annotated(passage(), annotation("war"))]), "task 1: unknown choice 'war'; expected sectarian_violence"),
        (to_json([{**passage(), "annotation_id": 1, "labels": 3}]), "expected choices to be names, got int"),
    ],
)
def test_faults_of_an_export_are_told_without_a_text(tmp_path: Path, content: str, message: str) -> None:
    (tmp_path / "e.json").write_text(content, encoding="utf-8")
    with pytest.raises(ExampleFormatError, match=message) as caught:
        read_export(tmp_path / "e.json", TAXONOMY)
    assert "text 1" not in str(caught.value)


def test_a_missing_export_and_another_encoding_are_told(tmp_path: Path) -> None:
    with pytest.raises(ExampleFormatError, match="found none"):
        read_export(tmp_path / "none.json", TAXONOMY)
    (tmp_path / "e.json").write_bytes(b'["\xff"]')
    with pytest.raises(ExampleFormatError, match="expected UTF-8, byte 2 is not"):
        read_export(tmp_path / "e.json", TAXONOMY)


# Standoff rows


def labelled(path: Path, rows: list[dict]) -> Path:
    write_text(path, "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))
    return path


def test_labelled_rows_become_standoff_rows_that_training_finds_the_texts_of(tmp_path: Path) -> None:
    rows = [
        passage(1, labels=["official_statement", "displacement"], unsure=True),
        passage(2, "قالت الوزارة إن العائلات نزحت", lang="", labels=[], chosen=""),
    ]
    path = labelled(tmp_path / "a.jsonl", rows)
    found = standoff_rows(path, TAXONOMY)
    assert found[0] == {
        "id": "d1#0",
        "lang": "en",
        "sha256": text_digest("text 1"),
        "labels": ["displacement", "official_statement"],
        "unsure": True,
        "chosen": "random",
    }
    assert (found[1]["lang"], "chosen" in found[1]) == ("ar", False)
    standoff = labelled(tmp_path / "s.jsonl", found)
    examples, _ = resolve_annotations([standoff], [path], TAXONOMY)
    assert [(e.id, e.text, sorted(e.labels), e.unsure) for e in examples] == [
        (row["id"], row["text"], sorted(row["labels"]), row.get("unsure", False)) for row in rows
    ]
    assert standoff_rows(standoff, TAXONOMY) == found


def test_csv_and_exports_become_the_same_rows(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("id,lang,text,labels,chosen\nd1#0,en,text 1,displacement,random\n")
    path = export(tmp_path / "e.json", [annotated(passage(1), annotation("displacement"))])
    assert standoff_rows(tmp_path / "a.csv", TAXONOMY) == standoff_rows(path, TAXONOMY)


def test_annotators_who_agree_become_one_row_and_others_are_refused(tmp_path: Path) -> None:
    agree = annotated(passage(1), annotation("displacement", by=1), annotation("displacement", by=2, unsure=True))
    [row] = standoff_rows(export(tmp_path / "e.json", [agree]), TAXONOMY)
    assert (row["labels"], row["unsure"]) == (["displacement"], True)
    differ = annotated(passage(2), annotation("displacement", by=1), annotation(by=2), number=2)
    path = export(tmp_path / "e.json", [agree, differ])
    with pytest.raises(InputError, match=r"1 readings differ .*d2#0 \(.*task 2: displacement by 1, .*task 2: none by 2\)"):
        standoff_rows(path, TAXONOMY)
    assert [row["labels"] for row in standoff_rows(path, TAXONOMY, ["2"])] == [["displacement"], []]
    with pytest.raises(InputError, match="expected annotations by '9', the file has some by 1, 2"):
        standoff_rows(path, TAXONOMY, ["9"])


def test_a_passage_or_an_id_that_comes_twice_is_refused_without_its_text(tmp_path: Path) -> None:
    same = [passage(1, "one text", labels=[]), passage(2, "one  text", labels=["displacement"])]
    with pytest.raises(InputError, match=r"expected each passage once, 1 come again: d2#0 \(.*row 1, .*row 2\)") as caught:
        standoff_rows(labelled(tmp_path / "a.jsonl", same), TAXONOMY)
    assert "one text" not in str(caught.value)
    tasks = [annotated(passage(1, text), annotation("displacement"), number=n) for n, text in enumerate(("one", "two"))]
    with pytest.raises(InputError, match="expected an id for each passage, 1 name another text too: d1#0"):
        standoff_rows(export(tmp_path / "e.json", tasks), TAXONOMY)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"labels": ["war"]}, "unknown label 'war'"),
        ({"labels": "displacement"}, "expected labels to be a list of names"),
        ({"unsure": "no"}, "expected unsure to be true or false, got str"),
        ({"lang": None}, "the row lacks lang"),
    ],
)
def test_faults_of_standoff_rows_are_told_with_their_line(tmp_path: Path, change: dict, message: str) -> None:
    good = {"id": "a", "lang": "en", "sha256": "0" * 64, "labels": []}
    bad = {name: value for name, value in {**good, **change}.items() if value is not None}
    with pytest.raises(ExampleFormatError, match=rf"s\.jsonl:2: {message}"):
        read_readings(labelled(tmp_path / "s.jsonl", [good, bad]), TAXONOMY)


def test_packed_labelled_rows_are_refused_clearly(tmp_path: Path) -> None:
    import gzip

    (tmp_path / "a.jsonl.gz").write_bytes(gzip.compress(b'{"text": "x", "labels": []}\n'))
    with pytest.raises(ExampleFormatError, match="unpack it first"):
        read_readings(tmp_path / "a.jsonl.gz", TAXONOMY)

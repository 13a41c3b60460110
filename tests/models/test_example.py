from __future__ import annotations

from pathlib import Path

import pytest

from models.errors import ExampleFormatError, TaxonomyError
from models.example import digest_examples, read_examples
from models.taxonomy import Taxonomy, load_taxonomy


def write(path: Path, content: str | bytes) -> Path:
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


def test_jsonl_and_csv_hold_the_same_examples(tmp_path: Path, taxonomy: Taxonomy) -> None:
    jsonl = write(
        tmp_path / "a.jsonl",
        '\ufeff{"id": "d#1", "text": "نزحوا، أمس", "labels": ["displacement"], "unsure": true, "year": 1998}\n\n'
        '{"id": "d#2", "text": "They said so", "labels": ["official_statement", "displacement"]}\n',
    )
    csv = write(
        tmp_path / "a.csv",
        'id,text,labels,unsure\r\nd#1,"نزحوا، أمس",displacement,yes\r\nd#2,They said so,displacement | official_statement,\r\n',
    )
    one, two = read_examples(jsonl, taxonomy), read_examples(csv, taxonomy)
    assert one == two
    assert one[0].document == "d"
    assert one[0].extra == {"year": 1998}
    assert digest_examples(one) == digest_examples(two)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ('{"text": "a", "labels": []}\n{"text": "b"', r"a\.jsonl:2: expected a JSON object"),
        ("[1]\n", r"a\.jsonl:1: expected a JSON object, got list"),
        ('{"labels": []}\n', r"a\.jsonl:1: expected a field 'text'"),
        ('{"text": "a"}\n', r"a\.jsonl:1: expected a field 'labels'"),
        ('{"text": 5, "labels": []}\n', r"expected text to be a string, got int"),
        ('{"text": " ", "labels": []}\n', r"a\.jsonl:1: the text is empty"),
        ('{"text": "a", "labels": ["war"]}\n', r"a\.jsonl:1: unknown label 'war'"),
        ('{"text": "a", "labels": {}}\n', r"expected labels to be a list"),
        ('{"text": "a", "labels": [], "unsure": "perhaps"}\n', r"expected unsure to be true or false, got 'perhaps'"),
        ('{"id": "x", "text": "a", "labels": []}\n{"id": "x", "text": "b", "labels": []}\n', r":2: id 'x' was used in line 1"),
        (b'{"text": "\xff", "labels": []}\n', r"a\.jsonl:1: expected UTF-8"),
        ("", r"expected at least one labelled example"),
    ],
)
def test_a_fault_is_told_with_file_and_line(tmp_path: Path, taxonomy: Taxonomy, content: str | bytes, message: str) -> None:
    with pytest.raises(ExampleFormatError, match=message):
        read_examples(write(tmp_path / "a.jsonl", content), taxonomy)


PASSAGE = "Gunmen burned the homes of forty families"


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.jsonl", f'{{"text": "a", "labels": ["{PASSAGE}"]}}\n', "unknown label a value of 41 characters; taxonomy"),
        ("a.jsonl", f'{{"text": "a", "labels": ["displacement", "{"x" * 41}"]}}\n', "unknown label a value of 41 characters"),
        ("a.jsonl", f'{{"text": "a", "labels": [], "unsure": "{PASSAGE}"}}\n', "true or false, got a value of 41 characters"),
        ("a.csv", f"1,{PASSAGE}\n2,They fled\n", r"the row has 1 and 1 that look like no names \(is there a header\?\)"),
    ],
)
def test_a_fault_never_tells_what_may_be_a_text(
    tmp_path: Path, taxonomy: Taxonomy, name: str, content: str, message: str
) -> None:
    with pytest.raises(ExampleFormatError, match=message) as raised:
        read_examples(write(tmp_path / name, content), taxonomy)
    assert "Gunmen" not in str(raised.value)
    assert "xxx" not in str(raised.value)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("id,text\n1,a\n", r"a\.csv:2: expected a field 'labels'"),
        ("text,labels\na,,extra\n", r"more cells than the header"),
        (b"text,labels\n\xff,\n", r"expected UTF-8"),
        ('text,labels\n"open,\n', r"not readable as CSV"),
    ],
)
def test_a_fault_in_a_csv_is_told(tmp_path: Path, taxonomy: Taxonomy, content: str | bytes, message: str) -> None:
    with pytest.raises(ExampleFormatError, match=message):
        read_examples(write(tmp_path / "a.csv", content), taxonomy)


def test_a_missing_file_is_told(tmp_path: Path, taxonomy: Taxonomy) -> None:
    with pytest.raises(ExampleFormatError, match="found none"):
        read_examples(tmp_path / "none.jsonl", taxonomy)


def test_the_taxonomy_defines_every_label_in_both_languages(taxonomy: Taxonomy) -> None:
    assert taxonomy.label_ids == ("sectarian_violence", "displacement", "official_statement", "accountability_call")
    assert all(set(label.name) == set(label.definition) == {"ar", "en"} for label in taxonomy.labels)


@pytest.mark.parametrize("content", ["{}", "no", '{"name":"n","version":"1","languages":["en"],"labels":[]}'])
def test_a_broken_taxonomy_is_told(tmp_path: Path, content: str) -> None:
    with pytest.raises(TaxonomyError, match="is not a taxonomy"):
        load_taxonomy(write(tmp_path / "t.json", content))


def test_two_labels_of_one_name_are_refused(tmp_path: Path) -> None:
    label = '{"id": "a", "name": {"en": "A"}}'
    content = f'{{"name": "n", "version": "1", "languages": ["en"], "labels": [{label}, {label}]}}'
    with pytest.raises(TaxonomyError, match="must differ"):
        load_taxonomy(write(tmp_path / "t.json", content))

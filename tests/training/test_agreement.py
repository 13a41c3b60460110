"""Two annotations of the same passages: how they are paired and how far they agree."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from sklearn.metrics import accuracy_score, cohen_kappa_score, f1_score

from models.errors import InputError
from models.taxonomy import load_taxonomy
from tests.training.test_labelstudio import annotated, annotation, export, labelled, passage
from training.agreement import Agreement, krippendorff_alpha, label_agreement, measure_agreement
from training.pairing import read_sides
from training.readings import standoff_rows
from training.standoff import text_digest

TAXONOMY = load_taxonomy()
sides = st.integers(1, 60).flatmap(lambda n: st.tuples(*[st.lists(st.booleans(), min_size=n, max_size=n)] * 2))


def compare(first: Path, second: Path | None = None, **options) -> Agreement:
    return measure_agreement(read_sides(first, second, TAXONOMY, **options), TAXONOMY)


def figures(first: list[bool], second: list[bool], seed: int = 1):
    return label_agreement(np.array(first), np.array(second), language="en", label="displacement", seed=seed)


def rows(*labels: list[str], **more: object) -> list[dict]:
    return [passage(number, labels=found, **more) for number, found in enumerate(labels)]


# Figures


@given(sides)
def test_figures_are_those_of_scikit_learn(both: tuple[list[bool], list[bool]]) -> None:
    first, second = both
    found = figures(first, second)
    assert found.raw == pytest.approx(accuracy_score(first, second))
    assert (found.first, found.second, found.rows) == (sum(first), sum(second), len(first))
    if any(first) or any(second):
        assert found.f1 == pytest.approx(f1_score(first, second, zero_division=0))
    else:
        assert found.f1 is found.f1_interval is None
    if len({*first, *second}) > 1:
        assert found.kappa == pytest.approx(cohen_kappa_score(first, second))
    else:
        assert found.kappa is found.alpha is None


@given(sides)
def test_no_side_is_the_truth(both: tuple[list[bool], list[bool]]) -> None:
    there, back = figures(*both), figures(both[1], both[0])
    assert (there.raw, there.f1, there.f1_interval) == (back.raw, back.f1, back.f1_interval)
    assert there.kappa == pytest.approx(back.kappa)
    assert there.alpha == pytest.approx(back.alpha)


@given(sides)
def test_full_agreement_is_one_on_every_scale(both: tuple[list[bool], list[bool]]) -> None:
    first, _ = both
    assume(len(set(first)) == 2)
    found = figures(first, first)
    assert (found.raw, found.kappa, found.alpha, found.f1, found.f1_interval) == (1.0, 1.0, 1.0, 1.0, (1.0, 1.0))


def test_alpha_is_that_of_krippendorffs_own_example() -> None:
    # Krippendorff 2011, example A: binary data, two observers, no missing data; alpha 0.095.
    meg = np.array([0, 1, 0, 0, 0, 0, 0, 0, 1, 0], dtype=bool)
    owen = np.array([1, 1, 1, 0, 0, 1, 0, 0, 0, 0], dtype=bool)
    assert krippendorff_alpha(meg, owen) == pytest.approx(0.095, abs=5e-4)


def test_kappa_is_that_of_a_case_by_hand() -> None:
    # 20 both, 5 first only, 10 second only, 15 neither: raw 0.7, expected 0.5, kappa 0.4; F1 40/55.
    first = [True] * 25 + [False] * 25
    second = [True] * 20 + [False] * 5 + [True] * 10 + [False] * 15
    found = figures(first, second)
    assert (found.raw, found.kappa, found.f1) == (pytest.approx(0.7), pytest.approx(0.4), pytest.approx(40 / 55))


def test_the_interval_is_that_of_resampled_rows() -> None:
    generator = np.random.default_rng(1)
    first = generator.random(150) < 0.3
    second = first ^ (generator.random(150) < 0.1)
    draws = [generator.integers(0, 150, 150) for _ in range(2_000)]
    expected = np.percentile([f1_score(first[draw], second[draw]) for draw in draws], [2.5, 97.5])
    found = figures(first.tolist(), second.tolist())
    assert found.f1_interval == pytest.approx(expected, abs=0.02)
    assert found.f1_interval == figures(first.tolist(), second.tolist()).f1_interval


# Pairing


def test_two_files_are_compared_by_label_and_language(tmp_path: Path) -> None:
    one = rows(["displacement"], ["displacement"], [], ["official_statement"])
    other = rows(["displacement"], [], [], ["official_statement"])
    for row in (one[3], other[3]):
        row["lang"] = "ar"
    other[1]["unsure"] = True
    found = compare(labelled(tmp_path / "a.jsonl", one), labelled(tmp_path / "b.jsonl", other))
    assert (found.first, found.second, found.common, found.identical) == ("a.jsonl", "b.jsonl", 4, 3)
    assert (found.unsure_first, found.unsure_second) == (0, 1)
    by_name = {(one.language, one.label): one for one in found.labels}
    assert {language for language, _ in by_name} == {"all", "ar", "en"}
    displaced = by_name["all", "displacement"]
    assert (displaced.rows, displaced.first, displaced.second, displaced.raw) == (4, 2, 1, 0.75)
    assert by_name["ar", "official_statement"].f1 == 1.0
    [difference] = [one.as_row(TAXONOMY) for one in found.differences]
    assert difference == {
        "id": "d1#0",
        "lang": "en",
        "sha256": text_digest("text 1"),
        "first": ["displacement"],
        "second": [],
        "unsure": ["second"],
    }
    assert json.loads(json.dumps(found.as_json(TAXONOMY)))["differences"] == [difference]


def test_passages_are_matched_by_text_whatever_their_id_and_typography(tmp_path: Path) -> None:
    one = [passage(1, "They fled  “home”.", labels=[])]
    other = [passage(9, 'They fled "home".', labels=["displacement"])]
    found = compare(labelled(tmp_path / "a.jsonl", one), labelled(tmp_path / "b.jsonl", other))
    assert (found.common, found.by_id) == (1, 0)
    assert found.differences[0].as_row(TAXONOMY)["second_id"] == "d9#0"


def test_rows_missing_from_a_side_are_counted(tmp_path: Path) -> None:
    one, other = rows([], [], [])[:2], rows([], [], [], [])[1:]
    found = compare(labelled(tmp_path / "a.jsonl", one), labelled(tmp_path / "b.jsonl", other))
    assert (found.common, found.only_first, found.only_second) == (1, 1, 2)


def test_one_id_for_two_texts_is_no_pair(tmp_path: Path) -> None:
    one = [passage(1, "one", labels=[]), passage(2, "same", labels=[])]
    other = [passage(1, "other", labels=[]), passage(2, "same", labels=[])]
    paths = labelled(tmp_path / "a.jsonl", one), labelled(tmp_path / "b.jsonl", other)
    found = compare(*paths)
    assert (found.common, found.other_text, found.only_first, found.only_second) == (1, 1, 1, 1)
    with pytest.raises(InputError, match="1 have an id in common, but another text"):
        compare(labelled(paths[0], one[:1]), labelled(paths[1], other[:1]))


def test_standoff_rows_are_matched_by_hash_by_id_or_by_the_text_of_a_collection(tmp_path: Path) -> None:
    one = [passage(1, "They  fled", labels=[]), passage(2, "same", labels=["displacement"])]
    other = [passage(1, "They fled", labels=[]), passage(2, "same", labels=[])]
    files = [labelled(tmp_path / f"{name}.jsonl", found) for name, found in (("one", one), ("other", other))]
    standoff = labelled(tmp_path / "s.jsonl", standoff_rows(files[0], TAXONOMY))
    assert (compare(standoff, files[1]).common, compare(standoff, files[1]).by_id) == (2, 1)
    found = compare(standoff, files[1], collections=[files[0]])
    assert (found.common, found.by_id, len(found.differences)) == (2, 0, 1)


def test_nothing_in_common_is_told_with_ids_and_no_text(tmp_path: Path) -> None:
    one, other = [passage(1, "secret one", labels=[])], [passage(2, "secret two", labels=[])]
    with pytest.raises(InputError, match=r"got 1 of a\.jsonl \(such as 'd1#0'\) and 1 of b\.jsonl") as caught:
        compare(labelled(tmp_path / "a.jsonl", one), labelled(tmp_path / "b.jsonl", other))
    assert "secret" not in str(caught.value)


def test_a_side_that_contradicts_itself_is_refused(tmp_path: Path) -> None:
    one = [passage(1, "same", labels=[]), passage(2, "same", labels=["displacement"])]
    path = labelled(tmp_path / "a.jsonl", one)
    with pytest.raises(InputError, match="expected one set of labels for a passage"):
        compare(path, path)
    one[1]["labels"] = []
    assert compare(labelled(path, one), path).common == 1


# Exports with several annotators


def test_two_annotators_of_one_export_are_its_sides(tmp_path: Path) -> None:
    tasks = [
        annotated(passage(1), annotation("displacement", by="amal"), annotation("displacement", by="basil"), number=1),
        annotated(passage(2), annotation(by="basil"), annotation("official_statement", by="amal"), number=2),
        annotated(passage(3), annotation("displacement", by="basil"), number=3),
    ]
    found = compare(export(tmp_path / "e.json", tasks))
    assert (found.first, found.second, found.common, found.only_first, found.only_second) == ("amal", "basil", 2, 0, 1)
    assert [sorted(one.first.labels) for one in found.differences] == [["official_statement"]]


def test_a_team_is_compared_in_pairs_or_by_the_two_that_are_named(tmp_path: Path) -> None:
    tasks = [
        annotated(passage(n), annotation("displacement", by=one), annotation("displacement", by=other), number=n)
        for n, (one, other) in enumerate([("a", "b"), ("b", "c"), ("c", "a")])
    ]
    path = export(tmp_path / "e.json", tasks)
    assert (compare(path).common, compare(path).second) == (3, "another (of 3 in all)")
    named = compare(path, names=["c", "a"])
    assert (named.first, named.second, named.common) == ("c", "a", 1)
    tasks[0]["annotations"].append(annotation("displacement", by="c"))
    with pytest.raises(InputError, match=r"expected two annotators a passage, one has 3 \(of a, b, c\); name two"):
        compare(export(path, tasks))
    with pytest.raises(InputError, match="expected two annotators to compare, got 1"):
        compare(path, names=["a"])


def test_one_annotator_alone_cannot_agree(tmp_path: Path) -> None:
    path = export(tmp_path / "e.json", [annotated(passage(1), annotation("displacement", by="amal"))])
    with pytest.raises(InputError, match=r"expected annotations by two people, got one \(amal\)"):
        compare(path)
    with pytest.raises(InputError, match=r"got one \(no name\)"):
        compare(labelled(tmp_path / "a.jsonl", rows([])))


def test_an_annotator_can_be_named_for_a_file_with_several(tmp_path: Path) -> None:
    tasks = [annotated(passage(0), annotation("displacement", by="amal"), annotation(by="basil"))]
    first, second = export(tmp_path / "e.json", tasks), labelled(tmp_path / "b.jsonl", rows(["displacement"]))
    assert compare(first, second, names=["amal"]).identical == 1
    with pytest.raises(InputError, match="expected one set of labels"):
        compare(first, second)
    with pytest.raises(InputError, match="expected annotations by 'x'"):
        compare(first, second, names=["x"])

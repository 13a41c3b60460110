from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest
from sklearn.metrics import f1_score
from typer.testing import CliRunner

from eval.cli import app
from eval.run import evaluate
from models.classifier import Classifier
from models.errors import InputError
from tests.conftest import TEXTS

runner = CliRunner()


def write(path: Path, rows: list[dict]) -> Path:
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
    return path


@pytest.fixture
def labelled(tmp_path: Path) -> Path:
    languages = ["en", "ar", "en", "ar", ""]
    rows = [{"text": t, "labels": ["displacement"] if i < 3 else [], "lang": languages[i]} for i, t in enumerate(TEXTS)]
    rows.append({"text": "\u200b\u200f x", "labels": [], "lang": "en"})
    rows.append({"text": "\u200f\u200b", "labels": []})
    return write(tmp_path / "dev.jsonl", rows)


def test_a_report_covers_all_texts_and_each_language(tiny: Classifier, labelled: Path) -> None:
    report = evaluate(tiny, labelled).report
    assert {part.name: part.texts for part in report.slices} == {"all": 6, "ar": 2, "en": 4}
    assert report.rejected == 1
    assert report.slices[0].labels["displacement"].support == 3
    assert report.model_hash == tiny.bundle.manifest.model_hash


def test_decisions_are_those_of_the_threshold(tiny: Classifier, labelled: Path) -> None:
    answers = tiny.classify(TEXTS)
    yes = sum(answer.labels["displacement"].probability >= 0.5 for answer in answers[:3])
    assert evaluate(tiny, labelled).report.slices[0].labels["displacement"].recall == pytest.approx(yes / 3)


def test_the_command_writes_report_and_page_and_prints_tables(tiny_bundle: Path, labelled: Path, tmp_path: Path) -> None:
    out = tmp_path / "deep" / "report.json"
    common = ["run", "--data", str(labelled), "--bundle", str(tiny_bundle), "--out", str(out), "-q", "--no-suites"]
    done = runner.invoke(app, common)
    assert done.exit_code == 0, done.output
    assert "displacement" in done.output
    content = json.loads(out.read_text())
    assert content["report_version"] == 2
    assert not any(text in out.read_text() for text in TEXTS)
    assert out.with_suffix(".html").read_text(encoding="utf-8").startswith("<!doctype html>")
    done = runner.invoke(app, [*common, "--json"])
    assert json.loads(done.stdout)["data_digest"] == content["data_digest"]


def test_faults_are_told_with_their_exit_codes(tiny_bundle: Path, tmp_path: Path) -> None:
    (tmp_path / "bad.jsonl").write_text("{}\n")
    done = runner.invoke(app, ["run", "--data", str(tmp_path / "bad.jsonl"), "--bundle", str(tiny_bundle)])
    assert (done.exit_code, "bad.jsonl:1" in done.output.replace("\n", "")) == (2, True)
    done = runner.invoke(app, ["run", "--data", str(tmp_path / "bad.jsonl"), "--bundle", str(tmp_path)])
    assert (done.exit_code, "expected a bundle" in done.output.replace("\n", " ")) == (1, True)


def test_an_output_that_cannot_be_written_is_told_in_one_line(tiny_bundle: Path, labelled: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    out = ["-q", "--out", str(tmp_path / "file" / "report.json")]
    measure = ["run", "--data", str(labelled), "--bundle", str(tiny_bundle), "--no-suites"]
    prove = ["prove", "fuzz", "--minutes", "0", "--inputs", "1", "--processes", "1"]
    for command in ([*measure, *out], [*prove, *out]):
        done = runner.invoke(app, command)
        assert done.exit_code == 1
        told = done.stderr.replace("\n", "")
        assert told.startswith("rasid-eval: ")
        assert str(tmp_path / "file") in told


def test_a_file_of_invisible_texts_is_told(tiny: Classifier, tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text('{"text": "\\u200b", "labels": []}\n')
    with pytest.raises(InputError, match="none of the 1 texts"):
        evaluate(tiny, tmp_path / "a.jsonl")


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([{"text": TEXTS[0]}], "expected a field 'labels'"),
        ([], "has none"),
        ([{"text": TEXTS[0], "labels": ["Displacement"]}], "unknown label 'Displacement'.* has sectarian_violence"),
        ([{"text": TEXTS[0], "labels": 3}], "expected labels to be a list of names"),
    ],
    ids=["unlabelled", "empty", "mislabelled", "no list"],
)
def test_files_that_cannot_be_used_are_refused_with_the_reason(tiny, tmp_path: Path, rows: list, message: str) -> None:
    with pytest.raises(Exception, match=message) as caught:
        evaluate(tiny, write(tmp_path / "a.jsonl", rows))
    assert "a.jsonl" in str(caught.value)
    assert TEXTS[0] not in str(caught.value)


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([{"text": TEXTS[0], "labels": []}], "none of the 1 texts carries a label"),
        ([{"text": t, "labels": ["displacement"], "lang": "en"} for t in TEXTS], "every text carries displacement"),
        ([{"text": t, "labels": ["displacement"], "lang": "en"} for t in TEXTS], "no text carries official_statement"),
        ([{"text": t, "labels": [], "lang": "en"} for t in TEXTS], "all texts are in 'en'"),
        ([{"text": TEXTS[0], "labels": []}, {"text": TEXTS[0], "labels": ["displacement"]}], "1 texts repeat.*1 .* with other"),
        ([{"text": "\u200b", "labels": []}, {"text": TEXTS[0], "labels": []}], "1 texts have nothing visible"),
        ([{"text": TEXTS[0], "labels": ["displacement"], "unsure": True}], "unsure of 1 of the 1"),
    ],
)  # fmt: skip
def test_files_that_prove_little_come_with_a_notice(tiny, tmp_path: Path, rows: list, message: str) -> None:
    report = evaluate(tiny, write(tmp_path / "a.jsonl", rows)).report
    assert any(re.search(message, notice) for notice in report.notices), report.notices


def test_texts_that_were_trained_on_are_noticed_and_baselines_stand_beside_the_model(tiny, labelled: Path) -> None:
    report = evaluate(tiny, labelled, train=[labelled]).report
    assert any("6 texts are in the training files" in notice for notice in report.notices)
    names = [one.name for one in report.contenders]
    assert names == ["tiny 0", "majority", "keyword lexicon", "TF-IDF, logistic regression"]
    assert {name for one in report.contenders for name in one.macro} == {"all", "ar", "en"}


def test_groups_confusion_and_threshold_costs_add_up(tiny: Classifier, tmp_path: Path) -> None:
    rows = [
        {"id": f"d{i}", "text": f"{TEXTS[i % 5]} {i}", "labels": ["displacement"] if i % 3 else [], "source": "ab"[i % 2]}
        for i in range(60)
    ]
    evaluation = evaluate(tiny, write(tmp_path / "a.jsonl", rows))
    report, scored = evaluation.report, evaluation.scored
    for part in report.slices:
        here = scored.part(np.isin(scored.languages, scored.languages if part.name == "all" else [part.name]))
        truth, answer = here.wanted, here.decided
        expected = {kind: f1_score(truth, answer, average=kind, zero_division=0) for kind in ("macro", "micro")}
        assert {kind: found.f1 for kind, found in part.averages.items()} == pytest.approx(expected)
        assert report.contenders[0].macro[part.name].f1 == pytest.approx(expected["macro"])
    assert 0 < report.slices[0].averages["macro"].f1 < f1_score(scored.wanted, scored.wanted, average="macro", zero_division=0)
    by_label = f1_score(scored.wanted, scored.decided, average=None, zero_division=0)
    assert list(report.contenders[0].f1.values()) == pytest.approx(by_label)
    assert [report.slices[0].labels[label].f1 for label in scored.labels] == pytest.approx(by_label)
    sources = [group for group in report.groups if group.by == "source"]
    assert [(group.name, group.texts) for group in sources] == [("a", 30), ("b", 30)]
    column = scored.labels.index("displacement")
    right = (scored.wanted & scored.decided)[:, column].sum() / scored.wanted[:, column].sum()
    assert report.confusion.right["displacement"]["displacement"] == pytest.approx(right)
    assert report.confusion.texts["none"] == 20
    assert report.confusion.right["none"] == dict.fromkeys(scored.labels, 0.0)
    for one in report.thresholds:
        part = scored.part(scored.languages == one.language)
        wanted = part.wanted[:, scored.labels.index(one.label)]
        assert one.missed_per_100 == pytest.approx(100 * wanted.mean() * (1 - one.recall) if wanted.any() else 0.0)
    looser = [one.recall for one in report.thresholds if (one.language, one.label) == ("en", "displacement")]
    assert looser == sorted(looser, reverse=True)

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from eval.cli import app
from eval.run import evaluate
from models.classifier import Classifier
from models.errors import InputError
from tests.conftest import TEXTS

runner = CliRunner()


@pytest.fixture
def labelled(tmp_path: Path) -> Path:
    path = tmp_path / "dev.jsonl"
    languages = ["en", "ar", "en", "ar", ""]
    rows = [{"text": t, "labels": ["displacement"] if i < 3 else [], "lang": languages[i]} for i, t in enumerate(TEXTS)]
    rows.append({"text": "\u200b\u200f x", "labels": [], "lang": "en"})
    rows.append({"text": "\u200f\u200b", "labels": []})
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def test_a_report_covers_all_texts_and_each_language(tiny: Classifier, labelled: Path) -> None:
    report = evaluate(tiny, labelled)
    assert {part.name: part.texts for part in report.slices} == {"all": 6, "ar": 2, "en": 4}
    assert report.rejected == 1
    assert report.slices[0].labels["displacement"].support == 3
    assert report.model_hash == tiny.bundle.manifest.model_hash


def test_decisions_are_those_of_the_threshold(tiny: Classifier, labelled: Path) -> None:
    answers = tiny.classify(TEXTS)
    yes = sum(answer.labels["displacement"].probability >= 0.5 for answer in answers[:3])
    assert evaluate(tiny, labelled).slices[0].labels["displacement"].recall == pytest.approx(yes / 3)


def test_the_command_writes_report_json_and_prints_tables(tiny_bundle: Path, labelled: Path, tmp_path: Path) -> None:
    out = tmp_path / "deep" / "report.json"
    done = runner.invoke(app, ["run", "--data", str(labelled), "--bundle", str(tiny_bundle), "--out", str(out), "-q"])
    assert done.exit_code == 0, done.output
    assert "displacement" in done.output
    content = json.loads(out.read_text())
    assert content["report_version"] == 1
    assert "text" not in json.dumps(content["slices"][0]["labels"])
    done = runner.invoke(app, ["run", "--data", str(labelled), "--bundle", str(tiny_bundle), "--out", str(out), "-q", "--json"])
    assert json.loads(done.stdout)["data_digest"] == content["data_digest"]


def test_faults_are_told_with_their_exit_codes(tiny_bundle: Path, tmp_path: Path) -> None:
    (tmp_path / "bad.jsonl").write_text("{}\n")
    done = runner.invoke(app, ["run", "--data", str(tmp_path / "bad.jsonl"), "--bundle", str(tiny_bundle)])
    assert (done.exit_code, "bad.jsonl:1" in done.output.replace("\n", "")) == (2, True)
    done = runner.invoke(app, ["run", "--data", str(tmp_path / "bad.jsonl"), "--bundle", str(tmp_path)])
    assert (done.exit_code, "expected a bundle" in done.output.replace("\n", " ")) == (1, True)


def test_a_file_of_invisible_texts_is_told(tiny: Classifier, tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text('{"text": "\\u200b", "labels": []}\n')
    with pytest.raises(InputError, match="none of the 1 texts"):
        evaluate(tiny, tmp_path / "a.jsonl")

"""Footprint and stability: the two commands that measure a bundle without labels."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from eval.cli import app
from eval.footprint import measure_footprint
from eval.stability import measure_stability
from models.classifier import Classifier
from models.errors import EngineError
from tests.conftest import TEXTS

runner = CliRunner()


def test_answers_do_not_depend_on_company(tiny: Classifier) -> None:
    found = measure_stability(tiny, TEXTS * 3, rounds=2)
    assert (found.texts, found.largest_logit_difference, found.differing_answers) == (15, 0.0, 0)


def test_a_classifier_that_feels_its_batch_is_found_out(tiny: Classifier, monkeypatch: pytest.MonkeyPatch) -> None:
    honest = tiny.engine.logits
    monkeypatch.setattr(tiny.engine, "logits", lambda rows: honest(rows) + 0.01 * len(rows))
    found = measure_stability(tiny, TEXTS * 3, rounds=2)
    assert found.largest_logit_difference > 0.01
    assert found.differing_answers > 0


def test_a_footprint_is_measured_in_fresh_processes(tiny_bundle: Path, tmp_path: Path) -> None:
    found = measure_footprint(tiny_bundle, processes=1)
    assert found.first_answer_seconds >= found.load_seconds > 0
    assert found.peak_memory_mb > 10
    assert not found.torch_imported
    with pytest.raises(EngineError, match="a process that loads the bundle failed"):
        measure_footprint(tmp_path, processes=1)


def test_both_print_json(tiny_bundle: Path, tmp_path: Path) -> None:
    data = tmp_path / "a.jsonl"
    data.write_text("".join(json.dumps({"text": text, "labels": []}) + "\n" for text in TEXTS))
    done = runner.invoke(app, ["stability", "--data", str(data), "--bundle", str(tiny_bundle), "-q"])
    assert json.loads(done.stdout)["differing_answers"] == 0
    done = runner.invoke(app, ["footprint", "--bundle", str(tiny_bundle), "--processes", "1"])
    assert json.loads(done.stdout)["processes"] == 1

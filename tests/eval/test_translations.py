"""Whether translations get the same labels: counts for known answers, and the command."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from eval.cli import app
from eval.scoring import Scored
from eval.translations import LabelAgreement, measure_translations
from models.classifier import Classifier
from models.errors import InputError
from models.example import LabelledExample
from models.translations import Translation
from tests.conftest import TEXTS

runner = CliRunner()
PAIRS = [Translation(str(at), TEXTS[0] + f" {at}", TEXTS[1] + f" {at}") for at in range(5)]
# Probabilities of displacement, English and Arabic; below .4 is a no, from .6 a yes, and a person should look between them.
SIDES = [(0.9, 0.8), (0.7, 0.1), (0.55, 0.2), (0.3, 0.5), (0.1, 0.2)]


def known_answers(classifier: Classifier, examples: Sequence[LabelledExample], **_: object) -> Scored:
    probabilities = np.full((len(examples), 4), 0.1)
    probabilities[:, classifier.labels.index("displacement")] = np.array(SIDES).ravel()[: len(examples)]
    return Scored(
        labels=classifier.labels,
        examples=tuple(examples),
        languages=np.array([["en", "ar"][at % 2] for at in range(len(examples))]),
        wanted=np.zeros((len(examples), 4), dtype=np.bool_),
        probabilities=probabilities,
        thresholds=np.full((len(examples), 4), 0.5),
        decided=probabilities >= 0.5,
        review=(probabilities >= 0.4) & (probabilities < 0.6),
    )


def test_pairs_are_counted_by_side(tiny: Classifier, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("eval.translations.score", known_answers)
    found = measure_translations(tiny, PAIRS)
    assert found.labels["displacement"] == LabelAgreement(
        both=1, english_only=2, arabic_only=1, neither=1, agreement=2 / 5, contradictions=1,
        probability_difference=pytest.approx((0.1 + 0.6 + 0.35 - 0.2 - 0.1) / 5),
    )  # fmt: skip
    assert found.labels["sectarian_violence"].agreement is None
    assert (found.pairs, found.left_out, found.exact_match, found.agreement) == (5, 0, 2 / 5, 2 / 5)


def test_sides_in_another_language_than_said_are_left_out(tiny: Classifier) -> None:
    found = measure_translations(tiny, [PAIRS[0], Translation("swapped", PAIRS[1].ar, PAIRS[1].en)])
    assert (found.pairs, found.left_out) == (1, 1)
    with pytest.raises(InputError, match="none of 1 pairs is detected"):
        measure_translations(tiny, [Translation("swapped", PAIRS[1].ar, PAIRS[1].en)])
    with pytest.raises(InputError, match="1 of 4 have nothing"):
        measure_translations(tiny, [PAIRS[0], Translation("blank", "\u200b", PAIRS[1].ar)])


def test_the_command_prints_a_table_or_json_and_no_text(tiny_bundle: Path, tmp_path: Path) -> None:
    rows = [{"id": one.id, "lang": lang, "text": text} for one in PAIRS for lang, text in (("en", one.en), ("ar", one.ar))]
    data = tmp_path / "pairs.jsonl"
    data.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
    asked = ["translations", str(data), "--bundle", str(tiny_bundle), "-q"]
    done = runner.invoke(app, asked)
    assert done.exit_code == 0, done.output
    assert "5 pairs" in done.output
    assert not any(text in done.output for text in TEXTS)
    done = runner.invoke(app, [*asked, "--json"])
    told = json.loads(done.stdout)
    assert sum(told["labels"]["displacement"][name] for name in ("both", "english_only", "arabic_only", "neither")) == 5
    data.write_text('{"id": "a", "lang": "en", "text": "x"}\n', encoding="utf-8")
    done = runner.invoke(app, asked)
    assert (done.exit_code, "found none in pairs.jsonl" in " ".join(done.output.split())) == (2, True), done.output

"""Finding translations: the margin by its formula, a permutation that is found again, and the command."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from training.alignment import mutual_best
from training.cli import app

runner = CliRunner()


def unit(rows: np.ndarray) -> np.ndarray:
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


def test_a_shuffled_side_is_put_in_order(generator: np.random.Generator) -> None:
    first = unit(generator.normal(size=(60, 16)))
    order = generator.permutation(60)
    second = unit(first[order] + 0.1 * generator.normal(size=(60, 16)))
    found = mutual_best(first, second)
    assert [(row, int(order[other])) for row, other, _ in found] == [(row, row) for row in range(60)]
    assert min(margin for *_, margin in found) > 1


def test_the_margin_is_the_cosine_over_those_of_the_four_nearest_of_both_sides(generator: np.random.Generator) -> None:
    first, second = unit(generator.normal(size=(9, 4))), unit(generator.normal(size=(12, 4)))
    cosines = first @ second.T
    found = mutual_best(first, second)
    assert found
    for row, other, margin in found:
        around = np.sort(cosines[row])[-4:].mean() + np.sort(cosines[:, other])[-4:].mean()
        assert margin == pytest.approx(2 * cosines[row, other] / around, rel=1e-4)


def test_what_is_near_to_all_is_no_translation_of_one() -> None:
    first = unit(np.hstack([np.eye(6), np.ones((6, 1)), np.zeros((6, 1))]))
    hub, own = np.eye(8)[6], 0.97 * np.eye(8)[0] + 0.2 * np.eye(8)[7]
    second = unit(np.vstack([hub, own]))
    assert (first @ second.T)[0].argmax() == 0  # by cosine alone the first row would get the hub
    assert (0, 1) in [pair[:2] for pair in mutual_best(first, second)]


def test_the_command_writes_rows_that_share_an_id(base: Path, tmp_path: Path) -> None:
    texts = ["The family fled.", "Rain fell at noon.", "قال المحافظ", "A long road to the river", "42"]
    rows = [{"id": f"e{i}", "lang": "en", "text": text, "labels": [str(i), "x"]} for i, text in enumerate(texts)]
    rows += [{"id": f"a{i}", "lang": "ar", "text": text, "labels": ["x", str(min(i, 3))]} for i, text in enumerate(texts)][::-1]
    source, out = tmp_path / "mixed.jsonl", tmp_path / "deep" / "pairs.jsonl"
    source.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    asked = ["align", str(source), "--out", str(out), "--base", str(base), "--quiet"]
    done = runner.invoke(app, asked)
    assert done.exit_code == 0, done.output
    written = [json.loads(line) for line in out.read_text(encoding="utf-8").splitlines()]
    assert {row["id"] for row in written} == {f"e{i}=a{i}" for i in range(5)}
    assert [row["lang"] for row in written] == ["en", "ar"] * 5
    assert written[0]["margin"] >= written[-1]["margin"]
    told = " ".join(done.output.split())
    assert "5 pairs of 5 in en, 5 in ar" in told
    assert "4 of the 5 pairs with labels on both sides (80.0%) have the same" in told
    again = runner.invoke(app, asked)
    assert (again.exit_code, "not overwritten" in " ".join(again.output.split())) == (2, True)
    for content, complaint in (
        ('{"lang": "fr", "text": "x"}\n', "mixed.jsonl:1: expected lang to be en or ar, got 'fr'"),
        ('{"lang": "en"}\n', "mixed.jsonl:1: expected a filled field 'text', the row has lang"),
        (
            '{"id": "a", "lang": "en", "text": "x"}\n{"id": "a", "lang": "ar", "text": "x"}\n'
            '{"id": "a", "lang": "en", "text": "y"}\n',
            "mixed.jsonl:3: expected an id of its own, another passage in en has it",
        ),
        ('{"lang": "en", "text": "x"}\n', "found none in ar"),
    ):
        source.write_text(content, encoding="utf-8")
        wrong = runner.invoke(app, [*asked[:3], str(tmp_path / "other.jsonl"), *asked[4:]])
        assert (wrong.exit_code, complaint in " ".join(wrong.output.split())) == (2, True), wrong.output

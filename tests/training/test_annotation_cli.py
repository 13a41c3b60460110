"""The round of annotation as a user runs it: choose, label twice, compare, keep the labels."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from models.taxonomy import load_taxonomy
from training.cli import app
from training.standoff import resolve_annotations

runner = CliRunner()
WHO = ["The governor", "A farmer", "المحافظ", "العائلات"]


def read(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def write(path: Path, rows: list[dict]) -> Path:
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
    return path


def make_pool(folder: Path) -> Path:
    rows = [
        {"id": f"news:{i}#0", "lang": "ar" if i % 4 >= 2 else "en", "source": "news", "text": f"{WHO[i % 4]} {i}"}
        for i in range(40)
    ]
    return write(folder / "pool.jsonl", rows)


def test_a_round_goes_from_pool_to_standoff_rows_that_training_reads(tmp_path: Path, tiny_bundle: Path) -> None:
    pool, chosen = make_pool(tmp_path), tmp_path / "round.jsonl"
    asked = ["sample", "--pool", str(pool), "--bundle", str(tiny_bundle), "--count", "12", "--out", str(chosen), "-q"]
    done = runner.invoke(app, asked)
    assert done.exit_code == 0, done.output
    assert "12 of 40 usable passages" in done.output

    passages = read(chosen)
    first = write(tmp_path / "first.jsonl", [{**row, "labels": ["displacement"]} for row in passages])
    second = write(
        tmp_path / "second.jsonl", [{**row, "labels": ["displacement"] if at else []} for at, row in enumerate(passages)]
    )
    done = runner.invoke(app, ["agreement", str(first), str(second), "--out", str(tmp_path / "agreement.json")])
    assert done.exit_code == 0, done.output
    assert "12 passages in common, 11 with the same labels" in done.output
    assert f"{passages[0]['id']}: displacement | none" in done.output
    written = (tmp_path / "agreement.json").read_text(encoding="utf-8")
    assert json.loads(written)["differences"][0]["id"] == passages[0]["id"]

    kept = tmp_path / "kept.jsonl"
    done = runner.invoke(app, ["annotations", str(first), "--out", str(kept)])
    assert done.exit_code == 0, done.output
    for row in passages:
        assert row["text"] not in kept.read_text(encoding="utf-8") + written
    examples, _digests = resolve_annotations([kept], [pool], load_taxonomy())
    assert [example.text for example in examples] == [row["text"] for row in passages]


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (OSError(28, "No space left on device"), "No space left on device: the machine"),
        (OSError("no such\n weights"), "no such weights"),
        (TimeoutError(), "TimeoutError"),
    ],
)
def test_a_machine_that_fails_is_told_in_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: OSError, told: str
) -> None:
    def fail(*_arguments: object) -> None:
        raise error

    monkeypatch.setattr("training.annotation_cli.write_rows", fail)
    labelled = write(tmp_path / "a.jsonl", [{"id": "a", "text": "They fled.", "labels": []}])
    done = runner.invoke(app, ["annotations", str(labelled), "--out", str(tmp_path / "kept.jsonl")])
    assert (done.exit_code, done.stderr) == (1, f"rasid-train: {told}\n")


def test_nothing_annotated_is_overwritten_and_the_exit_code_tells(tmp_path: Path, tiny_bundle: Path) -> None:
    pool = make_pool(tmp_path)
    out = write(tmp_path / "round.jsonl", [{"id": "mine"}])
    done = runner.invoke(app, ["sample", "--pool", str(pool), "--bundle", str(tiny_bundle), "--out", str(out), "-q"])
    assert done.exit_code == 2
    assert read(out) == [{"id": "mine"}]
    assert runner.invoke(app, ["annotations", str(pool), "--out", str(out)]).exit_code == 2
    assert runner.invoke(app, ["agreement", str(pool), str(tmp_path / "none.jsonl")]).exit_code == 2

"""What models say of unlabelled passages, as soft targets."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from models.classifier import Classifier
from models.errors import ExampleFormatError
from training.cli import app
from training.pipeline import DataSettings, prepare_data, read_rows
from training.pseudo import pseudo_label
from training.rows import in_share, load_dataset, targets
from training.standoff import read_pseudo_labels, text_digest

LABELS = ("sectarian_violence", "displacement", "official_statement", "accountability_call")


def write(path: Path, rows: list[dict]) -> Path:
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
    return path


def passages(count: int = 40) -> list[dict]:
    return [{"id": f"news:{i // 2}#{i % 2}", "lang": "en", "text": f"The governor said so {i} times."} for i in range(count)]


def soft(passage: dict, *probabilities: float) -> dict:
    given = dict(zip(LABELS, probabilities, strict=True))
    return {"id": passage["id"], "lang": "en", "sha256": text_digest(passage["text"]), "probabilities": given}


def labelled(count: int = 60) -> list[dict]:
    return [{"id": f"d{i}#0", "lang": "en", "text": f"labelled text {i}", "labels": []} for i in range(count)]


def test_a_row_holds_the_mean_of_the_models_and_no_text(tmp_path: Path, tiny: Classifier) -> None:
    pool = write(tmp_path / "pool.jsonl", passages())
    seen = write(tmp_path / "seen.jsonl", passages()[:10])
    found = pseudo_label([pool], [tiny, tiny], 12, exclude=[seen], show_progress=False)
    assert (len(found.rows), found.usable) == (12, 30)
    by_digest = {text_digest(row["text"]): row for row in passages()[10:]}
    for row in found.rows:
        assert row.keys() == {"id", "lang", "sha256", "probabilities"}
        [answer] = tiny.classify([by_digest[row["sha256"]]["text"]])
        wanted = [answer.labels[label].probability for label in LABELS]
        assert np.allclose([row["probabilities"][label] for label in LABELS], wanted, atol=1e-4)
    assert pseudo_label([pool], [tiny, tiny], 12, exclude=[seen], show_progress=False) == found


def test_more_than_the_pool_has_gives_every_passage_once(tmp_path: Path, tiny: Classifier) -> None:
    found = pseudo_label([write(tmp_path / "pool.jsonl", passages())], [tiny], 500, show_progress=False)
    assert len({row["sha256"] for row in found.rows}) == len(found.rows) == 40


def test_soft_targets_train_and_never_judge(tmp_path: Path, taxonomy) -> None:
    pool = passages()
    read = {**pool[0], "labels": ["displacement"]}
    data = write(tmp_path / "labelled.jsonl", [*labelled(), read])
    file = write(tmp_path / "pseudo.jsonl", [soft(passage, 0.1, 0.25, 0.9, 0.0) for passage in pool])
    collection = write(tmp_path / "pool.jsonl", pool)
    plain = load_dataset([data], taxonomy)
    dataset = load_dataset([data], taxonomy, pseudo=[file], collections=[collection])
    assert dataset.validation == plain.validation
    assert dataset.train[: len(plain.train)] == plain.train
    added = dataset.train[len(plain.train) :]
    assert {row.targets for row in added} == {(0.1, 0.25, 0.9, 0.0)}
    expected = [row["id"] for row in pool[1:] if not in_share(row["id"].split("#")[0], 0.12)]
    assert [row.id for row in added] == expected
    assert "pseudo/pseudo.jsonl" in dataset.digests


def test_no_passage_of_a_document_kept_for_validation_is_trained_on(tmp_path: Path, taxonomy) -> None:
    pool = passages()
    data = write(tmp_path / "labelled.jsonl", labelled())
    judged = write(tmp_path / "judged.jsonl", [{**pool[4], "labels": []}])
    file = write(tmp_path / "pseudo.jsonl", [soft(passage, 0.1, 0.2, 0.3, 0.4) for passage in pool])
    collection = write(tmp_path / "pool.jsonl", pool)
    dataset = load_dataset([data], taxonomy, pseudo=[file], collections=[collection], validation_paths=[judged])
    assert len(dataset.train) == 60 + 38
    assert "news:2" not in {row.document for row in dataset.train}


def test_soft_targets_survive_the_work_folder(tmp_path: Path, taxonomy) -> None:
    pool = passages()
    settings = DataSettings(
        paths=(write(tmp_path / "labelled.jsonl", [{**row, "labels": ["displacement"]} for row in labelled()]),),
        pseudo=(write(tmp_path / "pseudo.jsonl", [soft(passage, 0.1, 0.25, 0.9, 0.0) for passage in pool]),),
        collections=(write(tmp_path / "pool.jsonl", pool),),
    )
    dataset = prepare_data(settings, taxonomy, tmp_path / "work")
    kept = read_rows(tmp_path / "work" / "train.parquet")
    assert np.array_equal(targets(kept), targets(dataset.train))
    assert np.array_equal(np.unique(targets(kept)), np.float32([0, 0.1, 0.25, 0.9, 1]))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"probabilities": {"displacement": 0.5}}, "expected probabilities for sectarian_violence"),
        ({"probabilities": dict.fromkeys(LABELS, 1.5)}, "from 0 to 1"),
        ({"probabilities": dict.fromkeys(LABELS, "0.5")}, "from 0 to 1"),
        ({"sha256": "0" * 64}, "in none of the 1 collections"),
    ],
)
def test_broken_rows_are_told_with_file_and_line(tmp_path: Path, taxonomy, change: dict, message: str) -> None:
    pool = write(tmp_path / "pool.jsonl", passages(2))
    file = write(tmp_path / "pseudo.jsonl", [soft(passages(1)[0], 0.1, 0.2, 0.3, 0.4) | change])
    with pytest.raises(ExampleFormatError, match=rf"pseudo.jsonl:1: .*{message}"):
        read_pseudo_labels([file], [pool], taxonomy)


def test_the_command_asks_several_bundles_and_overwrites_nothing(tmp_path: Path, tiny_bundle: Path) -> None:
    pool, out = write(tmp_path / "pool.jsonl", passages()), tmp_path / "pseudo.jsonl"
    asked = ["pseudo-label", "--pool", str(pool), "--bundle", str(tiny_bundle), "--count", "5", "--out", str(out), "-q"]
    done = CliRunner().invoke(app, asked)
    assert done.exit_code == 0, done.output
    assert "5 of 40 usable passages" in done.output
    assert len(out.read_text(encoding="utf-8").splitlines()) == 5
    again = CliRunner().invoke(app, asked)
    assert again.exit_code == 2
    assert "not overwritten" in " ".join(again.output.split())

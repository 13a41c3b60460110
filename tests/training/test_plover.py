"""The published yardstick: its files, its split, and runs that go on where they stopped."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from transformers import PreTrainedTokenizerFast
from typer.testing import CliRunner

from models.errors import ExampleFormatError, InputError
from models.taxonomy import load_taxonomy
from tests.conftest import tiny_bert, tiny_tokenizer_json
from training import plover
from training.cli import app
from training.finetune import FineTuneSettings
from training.plover import LANGUAGES, PUBLISHED, TASKS, read_task, run_plover, split

TAXONOMY = load_taxonomy(Path(plover.__file__).with_name("matconf.json"))
SETTINGS = FineTuneSettings(epochs=1, max_tokens=48, precision="float32", learning_rate=3e-3)


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> str:
    path = tmp_path_factory.mktemp("base")
    content = tiny_tokenizer_json()
    tiny_bert(len(content["model"]["vocab"]), layers=1).save_pretrained(path)
    (path / "raw.json").write_text(json.dumps(content), encoding="utf-8")
    PreTrainedTokenizerFast(tokenizer_file=str(path / "raw.json"), unk_token="<unk>", pad_token="<pad>").save_pretrained(path)
    return str(path)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("plover")
    for task in TASKS:
        for lang in LANGUAGES:
            rows = [{"id": i, "lang": lang, "text": f"{'zz' if i % 2 else 'qq'} {i} {task}", "label": i % 2} for i in range(80)]
            text = "".join(json.dumps(row) + "\n" for row in rows)
            (folder / f"{task}.{lang}.jsonl").write_text(text, encoding="utf-8")
    return folder


def test_the_taxonomies_are_two_lines_with_one_label() -> None:
    for task in TASKS:
        path = Path(plover.__file__).with_name(f"{task}.json")
        assert load_taxonomy(path).label_ids == (task,)
        assert len(path.read_text(encoding="utf-8").splitlines()) == 2


def test_the_split_is_stratified_disjoint_and_follows_the_seed(data: Path) -> None:
    rows = read_task(data / "matconf.en.jsonl", TAXONOMY)
    parts = split(rows, 1)
    assert [len(part) for part in parts] == [56, 12, 12]
    assert [sum(row.targets[0] for row in part) for part in parts] == [28, 6, 6]
    assert {row.id for part in parts for row in part} == {row.id for row in rows}
    assert [row.id for row in split(rows, 1)[2]] == [row.id for row in parts[2]]
    assert [row.id for row in split(rows, 2)[2]] != [row.id for row in parts[2]]


@pytest.mark.parametrize(
    "line", ["{", '{"id": 1, "lang": "en", "text": "t"}', '{"id": 1, "lang": "en", "text": "t", "label": 2}', "[]"]
)
def test_bad_rows_are_told_with_file_and_line(tmp_path: Path, line: str) -> None:
    path = tmp_path / "matconf.en.jsonl"
    path.write_text('{"id": 1, "lang": "en", "text": "t", "label": 1}\n' + line + "\n")
    with pytest.raises(ExampleFormatError, match=r"matconf.en.jsonl:2: expected a JSON object"):
        read_task(path, TAXONOMY)


def test_a_missing_file_is_told(tmp_path: Path) -> None:
    done = CliRunner().invoke(app, ["plover", "--data", str(tmp_path), "--work", str(tmp_path / "work")])
    assert done.exit_code == 2
    assert "expected a JSONL file, found none" in done.output.replace("\n", " ")


def test_every_task_language_and_seed_is_run_once_and_compared(base: str, data: Path, tmp_path: Path, monkeypatch) -> None:
    found = run_plover(data, tmp_path, base=base, seeds=[1, 2], settings=SETTINGS, show_progress=False)
    assert {(one.task, one.language): one.published_f1 for one in found} == PUBLISHED
    assert {one.seeds for one in found} == {2}
    runs = [json.loads(line) for line in (tmp_path / "runs.jsonl").read_text().splitlines()]
    assert len(runs) == 8
    for one in found:
        own = [run["f1"] for run in runs if (run["task"], run["language"]) == (one.task, one.language)]
        assert one.mean_f1 == pytest.approx(sum(own) / 2)
    assert not list(tmp_path.glob("mat*"))  # checkpoints are gone

    monkeypatch.setattr(plover, "fine_tune", None)  # finished runs are not done again
    assert run_plover(data, tmp_path, base=base, seeds=[1, 2], settings=SETTINGS, show_progress=False) == found
    other = FineTuneSettings(epochs=2, max_tokens=48)
    with pytest.raises(InputError, match="choose another work folder"):
        run_plover(data, tmp_path, base=base, seeds=[1], settings=other, show_progress=False)

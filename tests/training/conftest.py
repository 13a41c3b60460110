"""A tiny base encoder, rows it can learn, and a run on them, made once a session."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from transformers import PreTrainedTokenizerFast
from typer.testing import CliRunner

from tests.conftest import tiny_bert, tiny_tokenizer_json
from training.cli import app

SUBJECTS = ["The family", "The governor", "A farmer", "العائلة", "المحافظ", "The old man", "رجل"]
PLACES = ["from the village", "near the river", "في القرية", "on Monday", "أمس", "at night", "after rain"]


@pytest.fixture(scope="session")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A local directory that `transformers` loads, as a user's own base would be."""
    path = tmp_path_factory.mktemp("base")
    content = tiny_tokenizer_json()
    tiny_bert(len(content["model"]["vocab"]), layers=1).save_pretrained(path)
    (path / "raw.json").write_text(json.dumps(content), encoding="utf-8")
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_file=str(path / "raw.json"), unk_token="<unk>", pad_token="<pad>", cls_token="<s>", sep_token="</s>"
    )
    tokenizer.save_pretrained(path)
    return path


@pytest.fixture(scope="session")
def labelled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Rows whose labels follow from one letter each, which a tiny encoder can learn."""
    path = tmp_path_factory.mktemp("data") / "rows.jsonl"
    marks = {"sectarian_violence": "zz", "displacement": "qq", "official_statement": "xx", "accountability_call": "jj"}
    generator = np.random.default_rng(0)
    with path.open("w", encoding="utf-8") as handle:
        for index in range(240):
            labels = [label for label in marks if generator.random() < 0.4]
            words = [SUBJECTS[index % 7], *(marks[label] for label in labels), PLACES[index % 6], str(index)]
            row = {"id": f"doc{index}#0", "text": " ".join(words), "labels": labels, "lang": "ar" if index % 2 else "en"}
            handle.write(json.dumps(row, ensure_ascii=False) + "\n")
    return path


@pytest.fixture(scope="session")
def work(base: Path, labelled: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("work")
    done = CliRunner().invoke(
        app,
        ["run", "--data", str(labelled), "--work", str(folder), "--base", str(base), "--name", "tiny", "--version", "1",
         "--epochs", "3", "--learning-rate", "0.003", "--quiet"],
    )  # fmt: skip
    assert done.exit_code == 0, done.output
    return folder


@pytest.fixture
def unseen(labelled: Path, tmp_path: Path) -> Path:
    """Passages like the labelled ones, of other documents."""
    path = tmp_path / "unseen.jsonl"
    rows = [json.loads(line) for line in labelled.read_text(encoding="utf-8").splitlines()[:120]]
    path.write_text(
        "".join(json.dumps({**one, "id": f"new{i}#0", "text": one["text"] + " anew"}) + "\n" for i, one in enumerate(rows)),
        encoding="utf-8",
    )
    return path

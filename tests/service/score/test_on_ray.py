"""Scoring on Ray gives what scoring here gives, to the byte."""

from __future__ import annotations

import gzip
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip(
    "ray", reason="RAY IS NOT INSTALLED, so scoring on it is not tested: pip install -e '.[ray]' in the checkout"
)

TEXTS = ["They fled the village.", "نزحت العائلات من القرية.", "Rain.", "The ministry had no comment. It said so twice."]


def rasid(*arguments: str, folder: Path) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONWARNINGS": "default"}
    command = [sys.executable, "-m", "service.cli", "score", *arguments]
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False, timeout=240)


def test_rows_rejects_and_order_are_the_same(tmp_path: Path) -> None:
    lines = [json.dumps({"id": f"{number}", "text": f"{TEXTS[number % 4]} {number}"}) for number in range(3_000)]
    lines[7] = "{broken"
    lines[2_500] = json.dumps({"id": "no text"})
    (tmp_path / "a.jsonl").write_text("\n".join(lines))
    (tmp_path / "b.csv.gz").write_bytes(gzip.compress(b"text\nThey fled.\nRain.\n"))
    for name, options in (("here", ()), ("ray", ("--engine", "ray", "--workers", "2"))):
        done = rasid("a.jsonl", "b.csv.gz", f"{name}.jsonl", "--evidence", "--keep-columns", *options, folder=tmp_path)
        assert done.returncode == 0, done.stderr
        assert "3,000 of 3,002 rows scored" in done.stderr
    assert (tmp_path / "ray.jsonl").read_bytes() == (tmp_path / "here.jsonl").read_bytes()
    assert (tmp_path / "ray.jsonl.rejects.jsonl").read_bytes() == (tmp_path / "here.jsonl.rejects.jsonl").read_bytes()


def test_what_cannot_be_read_is_told_as_elsewhere(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("x,y\n1,2\n")
    done = rasid("a.csv", "out.csv", "--engine", "ray", folder=tmp_path)
    assert done.returncode == 2
    assert "expected a column of text" in done.stderr
    assert rasid("-", "out.csv", "--engine", "ray", folder=tmp_path).returncode == 2

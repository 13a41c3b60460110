"""The clients that the README shows, against a running service."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

README = Path(__file__).parents[2] / "README.md"


def test_the_python_clients_of_the_readme_work(
    address: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("articles.csv").write_text("id,text\na,They fled the village.\nb,Rain.\n")
    [block] = re.findall(r"```python\n(.*?)```", README.read_text(), re.DOTALL)
    names: dict[str, Any] = {"KEY": "none"}
    exec(compile(block.replace("http://localhost:8080", address), "README", "exec"), names)
    names["rasid"].close()
    told = capsys.readouterr().out
    assert "'id': 'a-17'" in told
    assert "event: end" in told
    assert "TextClassificationOutputElement" in told
    assert [json.loads(line)["id"] for line in Path("scored.jsonl").read_text().splitlines()] == ["a", "b"]

"""The clients that the README shows, against a running service."""

from __future__ import annotations

import json
import re
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import uvicorn

from models.classifier import Classifier
from service.app import create_app
from service.settings import Settings

README = Path(__file__).parents[2] / "README.md"


@pytest.fixture
def address(released: Classifier, tmp_path: Path) -> Iterator[str]:
    app = create_app(released, Settings(jobs=tmp_path / "jobs", threads=1))
    server = uvicorn.Server(uvicorn.Config(app, port=0, log_config=None))
    thread = threading.Thread(target=server.run)
    thread.start()
    while not server.started:
        time.sleep(0.01)
    yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
    server.should_exit = True
    thread.join()


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

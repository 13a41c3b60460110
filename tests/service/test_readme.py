"""What the README shows and says: its clients against a running service, its figures against the report of the model."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient

from models.bundle import released_bundle_path
from models.classifier import Classifier
from service.app import create_app
from service.settings import Settings
from tests.conftest import LOOPBACK

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


QUALITY = ("texts", "macro F1", "sectarian violence", "displacement", "official statement", "accountability call")
SLICES = {"both languages": "all", "Arabic": "ar", "English": "en"}
TOLD = r"(\d\.\d{3}) \((\d\.\d{3})-(\d\.\d{3})\)"  # a figure and its interval


@pytest.fixture(scope="module")
def report() -> Any:
    return json.loads((released_bundle_path() / "report.json").read_text(encoding="utf-8"))


def same(told: str, measured: float) -> bool:
    """Whether a figure with three decimals is that of the report, which has four."""
    return abs(float(told) - measured) <= 0.0005 + 1e-9


def test_the_table_of_quality_is_that_of_the_report(report: Any) -> None:
    readme = README.read_text(encoding="utf-8")
    table = readme[readme.index("| | " + " | ".join(QUALITY)) :].partition("\n\n")[0].splitlines()
    slices = {one["name"]: one for one in report["slices"]}
    lines = [[cell.strip() for cell in line.strip("|").split("|")] for line in table[2:]]
    assert [line[0] for line in lines] == list(SLICES)
    for name, texts, macro, *labels in lines:
        measured = slices[SLICES[name]]
        assert int(texts) == measured["texts"]
        figure, low, high = re.fullmatch(TOLD, macro.replace("**", "")).groups()
        average = measured["averages"]["macro"]
        assert same(figure, average["f1"]), (name, figure)
        assert same(low, average["interval"][0]), (name, low)
        assert same(high, average["interval"][1]), (name, high)
        for label, told in zip(QUALITY[2:], labels, strict=True):
            assert same(told, measured["labels"][label.replace(" ", "_")]["f1"]), (name, label, told)
    [[figure, low, high, arabic, english]] = re.findall(
        rf"^\| Rasid \| {TOLD} \| (\d\.\d{{3}}) \| (\d\.\d{{3}}) \|$", readme.replace("**", ""), re.MULTILINE
    )
    told = {"all": figure, "ar": arabic, "en": english}
    assert all(same(told[name], slices[name]["averages"]["macro"]["f1"]) for name in told), told


def test_the_figures_of_articles_are_those_of_the_report(report: Any) -> None:
    readme = " ".join(README.read_text(encoding="utf-8").split())
    found = re.search(
        r"\*\*Articles\*\* \((\d+) with (\d+) sentences, each labelled\): "
        rf"macro F1 of the article {TOLD}, of sentences judged alone {TOLD}, of the evidence {TOLD}\.",
        readme,
    )
    assert found
    articles, sentences, *figures = found.groups()
    documents = report["documents"]
    assert (int(articles), int(sentences)) == (documents["articles"], documents["sentences"])
    for part, told in zip(("document", "sentence", "evidence"), (figures[:3], figures[3:6], figures[6:]), strict=True):
        measured = documents[f"{part}_f1"]["macro"]
        for one, figure in zip(told, (measured["value"], *measured["interval"]), strict=True):
            assert same(one, figure), (part, one, figure)


def test_the_example_of_the_readme_is_what_the_model_answers(released: Classifier) -> None:
    blocks = re.findall(r"^```\n(.*?)^```$", README.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE)
    [body] = [
        re.search(r"-d '\n(.*)'\n", block, re.DOTALL)[1] for block in blocks if block.startswith("curl") and "-d '" in block
    ]
    [answer] = [json.loads(block) for block in blocks if block.startswith('{"model"')]
    with TestClient(create_app(released, Settings()), base_url=LOOPBACK) as client:
        response = client.post("/v1/classify", content=body.encode(), headers={"content-type": "application/json"})
    assert response.status_code == 200, response.text
    given = response.json()
    assert same_shape(answer, given), (answer, given)


def same_shape(told: Any, given: Any) -> bool:
    """Whether two answers are one, with what numbers of other machines may differ by."""
    if isinstance(told, dict):
        return told.keys() == given.keys() and all(same_shape(told[key], given[key]) for key in told)
    if isinstance(told, list):
        return len(told) == len(given) and all(map(same_shape, told, given))
    return abs(told - given) <= 0.02 if isinstance(told, float) else told == given

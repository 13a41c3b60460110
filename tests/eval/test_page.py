"""The page: self-contained, readable both ways, and silent about texts unless asked."""

from __future__ import annotations

import json
import re
from html.parser import HTMLParser

import numpy as np
import pytest

from eval.page import render_page, worst_mistakes
from eval.plots import coverage_curve
from eval.run import Evaluation, evaluate
from models.classifier import Classifier
from tests.conftest import TEXTS

VOID = {"meta", "br", "path", "use", "rect", "link"}


@pytest.fixture(scope="module")
def evaluation(tiny: Classifier, tmp_path_factory: pytest.TempPathFactory) -> Evaluation:
    path = tmp_path_factory.mktemp("page") / "a<b>.jsonl"
    labels = ["displacement", "official_statement"]
    rows = [
        {"id": f"<i>{i}", "text": f"{t} <b>{i}</b>", "labels": labels[: i % 3], "lang": "ar" if "\u0627" in t else "en"}
        for i, t in enumerate(TEXTS * 8)
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return evaluate(tiny, path)


class Tags(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []

    def handle_starttag(self, tag: str, attrs: list) -> None:
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        if tag not in VOID:
            assert self.open.pop() == tag


def test_the_page_stands_alone_and_is_well_formed(evaluation: Evaluation) -> None:
    page = render_page(evaluation)
    tags = Tags()
    tags.feed(page)
    assert tags.open == []
    assert "<script" not in page
    assert not re.search(r"""(?:src|href)=["'](?!#)""", page)
    assert "@import" not in page
    assert page.count("<svg") == 4 * 3 + 4 * 2
    assert "<b>1</b>" not in page
    assert "<title>tiny 0 on a&lt;b&gt;.jsonl</title>" in page


def test_texts_are_shown_on_request_alone_and_arabic_from_right_to_left(evaluation: Evaluation) -> None:
    silent, shown = render_page(evaluation), render_page(evaluation, show_text=True)
    wrong = worst_mistakes(evaluation.scored, "displacement", show_text=True)
    assert {one["language"] for one in wrong} == {"ar", "en"}
    for one in wrong:
        escaped = one["text"].replace("<", "&lt;").replace(">", "&gt;")
        assert escaped not in silent
        side = "rtl" if one["language"] == "ar" else "auto"
        assert f'dir="{side}" lang="{one["language"]}">{escaped}' in shown


def test_the_worst_mistakes_are_wrong_and_the_most_certain_come_first(evaluation: Evaluation) -> None:
    scored = evaluation.scored
    found = worst_mistakes(scored, "official_statement", show_text=False)
    distance = [one["probability"] if one["kind"] == "false alarm" else 1 - one["probability"] for one in found]
    assert distance == sorted(distance, reverse=True)
    column = scored.labels.index("official_statement")
    assert len(found) == min(15, int((scored.wanted != scored.decided)[:, column].sum()))
    assert all(one["text"] is None for one in found)


def test_coverage_leaves_the_least_certain_texts_out_first() -> None:
    wanted = np.array([True] * 50 + [False] * 50)
    probabilities = np.concatenate([np.linspace(1, 0.3, 50), np.linspace(0, 0.7, 50)])
    coverage, right = coverage_curve(wanted, probabilities, np.full(100, 0.5))
    assert coverage[-1] == 1.0
    assert right[0] == 1.0
    assert right[-1] == pytest.approx(((probabilities >= 0.5) == wanted).mean())

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from eval.documents import Article, _figures, _pointed, evaluate_documents, read_articles
from models.classifier import Classifier
from models.errors import ExampleFormatError
from models.example import LabelledExample
from models.prediction import Evidence, Prediction
from models.taxonomy import Taxonomy
from tests.conftest import TEXTS


def article(*labels: list[str], identity: str = "a", lang: str = "en") -> dict:
    sentences = [{"text": f" {text} ", "labels": own, "unsure": False} for text, own in zip(TEXTS, labels, strict=False)]
    return {"id": identity, "lang": lang, "source": "s", "title": "t", "sentences": sentences}


def write(path: Path, *rows: object) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def test_an_article_carries_what_its_sentences_carry_and_knows_where_they_stand(tmp_path: Path, taxonomy: Taxonomy) -> None:
    [found] = read_articles(write(tmp_path / "d.jsonl", article(["displacement"], [], ["official_statement"])), taxonomy)
    assert found.labels == {"displacement", "official_statement"}
    assert [found.text()[start:end] for start, end in found.spans()] == list(TEXTS[:3])
    assert found.text(frozenset({1})) == f"{TEXTS[0]} {TEXTS[2]}"


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"id": "x", "text": "t", "labels": []}, "labelled passages are given with --data"),
        ({"id": "x", "sentences": []}, "expected sentences that are not empty"),
        ({"id": "x", "sentences": [{"text": " ", "labels": []}]}, "expected sentences that are not empty"),
        ({"id": "x", "sentences": [{"text": "t", "labels": ["flight"]}]}, "unknown label 'flight'"),
        ([1], "expected an article"),
    ],
)
def test_bad_articles_are_told_with_their_line(tmp_path: Path, taxonomy: Taxonomy, row: object, message: str) -> None:
    with pytest.raises(ExampleFormatError, match=rf"d.jsonl:2: .*{message}"):
        read_articles(write(tmp_path / "d.jsonl", article([]), row), taxonomy)


def test_missing_and_empty_files_are_told(tmp_path: Path, taxonomy: Taxonomy) -> None:
    with pytest.raises(ExampleFormatError, match="found none"):
        read_articles(tmp_path / "none.jsonl", taxonomy)
    with pytest.raises(ExampleFormatError, match="at least one labelled article"):
        read_articles(write(tmp_path / "empty.jsonl"), taxonomy)


def test_evidence_points_at_the_sentences_it_covers_for_the_most_part() -> None:
    sentences = tuple(
        LabelledExample(f"a#{i}", text, frozenset()) for i, text in enumerate(("0123456789", "abcdefghij", "xyz"))
    )
    whole = Article("a", "en", "", sentences)
    evidence = [
        Evidence(label="l", start=0, end=14, text="", probability=0.9),  # all of the first, 3 of 10 of the second
        Evidence(label="m", start=14, end=25, text="", probability=0.9),  # 7 of 10 of the second, all of the third
    ]
    answer = Prediction(id="a", language="en", labels={}, evidence=evidence)
    assert _pointed(whole, answer, ("l", "m")).tolist() == [[True, False], [False, True], [False, True]]


def test_figures_agree_with_scikit_learn(generator: np.random.Generator) -> None:
    from sklearn.metrics import f1_score

    wanted = [generator.random((int(generator.integers(1, 9)), 3)) < 0.4 for _ in range(30)]
    decided = [w ^ (generator.random(w.shape) < 0.2) for w in wanted]
    found = _figures(wanted, decided, ("a", "b", "c"), seed=1)
    expected = f1_score(np.concatenate(wanted), np.concatenate(decided), average=None)
    assert [found[name].value for name in "abc"] == pytest.approx(list(expected))
    assert found["macro"].value == pytest.approx(expected.mean())
    assert all(one.interval[0] <= one.value <= one.interval[1] for one in found.values())


def test_articles_are_scored_whole_by_sentence_and_by_deletion(tiny: Classifier, tmp_path: Path) -> None:
    labels = ["displacement"], [], ["official_statement"], [], []
    path = write(tmp_path / "d.jsonl", article(*labels), article(*labels[::-1], identity="b", lang="ar"))
    found = evaluate_documents(tiny, path)
    assert (found.articles, found.sentences) == (2, 10)
    assert found.document_f1["displacement"].support == 2
    assert found.sentence_f1["macro"].support == 4
    assert found.by_language["ar"]["articles"] == 1
    faith = found.faithfulness
    assert faith.cases + faith.emptied > 0
    if faith.cases:  # taking the best sentences out can only lower a maximum
        assert faith.drop_without_evidence >= faith.drop_without_others >= 0

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console
from sklearn.metrics import f1_score

from eval.documents import (
    CONTROL_DRAWS,
    Article,
    ScoredArticles,
    _faithfulness,
    _figures,
    _pointed,
    evaluate_documents,
    read_articles,
    score_articles,
)
from eval.page import render_page
from eval.run import evaluate
from eval.scoring import no_progress
from eval.tables import print_report
from models.classifier import Classifier, TextItem
from models.errors import ExampleFormatError
from models.example import LabelledExample
from models.prediction import Evidence, LabelPrediction, Prediction
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


@pytest.mark.parametrize("separator", ["\u2028", "\u2029", "\x85"])
def test_a_line_ends_at_a_line_feed_alone(tmp_path: Path, taxonomy: Taxonomy, separator: str) -> None:
    row = article([]) | {"sentences": [{"text": f"Rain{separator}again", "labels": []}]}
    path = tmp_path / "d.jsonl"
    path.write_bytes(b"\xef\xbb\xbf" + json.dumps(row, ensure_ascii=False).encode() + b"\r\n")
    [found] = read_articles(path, taxonomy)
    assert found.text() == f"Rain{separator}again"


def test_a_file_in_another_encoding_is_told_with_its_line(tmp_path: Path, taxonomy: Taxonomy) -> None:
    path = write(tmp_path / "d.jsonl", article([]))
    path.write_bytes(path.read_bytes() + '{"id": "é"}\n'.encode("latin-1"))
    with pytest.raises(ExampleFormatError, match=r"d.jsonl:2: expected UTF-8, byte 8 of the line"):
        read_articles(path, taxonomy)


def test_an_id_used_twice_is_told_with_both_lines(tmp_path: Path, taxonomy: Taxonomy) -> None:
    with pytest.raises(ExampleFormatError, match=r"d.jsonl:3: id 'a' was used in line 1 already"):
        read_articles(write(tmp_path / "d.jsonl", article([]), article([], identity="b"), article([])), taxonomy)


def test_an_article_whose_id_holds_a_number_sign_keeps_its_sentences(tiny: Classifier, tmp_path: Path) -> None:
    path = write(tmp_path / "d.jsonl", article(["displacement"], [], identity="x#1"), article(["displacement"], identity="x"))
    scored = score_articles(tiny, read_articles(path, tiny.bundle.taxonomy))
    assert scored.article_of_sentence.tolist() == ["x#1", "x#1", "x"]
    assert evaluate_documents(tiny, path).sentence_f1["displacement"].support == 2


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
    scored = score_articles(tiny, read_articles(path, tiny.bundle.taxonomy))
    for figures, wanted, decided in (
        (found.document_f1, scored.wanted, scored.decided),
        (found.sentence_f1, scored.sentences.wanted, scored.sentences.decided),
        (found.evidence_f1, np.concatenate(scored.carried), np.concatenate(scored.pointed)),
    ):
        expected = f1_score(wanted, decided, average=None, zero_division=0.0)
        present = wanted.any(axis=0)
        assert [figures[label].value for label in tiny.labels] == pytest.approx(list(expected))
        assert figures["macro"].value == pytest.approx(expected[present].mean())
        assert (expected[present] < 1).any()
    faith = found.faithfulness
    assert faith.cases + faith.emptied > 0
    if faith.cases:  # taking the best sentences out can only lower a maximum
        assert faith.drop_without_evidence >= faith.drop_without_others >= 0


def test_table_and_page_tell_what_was_not_compared(tiny: Classifier, tmp_path: Path) -> None:
    path = write(tmp_path / "d.jsonl", article(["displacement"], []))
    texts = write(tmp_path / "t.jsonl", {"text": TEXTS[0], "labels": ["displacement"]})
    evaluation = evaluate(tiny, texts, documents=path)
    faith = evaluation.report.documents.faithfulness
    console = Console(width=120, record=True)
    print_report(evaluation.report, console)
    told = f"{faith.emptied} with fewer other sentences, {faith.unplaced} whose evidence covers no sentence"
    assert told in " ".join(console.export_text().split())
    assert f"{faith.unplaced} whose evidence covers no sentence for the most part" in render_page(evaluation)


class Finder:
    """A classifier of one label, which rests on every sentence with an asterisk; it remembers what it was asked."""

    labels = ("l",)

    def __init__(self) -> None:
        self.asked: list[str] = []

    def classify(self, items: list[TextItem], **_options: object) -> list[Prediction]:
        [item] = items
        self.asked.append(item.text)
        found = (
            LabelPrediction(probability=0.9, decision="yes")
            if "*" in item.text
            else LabelPrediction(probability=0.1, decision="no")
        )
        return [Prediction(id=item.id, language="en", labels={"l": found})]


def test_as_many_other_sentences_are_taken_out_as_the_evidence_has_or_nothing_is_compared() -> None:
    def scored(*articles: str) -> ScoredArticles:
        whole = [
            Article(
                text, "en", "", tuple(LabelledExample(f"{text}#{i}", part, frozenset()) for i, part in enumerate(text.split()))
            )
            for text in articles
        ]
        found = LabelPrediction(probability=0.9, decision="yes")
        return ScoredArticles(
            articles=tuple(whole),
            answers=tuple(Prediction(id=one.id, language="en", labels={"l": found}) for one in whole),
            wanted=np.ones((len(whole), 1), dtype=bool),
            decided=np.ones((len(whole), 1), dtype=bool),
            carried=(),
            pointed=tuple(np.array([["*" in sentence.text] for sentence in one.sentences]) for one in whole),
            sentences=None,
        )

    finder = Finder()
    found = _faithfulness(finder, scored("a* b* c d e", "a* b* c d", "a* b* c", "a* b*", "a b"), seed=1, progress=no_progress)
    assert (found.cases, found.emptied, found.unplaced) == (2, 2, 1)
    assert found.drop_without_evidence == pytest.approx(0.8)
    assert found.drop_without_others == 0.0
    five, four = finder.asked[: 1 + CONTROL_DRAWS], finder.asked[1 + CONTROL_DRAWS :]
    assert {len(text.split()) for text in five} == {3}
    assert four == ["c d", *["a* b*"] * CONTROL_DRAWS]

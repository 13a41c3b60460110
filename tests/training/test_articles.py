"""Thresholds for articles come from annotated articles that were not trained on."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from models.decision import DecisionRule, LabelRule
from models.errors import ExampleFormatError, InputError
from models.taxonomy import Taxonomy
from training.articles import read_article_sentences, with_article_thresholds
from training.cli import app
from training.rows import TrainingRow
from training.standoff import text_digest

RULE = LabelRule(slope=1.0, intercept=0.0, threshold=0.5, review_low=0.4, review_high=0.6)


def row(article: int, place: int, carries: bool, *, language: str = "en") -> TrainingRow:
    return TrainingRow(
        f"a{article}#{place}", f"a{article}", "a", language, f"text {article} {place}", (0, int(carries), 0, 0), False
    )


def rule_of(taxonomy: Taxonomy) -> DecisionRule:
    return DecisionRule(rules={language: dict.fromkeys(taxonomy.label_ids, RULE) for language in (*taxonomy.languages, "und")})


def test_a_label_that_needs_less_in_articles_gets_lower_thresholds(taxonomy: Taxonomy) -> None:
    # displacement: 200 articles of three sentences; where one carries it, its probability is .4, else it is .1
    rows = [row(a, place, place == 1 and a % 2 == 0) for a in range(200) for place in range(3)]
    carried = np.array([one.targets[1] for one in rows], dtype=bool)
    logits = np.full((len(rows), 4), -3.0, dtype=np.float32)
    logits[:, 1] = np.where(carried, np.log(0.4 / 0.6), np.log(0.1 / 0.9))
    found = with_article_thresholds(rule_of(taxonomy), rows, logits, taxonomy, unsure_weight=0.5)
    displacement = found.rules["en"]["displacement"]
    assert displacement.evidence_threshold is not None
    assert displacement.document_threshold is not None
    assert 0.25 < displacement.evidence_threshold < 0.4  # drawn a little from .25 towards .5
    assert 0.25 < displacement.document_threshold < 0.4
    assert (displacement.decide(0.45), displacement.decide(0.39, "document")) == ("review", "review")
    assert displacement.decide(0.2, "document") == "no"
    assert displacement.decide(0.7, "document") == "yes"
    assert displacement.carries(0.4)
    assert displacement.threshold == 0.5


def test_a_label_that_no_article_carries_and_a_language_without_articles_keep_their_thresholds(taxonomy: Taxonomy) -> None:
    rows = [row(a, 0, a % 2 == 0) for a in range(40)]
    found = with_article_thresholds(rule_of(taxonomy), rows, np.zeros((40, 4), np.float32), taxonomy, unsure_weight=0.5)
    assert found.rules["en"]["sectarian_violence"].document_threshold == 0.5
    assert found.rules["ar"]["displacement"] == RULE
    assert found.rules["und"]["displacement"] == RULE


def standoff(path: Path, texts: dict[str, str]) -> tuple[Path, Path]:
    labels, collection = path / "articles.jsonl", path / "pool.jsonl"
    labels.write_text(
        "".join(
            json.dumps({"id": i, "lang": "en", "sha256": text_digest(text), "labels": ["displacement"]}) + "\n"
            for i, text in texts.items()
        )
    )
    collection.write_text("".join(json.dumps({"id": i, "text": text}) + "\n" for i, text in texts.items()))
    return labels, collection


def test_articles_that_were_trained_on_are_left_out(tmp_path: Path, taxonomy: Taxonomy) -> None:
    labels, pool = standoff(tmp_path, {"a1#0": "They fled.", "a1#1": "They came back.", "a2#0": "They left."})
    found = read_article_sentences([labels], [pool], [row(1, 5, False)], taxonomy)
    assert [one.id for one in found.rows] == ["a2#0"]
    assert found.left_out == 1
    assert set(found.digests) == {"articles/articles.jsonl"}
    with pytest.raises(InputError, match="all 3 sentences"):
        read_article_sentences([labels], [pool], [row(1, 5, False), row(2, 5, False)], taxonomy)


def test_articles_of_evaluation_files_are_left_out_whole(tmp_path: Path, taxonomy: Taxonomy) -> None:
    labels, pool = standoff(tmp_path, {"a1#0": "They fled.", "a1#1": "They came back.", "a2#0": "They left.", "b#0": "Home."})
    passages, articles = tmp_path / "passages.jsonl", tmp_path / "documents.jsonl"
    passages.write_text(json.dumps({"id": "z", "lang": "en", "text": "They came  back.", "labels": []}) + "\n")
    articles.write_text(json.dumps({"id": "b", "sentences": [{"text": "Other words."}]}) + "\n")
    found = read_article_sentences([labels], [pool], [], taxonomy, exclude=[passages, articles])
    assert [one.id for one in found.rows] == ["a2#0"]
    assert found.left_out == 2


def test_the_command_sets_thresholds_by_articles_that_no_evaluation_file_holds(work: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(work, tmp_path / "work")
    labels, pool = standoff(tmp_path, {f"a{i}#0": f"they left qq {i}" for i in range(20)})
    test = tmp_path / "test.jsonl"
    asked = ["calibrate", "--work", str(folder), "--articles", str(labels), "--collection", str(pool), "--exclude", str(test)]
    for held, code, told in ((19, 0, "candidate bundle"), (20, 2, "all 20 sentences are of such")):
        lines = (json.dumps({"id": f"t{i}", "text": f"they left qq {i}", "labels": []}) for i in range(held))
        test.write_text("\n".join(lines), encoding="utf-8")
        done = CliRunner().invoke(app, asked)
        assert (done.exit_code, told in " ".join(done.output.split())) == (code, True), done.output
    rules = json.loads((folder / "bundle" / "decision.json").read_text(encoding="utf-8"))["rules"]
    assert rules["en"]["displacement"]["evidence_threshold"] is not None


def test_a_sentence_whose_text_is_nowhere_is_named(tmp_path: Path, taxonomy: Taxonomy) -> None:
    labels, pool = standoff(tmp_path, {"a1#0": "They fled."})
    pool.write_text(json.dumps({"id": "other", "text": "Else."}) + "\n")
    with pytest.raises(ExampleFormatError, match="a1#0"):
        read_article_sentences([labels], [pool], [], taxonomy)

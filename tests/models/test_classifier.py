from __future__ import annotations

import random
import subprocess
import sys
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from models.classifier import Classifier, TextItem
from models.decision import DecisionRule, LabelRule
from models.engine import OnnxEngine, plan_batches
from models.errors import EmptyTextError, EngineError
from models.prediction import Prediction, Rejection
from tests.conftest import TEXTS

ENGLISH = (
    "Gunmen stormed the church during Sunday mass and killed nine Christian worshippers. The interior minister said the "
    "killers would be brought to justice. Some two hundred families fled the quarter the same night. The shops reopened "
    "on Tuesday."
)
ARABIC = (
    "اقتحم مسلحون الكنيسة خلال قداس الأحد وقتلوا تسعة من المصلين المسيحيين. وقال وزير الداخلية إن القتلة سيقدمون إلى "
    "العدالة. ونزحت عشرات العائلات من الحي في الليلة نفسها. وأعيد فتح المتاجر يوم الثلاثاء."
)


def test_rows_are_grouped_by_length_within_the_budget() -> None:
    lengths = [3, 5, 3, 3, 5, 100]
    groups = list(plan_batches(lengths, max_batch_tokens=6))
    assert sorted(i for group in groups for i in group) == list(range(6))
    assert all(len({lengths[i] for i in group}) == 1 for group in groups)
    assert all(len(group) == 1 or sum(lengths[i] for i in group) <= 6 for group in groups)


@given(data=st.data())
@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_a_text_is_answered_the_same_alone_and_in_any_company(data: st.DataObject, released: Classifier) -> None:
    pool = [*TEXTS, ENGLISH, ARABIC, *ENGLISH.split(". "), *ARABIC.split(". "), "أ", "x y z " * 40, "😀"]
    texts = data.draw(st.lists(st.sampled_from(pool), min_size=2, max_size=24))
    together = released.classify(texts, evidence=True)
    logits = released.logits(texts)
    for index in data.draw(st.lists(st.integers(0, len(texts) - 1), min_size=1, max_size=3)):
        [alone] = released.classify([TextItem(str(index), texts[index])], evidence=True)
        assert alone == together[index]
        assert np.array_equal(released.logits([texts[index]])[0], logits[index])


def test_the_order_of_texts_changes_nothing(released: Classifier) -> None:
    items = [TextItem(str(i), text) for i, text in enumerate([*TEXTS, ENGLISH, ARABIC] * 4)]
    shuffled = random.Random(1).sample(items, len(items))
    for granularity in ("passage", "document"):
        one = {a.id: a for a in released.classify(items, granularity=granularity, evidence=True)}
        other = {a.id: a for a in released.classify(shuffled, granularity=granularity, evidence=True)}
        assert one == other


@pytest.mark.parametrize("text", [ENGLISH, ARABIC])
def test_an_article_is_labelled_with_the_sentences_that_carry_each_label(released: Classifier, text: str) -> None:
    [answer] = released.classify([text], granularity="document", evidence=True)
    assert isinstance(answer, Prediction)
    assert all(found.decision != "no" for found in answer.labels.values()), answer.labels
    strongest = {piece.label: piece.text for piece in reversed(answer.evidence)}
    assert set(strongest) == set(answer.labels)
    assert "two hundred" in strongest["displacement"] or "العائلات" in strongest["displacement"]
    assert "minister" in strongest["official_statement"] or "وزير" in strongest["official_statement"]
    assert all(text[piece.start : piece.end] == piece.text for piece in answer.evidence)


@pytest.mark.parametrize("text", ["The match ended in a draw after extra time.", "ارتفعت أسعار الخضار في سوق المدينة اليوم."])
def test_ordinary_news_carries_no_label(released: Classifier, text: str) -> None:
    [answer] = released.classify([text])
    assert isinstance(answer, Prediction)
    assert {found.decision for found in answer.labels.values()} == {"no"}


def test_evidence_counts_code_points_of_the_text_as_sent(released: Classifier) -> None:
    fled = "Hundreds of families fled the village\u200b of Tal  that night."
    before = "😀😀  هطل المطر\u200f طوال النهار في المدينة.\r\n\r\nThe match ended in a draw. "
    [answer] = released.classify([before + fled + " It rained again."], granularity="document", evidence=True)
    assert isinstance(answer, Prediction)
    [piece] = answer.evidence
    assert (piece.label, piece.start, piece.end, piece.text) == ("displacement", len(before), len(before) + len(fled), fled)


@pytest.mark.parametrize("threshold", [0.0, 1.0])
def test_neighbouring_sentences_are_one_piece_of_evidence(tiny: Classifier, threshold: float) -> None:
    text = "The village fled. The governor said so. They left the village."
    rule = LabelRule(slope=0.02, intercept=0, threshold=0.5, review_low=0, review_high=1, evidence_threshold=threshold)
    rules = {language: dict.fromkeys(tiny.labels, rule) for language in ("ar", "en", "und")}
    classifier = Classifier(replace(tiny.bundle, decision=DecisionRule(rules=rules)), OnnxEngine(tiny.bundle.model_path))
    [answer] = classifier.classify([text], granularity="document", evidence=True)
    assert isinstance(answer, Prediction)
    assert len(answer.evidence) == len(tiny.labels)
    for piece in answer.evidence:
        assert piece.probability == answer.labels[piece.label].probability
        assert (piece.text == text) == (threshold == 0.0)
        assert (piece.start, piece.end) == (text.index(piece.text), text.index(piece.text) + len(piece.text))


@pytest.mark.parametrize("text", ["", "   \n", "\u200b\u200f\ufeff", "\x00\x00"])
def test_a_text_with_nothing_visible_is_rejected_and_the_others_are_not(tiny: Classifier, text: str) -> None:
    first, empty, last = tiny.classify([TEXTS[0], text, TEXTS[1]])
    assert isinstance(first, Prediction)
    assert isinstance(last, Prediction)
    assert isinstance(empty, Rejection)
    assert (empty.id, empty.error.code) == ("1", "empty_text")
    with pytest.raises(EmptyTextError):
        tiny.logits([text])


@pytest.mark.parametrize(
    ("text", "flag"), [("😀🔥", "no_letters"), ("123 456", "no_letters"), ("שלום לכולם", "unsupported_language")]
)
def test_what_is_not_arabic_or_english_is_answered_flagged_and_left_to_review(
    released: Classifier, text: str, flag: str
) -> None:
    [answer] = released.classify([text])
    assert isinstance(answer, Prediction)
    assert answer.flags == [flag]
    assert {found.decision for found in answer.labels.values()} == {"review"}


def test_a_passage_beyond_the_model_is_cut_and_says_so(tiny: Classifier) -> None:
    [short, long] = tiny.classify(["the village", "the village said " * 200])
    assert isinstance(short, Prediction)
    assert isinstance(long, Prediction)
    assert (short.truncated, long.truncated) == (False, True)


def test_an_article_is_never_cut(released: Classifier) -> None:
    neutral, fled = "It rained in the morning. " * 200, "Hundreds of families fled the village that night."
    [answer] = released.classify([neutral + fled], granularity="document", evidence=True)
    assert isinstance(answer, Prediction)
    assert not answer.truncated
    assert answer.labels["displacement"].decision == "yes"
    assert [(piece.start, piece.end) for piece in answer.evidence] == [(len(neutral), len(neutral) + len(fled))]


def test_a_long_sentence_is_seen_to_its_last_word(tiny: Classifier) -> None:
    text = "قَالَ " * 200
    units = tiny._encode(text, 0, len(text))
    assert len(units) > 1
    assert all(len(unit.ids) <= 48 for unit in units)
    assert units[0].start == 0
    assert units[-1].end >= len(text.rstrip()) - 1
    assert all(a.end <= b.start for a, b in pairwise(units))


def test_nothing_in_nothing_out(tiny: Classifier) -> None:
    assert tiny.classify([]) == []


def test_a_file_that_is_no_model_is_refused(tmp_path) -> None:
    from models.engine import OnnxEngine

    (tmp_path / "model.onnx").write_bytes(b"not a model")
    with pytest.raises(EngineError, match=r"model\.onnx"):
        OnnxEngine(tmp_path / "model.onnx")


def test_classifying_imports_no_torch() -> None:
    code = (
        "import sys; from models import Classifier; Classifier.load(threads=1).classify(['They fled.']);"
        "sys.exit(int(any(m in sys.modules for m in ('torch', 'transformers', 'sklearn', 'onnx'))))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0

from __future__ import annotations

import numpy as np
import pytest
from pydantic import ValidationError

from models.decision import DecisionRule, LabelRule
from models.errors import TaxonomyError

RULE = LabelRule(slope=2.0, intercept=-1.0, threshold=0.5, review_low=0.3, review_high=0.7)


@pytest.mark.parametrize(("p", "decision"), [(0.0, "no"), (0.2999, "no"), (0.3, "review"), (0.6999, "review"), (0.7, "yes")])
def test_the_band_goes_to_review(p: float, decision: str) -> None:
    assert RULE.decide(p) == decision


def test_an_empty_band_decides_at_the_threshold() -> None:
    rule = LabelRule(slope=1, intercept=0, threshold=0.5, review_low=0.5, review_high=0.5)
    assert (rule.decide(0.4999), rule.decide(0.5)) == ("no", "yes")


def test_a_band_without_its_threshold_is_refused() -> None:
    with pytest.raises(ValidationError):
        LabelRule(slope=1, intercept=0, threshold=0.9, review_low=0.3, review_high=0.7)


def test_articles_have_thresholds_of_their_own_and_the_band_reaches_to_them() -> None:
    rule = RULE.model_copy(update={"evidence_threshold": 0.25, "document_threshold": 0.8})
    assert [rule.decide(p, "document") for p in (0.29, 0.3, 0.79, 0.8)] == ["no", "review", "review", "yes"]
    assert [rule.decide(p) for p in (0.29, 0.3, 0.69, 0.7)] == ["no", "review", "review", "yes"]
    assert (rule.carries(0.24), rule.carries(0.25)) == (False, True)
    assert (RULE.carries(0.49), RULE.carries(0.5)) == (False, True)
    assert RULE.decide(0.65, "document") == RULE.decide(0.65)


def test_probabilities_follow_each_text_s_own_language(taxonomy) -> None:
    flat = RULE.model_copy(update={"slope": 1.0, "intercept": 0.0})
    labels = taxonomy.label_ids
    rule = DecisionRule(rules={"ar": dict.fromkeys(labels, RULE), **{k: dict.fromkeys(labels, flat) for k in ("en", "und")}})
    rule.check(taxonomy)
    found = rule.probabilities(np.ones((2, 4), np.float32), ["ar", "en"], labels)
    assert found[0].tolist() == [0.7311] * 4  # 1 / (1 + exp(-(2 - 1)))
    assert found[1].tolist() == [0.7311] * 4
    found = rule.probabilities(np.zeros((2, 4), np.float32), ["ar", "en"], labels)
    assert found.tolist() == [[0.2689] * 4, [0.5] * 4]


def test_an_unsupported_language_is_never_decided(taxonomy) -> None:
    rules = {k: dict.fromkeys(taxonomy.label_ids, RULE) for k in ("ar", "en", "und")}
    assert DecisionRule(rules=rules).decide(0.99, "und", "displacement") == "review"


def test_missing_rules_are_named(taxonomy) -> None:
    with pytest.raises(TaxonomyError, match="expected decision rules for"):
        DecisionRule(rules={"ar": {}}).check(taxonomy)

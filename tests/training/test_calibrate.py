from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import f1_score

from models.errors import InputError
from training.calibrate import DecisionTargets, best_threshold, calibrate, lower_bound, platt, review_band


def sample(generator: np.random.Generator, rows: int = 4_000) -> tuple[np.ndarray, np.ndarray]:
    x = generator.normal(0, 3, rows)
    y = (generator.random(rows) < 1 / (1 + np.exp(-(0.5 * x - 1)))).astype(float)
    return x, y


def test_platt_scaling_finds_the_true_curve(generator: np.random.Generator) -> None:
    slope, intercept = platt(*sample(generator, 40_000), np.ones(40_000))
    assert slope == pytest.approx(0.5, abs=0.03)
    assert intercept == pytest.approx(-1, abs=0.06)


@given(st.lists(st.tuples(st.integers(0, 20), st.booleans()), min_size=2, max_size=40).filter(lambda r: any(y for _, y in r)))
@settings(max_examples=200, deadline=None)
def test_no_threshold_beats_the_best_one_where_probabilities_differ(rows: list[tuple[int, bool]]) -> None:
    y = np.array([float(target) for _, target in rows])
    p = np.array([value / 20 for value, _ in rows]) + np.arange(len(rows)) * 1e-6
    chosen = f1_score(y, p >= best_threshold(p, y, np.ones(len(y))), zero_division=0)
    assert chosen >= max(f1_score(y, p >= cut, zero_division=0) for cut in p) - 1e-12


def test_the_review_band_leaves_the_precision_that_was_asked_for(generator: np.random.Generator) -> None:
    x, y = sample(generator)
    p = 1 / (1 + np.exp(-(0.5 * x - 1)))
    low, high = review_band(p, y, np.ones(len(y)), 0.5, DecisionTargets(yes_precision=0.9, no_precision=0.9))
    assert low < 0.5 < high
    assert lower_bound(y[p >= high].sum(), (p >= high).sum(), 0.9) >= 0.9
    assert lower_bound((1 - y[p < low]).sum(), (p < low).sum(), 0.9) >= 0.9


def test_the_lower_bound_holds_as_often_as_it_says(generator: np.random.Generator) -> None:
    hits = generator.binomial(60, 0.95, size=4_000)
    assert np.mean([lower_bound(h, 60, 0.9) <= 0.95 for h in hits]) >= 0.9
    assert lower_bound(0, 60, 0.9) == 0.0
    assert lower_bound(45, 45, 0.9) == pytest.approx(0.1 ** (1 / 45))


def test_few_rows_promise_less_than_many() -> None:
    p = np.linspace(0.5, 1, 200)
    y = np.ones(200)
    y[[3, 190]] = 0.0  # the ten most probable are all right, but only ten
    _, high = review_band(p, y, np.ones(200), 0.5, DecisionTargets(yes_precision=0.99))
    assert high < 0.6


def test_where_no_cut_reaches_the_aim_the_band_ends_where_precision_is_best() -> None:
    p = np.linspace(0, 1, 101)
    y = ((np.arange(101) % 3) > 0).astype(float)
    y[60:80] = 1.0
    low, high = review_band(p, y, np.ones(101), 0.5, DecisionTargets(yes_precision=0.99, no_precision=0.99))
    assert low < 0.5 < high < 0.7


def test_doubted_rows_count_for_less() -> None:
    p, y = np.array([0.9, 0.8, 0.7, 0.6]), np.array([1.0, 0.0, 1.0, 0.0])
    assert best_threshold(p, y, np.array([1.0, 1.0, 1.0, 1.0])) == pytest.approx(0.65)
    assert best_threshold(p, y, np.array([1.0, 1.0, 0.1, 1.0])) == pytest.approx(0.85)


def test_each_language_gets_its_own_rules(generator: np.random.Generator, taxonomy) -> None:
    x, y = sample(generator, 3_000)
    logits = np.repeat(x[:, None], 4, axis=1).astype(np.float32)
    languages = ["ar" if i % 2 else "en" for i in range(len(x))]
    logits[1::2] += 4  # the Arabic logits run high
    rule = calibrate(logits, np.repeat(y[:, None], 4, axis=1).astype(np.float32), languages, taxonomy)
    rule.check(taxonomy)
    for label in taxonomy.label_ids:
        assert rule.rules["ar"][label].intercept < rule.rules["en"][label].intercept
    p = rule.probabilities(logits, languages, taxonomy.label_ids)
    assert abs(p[1::2, 0].mean() - y[1::2].mean()) < 0.03


def test_a_label_without_positives_is_named(taxonomy) -> None:
    with pytest.raises(InputError, match="with and without sectarian_violence, got 0 of 9"):
        calibrate(np.zeros((9, 4), np.float32), np.zeros((9, 4), np.float32), ["ar"] * 9, taxonomy)

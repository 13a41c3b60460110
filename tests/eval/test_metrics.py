from __future__ import annotations

from math import comb

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import average_precision_score, f1_score, precision_score, recall_score

from eval.metrics import (
    averages,
    bootstrap_interval,
    expected_calibration_error,
    label_metrics,
    macro_f1,
    mcnemar,
    micro_f1,
    precision_recall_f1,
)

ROWS = st.lists(st.tuples(*[st.booleans()] * 6, st.floats(0, 1)), min_size=1, max_size=60)


@given(ROWS)
@settings(max_examples=150, deadline=None)
def test_figures_agree_with_scikit_learn(rows: list[tuple]) -> None:
    wanted = np.array([row[:3] for row in rows])
    decided = np.array([row[3:6] for row in rows])
    assert macro_f1(wanted, decided) == pytest.approx(f1_score(wanted, decided, average="macro", zero_division=0))
    assert micro_f1(wanted, decided) == pytest.approx(f1_score(wanted, decided, average="micro", zero_division=0))
    found = precision_recall_f1(wanted[:, 0], decided[:, 0])
    expected = [f(wanted[:, 0], decided[:, 0], zero_division=0) for f in (precision_score, recall_score, f1_score)]
    assert found == pytest.approx(expected)


def test_average_precision_is_scikit_learn_s_and_none_where_undefined(generator: np.random.Generator) -> None:
    wanted, p = generator.random(80) < 0.3, generator.random(80)
    review = np.zeros(80, bool)
    assert label_metrics(wanted, p > 0.5, p, review).average_precision == average_precision_score(wanted, p)
    assert label_metrics(np.zeros(80, bool), p > 0.5, p, review).average_precision is None


def test_calibration_error_is_zero_for_honest_and_large_for_boastful_probabilities(generator: np.random.Generator) -> None:
    p = generator.random(60_000)
    assert expected_calibration_error(generator.random(60_000) < p, p) < 0.01
    assert expected_calibration_error(np.zeros(100, bool), np.full(100, 0.9)) == pytest.approx(0.9)
    assert expected_calibration_error(np.array([True]), np.array([1.0])) == 0.0


def test_intervals_hold_the_truth_about_as_often_as_they_say() -> None:
    generator = np.random.default_rng(0)
    covered = 0
    for trial in range(120):
        sample = generator.random(150) < 0.4
        low, high = bootstrap_interval(lambda rows, s=sample: float(s[rows].mean()), 150, samples=300, seed=trial)
        covered += low <= 0.4 <= high
    assert 0.88 <= covered / 120 <= 1.0


def test_intervals_of_f1_hold_the_truth_about_as_often_as_they_say() -> None:
    generator = np.random.default_rng(1)

    def draw(rows: int) -> tuple[np.ndarray, np.ndarray]:
        wanted = generator.random(rows) < 0.3
        return wanted, wanted ^ (generator.random(rows) < 0.1)

    truth = f1_score(*draw(400_000))
    covered = 0
    for trial in range(120):
        wanted, decided = draw(200)
        low, high = bootstrap_interval(
            lambda rows, w=wanted, d=decided: precision_recall_f1(w[rows], d[rows])[2], 200, samples=300, seed=trial
        )
        covered += low <= truth <= high
    assert 0.88 <= covered / 120 <= 1.0


@given(st.lists(st.tuples(*[st.booleans()] * 3), max_size=60))
@settings(max_examples=100, deadline=None)
def test_mcnemar_counts_the_texts_that_one_model_alone_decides_rightly(rows: list[tuple]) -> None:
    wanted, first, second = (np.array([row[i] for row in rows], dtype=bool) for i in range(3))
    only_first = sum(f == w != s for w, f, s in rows)
    only_second = sum(s == w != f for w, f, s in rows)
    found = mcnemar(wanted, first, second)
    assert found[:2] == (only_first, only_second)
    swapped = mcnemar(wanted, second, first)
    assert swapped == (only_second, only_first, pytest.approx(found[2]))
    discordant = only_first + only_second
    tail = sum(comb(discordant, k) for k in range(min(only_first, only_second) + 1)) / 2**discordant
    assert found[2] == pytest.approx(min(1.0, 2 * tail))


def test_review_share_and_what_is_right_outside_of_it() -> None:
    wanted = np.array([True, True, False, False])
    decided = np.array([True, False, False, True])
    review = np.array([False, True, False, True])
    found = label_metrics(wanted, decided, np.array([0.9, 0.4, 0.1, 0.6]), review)
    assert (found.review_share, found.decided_precision) == (0.5, 1.0)
    assert label_metrics(wanted, decided, np.zeros(4), np.ones(4, bool)).decided_precision is None


def test_averages_come_with_intervals_around_them(generator: np.random.Generator) -> None:
    wanted = generator.random((300, 4)) < 0.4
    decided = wanted ^ (generator.random((300, 4)) < 0.1)
    for average in averages(wanted, decided).values():
        assert average.interval[0] < average.f1 < average.interval[1]

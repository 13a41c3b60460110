from __future__ import annotations

import numpy as np
import pytest

from models.reference import BINS, bin_of, stability_index


def test_probabilities_fall_into_tenths() -> None:
    assert [bin_of(p) for p in (0.0, 0.09, 0.1, 0.55, 0.999, 1.0)] == [0, 0, 1, 5, 9, 9]


def test_the_same_shape_is_no_drift_and_another_one_is(generator: np.random.Generator) -> None:
    shape = np.array([40, 20, 10, 5, 5, 5, 5, 4, 3, 3]) / 100
    reference = generator.multinomial(2_000, shape).tolist()
    assert stability_index(reference, reference) == pytest.approx(0.0)
    same = [stability_index(reference, generator.multinomial(1_000, shape).tolist()) for _ in range(300)]
    assert np.mean(same) == pytest.approx((BINS - 1) * (1 / 2_000 + 1 / 1_000), rel=0.3)
    assert max(same) < 0.1
    assert stability_index(reference, generator.multinomial(1_000, shape[::-1]).tolist()) > 0.25

from __future__ import annotations

from models.classifier import Classifier
from service.metrics import Metrics


def test_input_that_is_not_what_the_model_was_calibrated_on_shows_as_drift(released: Classifier) -> None:
    metrics = Metrics()
    metrics.watch_drift(lambda: {"en": {"displacement": [1_000, 3, 3, 3, 3, 3, 3, 3, 3, 3]}})
    usual, other = released.classify(["Rain is expected.", "They fled the village and live in a camp."])
    metrics.answers([usual] * 199)
    assert "rasid_input_drift{" not in metrics.page().decode()

    def drift() -> float:
        found = [line for line in metrics.page().decode().splitlines() if line.startswith("rasid_input_drift{")]
        assert len(found) == 1
        assert found[0].startswith('rasid_input_drift{label="displacement",language="en"}')
        return float(found[0].rsplit(" ", 1)[1])

    metrics.answers([usual] * 801)
    assert drift() < 0.25
    metrics.answers([other] * 800)
    assert drift() > 1.0

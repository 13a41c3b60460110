from __future__ import annotations

from models.classifier import Classifier
from service.metrics import Metrics

REFERENCE = {"en": {"displacement": [1_000, 3, 3, 3, 3, 3, 3, 3, 3, 3]}}


def drifts(metrics: Metrics) -> dict[str, float]:
    found = [line for line in metrics.page().decode().splitlines() if line.startswith("rasid_input_drift{")]
    return {name: float(value) for name, value in (line.rsplit(" ", 1) for line in found)}


def test_input_that_is_not_what_the_model_was_calibrated_on_shows_as_drift(released: Classifier) -> None:
    metrics = Metrics()
    metrics.watch_drift(lambda: {"hash": "m"}, lambda: REFERENCE)
    usual, other = released.classify(["Rain is expected.", "They fled the village and live in a camp."])
    metrics.answers([usual] * 199, model="m", granularity="passage")
    assert drifts(metrics) == {}

    def drift() -> float:
        [(name, value)] = drifts(metrics).items()
        assert name == 'rasid_input_drift{label="displacement",language="en"}'
        return value

    metrics.answers([usual] * 801, model="m", granularity="passage")
    assert drift() < 0.25
    metrics.answers([other] * 800, model="m", granularity="document")  # the reference is of passages
    assert drift() < 0.25
    metrics.answers([other] * 800, model="m", granularity="passage")
    assert drift() > 1.0


def test_a_model_is_compared_with_its_own_calibration_alone(released: Classifier) -> None:
    metrics, active = Metrics(), {"hash": "one"}
    metrics.watch_drift(lambda: active, lambda: REFERENCE)
    usual, other = released.classify(["Rain is expected.", "They fled the village and live in a camp."])
    metrics.answers([other] * 500, model="one", granularity="passage")
    assert drifts(metrics)
    active["hash"] = "two"
    assert drifts(metrics) == {}
    metrics.answers([usual] * 500, model="two", granularity="passage")
    metrics.answers([other] * 100, model="one", granularity="passage")  # requests that began before
    [drift] = drifts(metrics).values()
    assert drift < 0.25

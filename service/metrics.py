"""Prometheus metrics. Labels are routes, statuses and the taxonomy's names, never anything that a caller sent."""

from __future__ import annotations

from collections import Counter as Counts
from collections import defaultdict, deque
from collections.abc import Callable, Iterator, Sequence

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

from models.prediction import Answer, Granularity, Prediction
from models.reference import BINS, bin_of, stability_index
from service.scheduler import Batch, QueueState
from service.serving import Answered

_RECENT, _FEW = 1_000, 200
_SECONDS = (0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 30)
_METHODS = frozenset({"GET", "POST", "PUT", "PATCH", "DELETE", "HEAD", "OPTIONS"})


class Metrics:
    """All metrics of one service."""

    def __init__(self) -> None:
        self.registry = on = CollectorRegistry()
        self._requests = Counter("rasid_requests", "Requests answered.", ["route", "method", "status"], registry=on)
        self._seconds = Histogram("rasid_request_seconds", "Time of a request.", ["route"], buckets=_SECONDS, registry=on)
        self.in_flight = Gauge("rasid_requests_in_flight", "Requests being served.", registry=on)
        self._phases = Histogram(
            "rasid_phase_seconds",
            "Time of a request in each phase: prepare (text preparation and tokenisation), queue, inference.",
            ["phase"],
            buckets=_SECONDS,
            registry=on,
        )
        self._batches = Histogram("rasid_batch_seconds", "Inference time of a batch.", buckets=_SECONDS, registry=on)
        self._batch_rows = Histogram("rasid_batch_rows", "Passages in a batch.", buckets=(1, 2, 4, 8, 16, 32, 64), registry=on)
        self._tokens = Counter("rasid_inference_tokens", "Tokens computed.", registry=on)
        self._texts = Counter("rasid_texts", "Texts answered.", ["language"], registry=on)
        self._rejections = Counter("rasid_rejected_texts", "Texts that could not be answered.", ["code"], registry=on)
        self._flags = Counter("rasid_flagged_texts", "Texts with a flag, as unsupported_language.", ["flag"], registry=on)
        self._truncated = Counter("rasid_truncated_texts", "Passages longer than the model reads.", registry=on)
        self._decisions = Counter("rasid_decisions", "Decisions.", ["label", "language", "decision"], registry=on)
        self._probabilities = Histogram(
            "rasid_probability",
            "Probabilities given: a shift against earlier weeks is a shift of the input or of the model.",
            ["label", "language"],
            buckets=[n / 10 for n in range(1, 11)],
            registry=on,
        )
        self._text_tokens = Histogram(
            "rasid_request_tokens", "Tokens of a request.", buckets=(16, 32, 64, 128, 256, 512, 1024, 4096, 16384), registry=on
        )

        self._recent: defaultdict[tuple[str, str, str], deque[int]] = defaultdict(lambda: deque(maxlen=_RECENT))

    def watch(self, state: Callable[[], QueueState], model: Callable[[], dict[str, str]]) -> None:
        """Report the queue and the active model whenever metrics are read."""
        self.registry.register(_StateCollector(state, model))

    def watch_drift(
        self, model: Callable[[], dict[str, str]], reference: Callable[[], dict[str, dict[str, list[int]]]]
    ) -> None:
        """Report how far the active model's recent probabilities are from those of its calibration (`models.reference`).

        By language and label; of passages, as the calibration is.
        """
        self.registry.register(_DriftCollector(self._recent, model, reference))

    def watch_jobs(self, counts: Callable[[], dict[str, int]]) -> None:
        """Report how many jobs stand in each state whenever metrics are read."""
        self.registry.register(_JobsCollector(counts))

    def request(self, route: str, method: str, status: int, seconds: float) -> None:
        """Count a request."""
        self._requests.labels(route, method if method in _METHODS else "other", str(status)).inc()
        self._seconds.labels(route).observe(seconds)

    def batch(self, batch: Batch) -> None:
        """Count a batch."""
        self._batches.observe(batch.seconds)
        self._batch_rows.observe(batch.rows)
        self._tokens.inc(batch.tokens)

    def answered(self, answered: Answered, *, model: str, granularity: Granularity) -> None:
        """Count what a request was answered by the model of this hash."""
        for phase in ("prepare", "queue", "inference"):
            self._phases.labels(phase).observe(getattr(answered, f"{phase}_seconds"))
        self._text_tokens.observe(answered.tokens)
        self.answers(answered.answers, model=model, granularity=granularity)

    def answers(self, answers: Sequence[Answer], *, model: str, granularity: Granularity) -> None:
        """Count predictions and rejections."""
        for answer in answers:
            if not isinstance(answer, Prediction):
                self._rejections.labels(answer.error.code).inc()
                continue
            self._texts.labels(answer.language).inc()
            for flag in answer.flags:
                self._flags.labels(flag).inc()
            if answer.truncated:
                self._truncated.inc()
            for label, given in answer.labels.items():
                self._decisions.labels(label, answer.language, given.decision).inc()
                self._probabilities.labels(label, answer.language).observe(given.probability)
                if granularity == "passage":  # an article's is the highest of its sentences
                    self._recent[model, answer.language, label].append(bin_of(given.probability))

    def page(self) -> bytes:
        """The metrics in the text format of Prometheus."""
        return generate_latest(self.registry)


class _StateCollector(Collector):
    def __init__(self, state: Callable[[], QueueState], model: Callable[[], dict[str, str]]) -> None:
        self._state = state
        self._model = model

    def collect(self) -> Iterator[GaugeMetricFamily]:
        state = self._state()
        yield GaugeMetricFamily("rasid_queue_tokens", "Tokens that wait.", state.waiting_tokens)
        yield GaugeMetricFamily("rasid_queue_rows", "Passages that wait.", state.waiting_rows)
        yield GaugeMetricFamily("rasid_queue_oldest_seconds", "How long the oldest has waited.", state.oldest_seconds)
        yield GaugeMetricFamily("rasid_tokens_per_second", "Rate of inference, moving average.", state.tokens_per_second)
        info = GaugeMetricFamily("rasid_model_info", "The model that answers.", labels=["name", "version", "hash"])
        model = self._model()
        info.add_metric([model["name"], model["version"], model["hash"]], 1)
        yield info


class _DriftCollector(Collector):
    def __init__(
        self,
        recent: dict[tuple[str, str, str], deque[int]],
        model: Callable[[], dict[str, str]],
        reference: Callable[[], dict[str, dict[str, list[int]]]],
    ) -> None:
        self._recent = recent
        self._model = model
        self._reference = reference

    def collect(self) -> Iterator[GaugeMetricFamily]:
        help_text = f"Stability index of the last {_RECENT} passages against the calibration; above 0.25 is a shift."
        family = GaugeMetricFamily("rasid_input_drift", help_text, labels=["label", "language"])
        active, reference = self._model()["hash"], self._reference()
        for (model, language, label), bins in list(self._recent.items()):
            before = reference.get(language, {}).get(label)
            if model == active and before is not None and len(bins) >= _FEW:
                counts = Counts(bins)
                family.add_metric([label, language], stability_index(before, [counts[n] for n in range(BINS)]))
        yield family


class _JobsCollector(Collector):
    def __init__(self, counts: Callable[[], dict[str, int]]) -> None:
        self._counts = counts

    def collect(self) -> Iterator[GaugeMetricFamily]:
        family = GaugeMetricFamily("rasid_jobs", "Jobs by state.", labels=["state"])
        for state, count in self._counts().items():
            family.add_metric([state], count)
        yield family

"""The model that serves: a classifier behind a scheduler, exchanged for another while requests run."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import anyio
import numpy as np

from models.classifier import Classifier, Encoded, TextItem
from models.errors import RasidError
from models.prediction import Answer, Granularity, Prediction
from service.errors import ActivationError, DeadlineError, NotReadyError, ShuttingDownError
from service.scheduler import Batch, QueueState, Scheduler
from service.settings import Settings

_INLINE_CHARACTERS = 4_000  # shorter requests are prepared on the event loop: a hop to a thread costs more
_READY_SECONDS = 5.0
_STUCK_SECONDS = 30.0
CANARY_TEXTS = (
    "Hundreds of families fled their homes in the village after the shelling and now live in a camp for displaced people.",
    "اضطرت مئات العائلات إلى النزوح من بيوتها في القرية بعد القصف، وتعيش الآن في مخيم للنازحين.",
    "Boil the rice for twelve minutes and add a little salt.",
    "اسلقي الأرز اثنتي عشرة دقيقة وأضيفي قليلاً من الملح.",
)
"""Two passages that tell of displacement and two that tell of nothing: what a model must get right before it serves."""


@dataclass(frozen=True, slots=True)
class Answered:
    """Answers in the order of their texts, which classifier gave them, and where the time went."""

    answers: list[Answer]
    classifier: Classifier
    tokens: int
    prepare_seconds: float
    queue_seconds: float
    inference_seconds: float


class ModelHost:
    """Holds the active model, and the one before it for rollback. Requests that began with a model end with it."""

    def __init__(
        self, classifier: Classifier, settings: Settings, *, observe: Callable[[Batch], None] = lambda _batch: None
    ) -> None:
        """Start serving with a classifier."""
        self._settings = settings
        self._observe = observe
        self._permit = anyio.CapacityLimiter(1)
        self._exchange = asyncio.Lock()
        self.previous: Path | None = None
        self.classifier = classifier
        self._scheduler = self._start(classifier)

    async def classify(
        self, items: Sequence[TextItem], *, granularity: Granularity, evidence: bool, deadline: float = math.inf
    ) -> Answered:
        """Answer items in their order. Raises ServiceError or EngineError.

        Where the task is cancelled, what was not computed yet is dropped.
        """
        began = time.monotonic()
        while True:
            classifier, scheduler = self.classifier, self._scheduler
            work = await self._encode(classifier, items, granularity, evidence)
            prepared = time.monotonic()
            if prepared >= deadline:
                raise DeadlineError("the request's time was over before its texts were prepared; allow more or send less")
            tokens = sum(map(len, work.rows))
            try:
                scheduler.admit(tokens)
                outcome = await scheduler.run(work.rows, deadline=deadline)
            except ShuttingDownError:
                if scheduler is self._scheduler:
                    raise
                continue  # another model took over between preparing and running: ask that one
            answers = classifier.decide(work, outcome.logits)
            return Answered(answers, classifier, tokens, prepared - began, outcome.queue_seconds, outcome.inference_seconds)

    def admit(self, tokens: int) -> None:
        """Raise OverloadedError where about so many tokens more would be too many."""
        self._scheduler.admit(tokens)

    def state(self) -> QueueState:
        """What waits now."""
        return self._scheduler.state()

    def describe(self) -> dict[str, str]:
        """Name, version and hash of the active model."""
        manifest = self.classifier.bundle.manifest
        return {"name": manifest.name, "version": manifest.version, "hash": manifest.model_hash}

    async def check(self) -> None:
        """Raise NotReadyError unless the model answers: one real inference in each language, ahead of what waits."""
        state = self.state()
        if not state.alive:
            raise NotReadyError("an inference worker is gone; restart the service")
        if state.running_seconds > _STUCK_SECONDS:
            raise NotReadyError(f"one batch has been running for {state.running_seconds:.0f} s; restart the service")
        rows = self.classifier.encode(CANARY_TEXTS[:2]).rows
        try:
            outcome = await self._scheduler.run(rows, deadline=time.monotonic() + _READY_SECONDS, urgent=True)
        except RasidError as error:
            raise NotReadyError(f"the model did not answer a check: {error}") from None
        if not np.isfinite(outcome.logits).all():
            raise NotReadyError("the model's answers are not numbers; restart the service or roll back")

    async def activate(self, path: Path) -> None:
        """Load a bundle, check it on fixed texts, let it take over. The old one answers until then.

        Raises BundleError or EngineError where it cannot be loaded, ActivationError where it fails the check.
        """
        async with self._exchange:
            classifier = await asyncio.to_thread(self._load, path)
            former, retired = self.classifier.bundle.path, self._scheduler
            self.classifier, self._scheduler = classifier, self._start(classifier)
            self.previous = former
            await asyncio.to_thread(retired.close)

    async def rollback(self) -> None:
        """Let the model before the active one take over again. Raises ActivationError where there was none."""
        if self.previous is None:
            raise ActivationError("no model was active before this one since the service started")
        await self.activate(self.previous)

    def close(self) -> None:
        """Finish what waits and stop."""
        self._scheduler.close(timeout_seconds=self._settings.drain_seconds)

    def _start(self, classifier: Classifier) -> Scheduler:
        return Scheduler(
            classifier.engine.run,
            workers=classifier.engine.streams,
            max_waiting_tokens=self._settings.max_waiting_tokens,
            max_batch_tokens=self._settings.max_batch_tokens,
            cache_rows=self._settings.cache_texts,
            observe=self._observe,
        )

    def _load(self, path: Path) -> Classifier:
        classifier = Classifier.load(path, threads=self._settings.threads, engine=self._settings.engine)
        check_canary(classifier)
        return classifier

    async def _encode(
        self, classifier: Classifier, items: Sequence[TextItem], granularity: Granularity, evidence: bool
    ) -> Encoded:
        if sum(len(item.text) for item in items) <= _INLINE_CHARACTERS:
            return classifier.encode(items, granularity=granularity, evidence=evidence)
        return await anyio.to_thread.run_sync(
            lambda: classifier.encode(items, granularity=granularity, evidence=evidence), limiter=self._permit
        )


def check_canary(classifier: Classifier) -> None:
    """Raise ActivationError unless a classifier answers fixed texts as any model of these labels must.

    A model with other labels must answer all the same, and alike alone and in company.
    """
    together = classifier.classify(CANARY_TEXTS)
    alone = [classifier.classify([text])[0] for text in CANARY_TEXTS]
    for number, (answer, single) in enumerate(zip(together, alone, strict=True)):
        if not isinstance(answer, Prediction) or not isinstance(single, Prediction):
            raise ActivationError(f"the bundle does not answer check text {number}")
        if answer.labels != single.labels:
            raise ActivationError(f"the bundle answers check text {number} differently alone and in company")
        told = answer.labels.get("displacement")
        if told is not None and (told.probability >= 0.5) != (number < 2):
            raise ActivationError(
                f"the bundle gives displacement {told.probability} on check text {number}, which {'tells' if number < 2 else 'does not tell'} of it"  # noqa: E501
            )

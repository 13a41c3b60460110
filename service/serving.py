"""The model that serves: a classifier behind a scheduler, exchanged for another while requests run."""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import gc
import math
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from models.classifier import Classifier, Encoded, TextItem
from models.errors import RasidError
from models.prediction import Answer, Granularity, Prediction
from service.errors import ActivationError, DeadlineError, NotReadyError, OverloadedError
from service.scheduler import Batch, QueueState, Scheduler
from service.settings import Settings

_INLINE_CHARACTERS, _INLINE_TEXTS = 4_000, 8  # less is prepared on the event loop: a hop to a thread costs more
_CHARACTERS_PER_TOKEN = 5  # a low guess of the tokens of a text that is not cut yet
_PATIENCE_SECONDS = 0.05
_READY_SECONDS = 5.0
_READY_FOR_SECONDS = 1.0
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
    """Answers in the order of their texts, and where the time went."""

    answers: list[Answer]
    tokens: int
    prepare_seconds: float
    queue_seconds: float
    inference_seconds: float


@dataclass(slots=True, eq=False)
class Serving:
    """A model at work, and how many requests are with it."""

    classifier: Classifier
    scheduler: Scheduler
    requests: int = 0
    retired: bool = False


class ModelHost:
    """Holds the active model, and the one before it for rollback. Requests that began with a model end with it.

    All but `state` and `close` belongs to the event loop.
    """

    def __init__(
        self, classifier: Classifier, settings: Settings, *, observe: Callable[[Batch], None] = lambda _batch: None
    ) -> None:
        """Start serving with a classifier."""
        self._settings = settings
        self._observe = observe
        self._preparer = ThreadPoolExecutor(1, thread_name_prefix="rasid-prepare")
        self._preparing = 0  # tokens, guessed, of requests that are not in the queue yet
        self._requests = 0
        self._exchange = asyncio.Lock()
        self._checking = asyncio.Lock()
        self._ready_until = -math.inf
        self.previous: Path | None = None
        classifier.classify(CANARY_TEXTS[:2])  # what is loaded at first use is loaded now
        self.active = self._start(classifier)

    @contextmanager
    def request(self) -> Iterator[Serving]:
        """The active model, kept at work until the request is done with it."""
        serving = self.active
        serving.requests += 1
        self._requests += 1
        try:
            yield serving
        finally:
            serving.requests -= 1
            self._requests -= 1
            if serving.retired and not serving.requests:
                _retire(serving)

    async def classify(
        self,
        serving: Serving,
        items: Sequence[TextItem],
        *,
        granularity: Granularity,
        evidence: bool,
        deadline: float = math.inf,
        patient: bool = False,
    ) -> Answered:
        """Answer items in their order. `deadline` is a time of `time.monotonic()`.

        Where the queue is full, a `patient` caller waits for room. Where the task is cancelled, what was not computed yet is
        dropped. Raises OverloadedError, DeadlineError, ShuttingDownError or EngineError.
        """
        began = time.monotonic()
        guess = sum(len(item.text) for item in items) // _CHARACTERS_PER_TOKEN
        await self._room(serving, guess, deadline, patient=patient)
        self._preparing += guess
        try:
            work = await self._encode(serving.classifier, items, granularity, evidence, deadline)
        finally:
            self._preparing -= guess
        prepared = time.monotonic()
        tokens = sum(map(len, work.rows))
        if tokens > self._settings.max_batch_tokens:  # short ones were let in already
            await self._room(serving, tokens, deadline, patient=patient)
        outcome = await serving.scheduler.run(work.rows, deadline=deadline)
        answers = serving.classifier.decide(work, outcome.logits)
        return Answered(answers, tokens, prepared - began, outcome.queue_seconds, outcome.inference_seconds)

    def admit(self, tokens: int) -> None:
        """Raise OverloadedError where a request more, or about so many tokens, would be too many."""
        if self._requests >= self._settings.max_requests:
            raise OverloadedError("as many requests as may be are in work; try again in 1 s", retry_after_seconds=1)
        self.active.scheduler.admit(tokens + self._preparing)

    def state(self) -> QueueState:
        """What waits now."""
        return self.active.scheduler.state()

    def describe(self) -> dict[str, str]:
        """Name, version and hash of the active model."""
        manifest = self.active.classifier.bundle.manifest
        return {"name": manifest.name, "version": manifest.version, "hash": manifest.model_hash}

    def reference(self) -> dict[str, dict[str, list[int]]]:
        """The probabilities of the active model's calibration, by language and label; nothing where it does not tell."""
        found: dict[str, dict[str, list[int]]] = self.active.classifier.bundle.manifest.training.get("reference", {})
        return found

    def bundle_path(self) -> Path:
        """Where the bundle of the active model lies."""
        return self.active.classifier.bundle.path

    async def check(self) -> None:
        """Raise NotReadyError unless the model answers: one real inference in each language, ahead of what waits.

        A good answer holds for a second, so that asking often costs nothing.
        """
        state = self.state()
        if not state.alive:
            raise NotReadyError("an inference worker is gone; restart the service")
        if state.running_seconds > _STUCK_SECONDS:
            raise NotReadyError(f"one batch has been running for {state.running_seconds:.0f} s; restart the service")
        async with self._checking:
            if time.monotonic() < self._ready_until:
                return
            with self.request() as serving:
                rows = serving.classifier.encode(CANARY_TEXTS[:2]).rows
                try:
                    outcome = await serving.scheduler.run(rows, deadline=time.monotonic() + _READY_SECONDS, urgent=True)
                except RasidError as error:
                    raise NotReadyError(f"the model did not answer a check: {error}") from None
            if not np.isfinite(outcome.logits).all():
                raise NotReadyError("the model's answers are not numbers; restart the service or roll back")
            self._ready_until = time.monotonic() + _READY_FOR_SECONDS

    async def activate(self, path: Path) -> None:
        """Load a bundle, check it on fixed texts, let it take over. The old one answers until then, and what it began.

        Raises BundleError or EngineError where it cannot be loaded, ActivationError where it fails the check.
        """
        async with self._exchange:
            classifier = await asyncio.to_thread(self._load, path)
            retired, self.active = self.active, self._start(classifier)
            self.previous = retired.classifier.bundle.path
            self._ready_until = -math.inf
            retired.retired = True
            if not retired.requests:
                _retire(retired)

    async def rollback(self) -> None:
        """Let the model before the active one take over again. Raises ActivationError where there was none."""
        if self.previous is None:
            raise ActivationError("no model was active before this one since the service started")
        await self.activate(self.previous)

    def close(self) -> None:
        """Finish what waits and stop."""
        self.active.scheduler.close(timeout_seconds=self._settings.drain_seconds)
        self._preparer.shutdown(wait=False, cancel_futures=True)

    def _start(self, classifier: Classifier) -> Serving:
        scheduler = Scheduler(
            classifier.engine.run,
            workers=classifier.engine.streams,
            max_waiting_tokens=self._settings.max_waiting_tokens,
            max_batch_tokens=self._settings.max_batch_tokens,
            cache_rows=self._settings.cache_texts,
            observe=self._observe,
        )
        return Serving(classifier, scheduler)

    def _load(self, path: Path) -> Classifier:
        classifier = Classifier.load(path, threads=self._settings.threads, engine=self._settings.engine)
        check_canary(classifier)
        return classifier

    async def _room(self, serving: Serving, tokens: int, deadline: float, *, patient: bool) -> None:
        while True:
            if time.monotonic() >= deadline:
                raise DeadlineError("the time allowed was over before the texts were computed; allow more or send less")
            try:
                serving.scheduler.admit(tokens, deadline=deadline)
            except OverloadedError:
                if not patient:
                    raise
                await asyncio.sleep(_PATIENCE_SECONDS)
            else:
                return

    async def _encode(
        self, classifier: Classifier, items: Sequence[TextItem], granularity: Granularity, evidence: bool, deadline: float
    ) -> Encoded:
        if len(items) <= _INLINE_TEXTS and sum(len(item.text) for item in items) <= _INLINE_CHARACTERS:
            return classifier.encode(items, granularity=granularity, evidence=evidence)

        def encode() -> Encoded:
            if time.monotonic() >= deadline:
                raise DeadlineError("the time allowed was over before the texts were prepared; allow more or send less")
            return classifier.encode(items, granularity=granularity, evidence=evidence)

        prepared = asyncio.get_running_loop().run_in_executor(self._preparer, encode)
        try:
            async with asyncio.timeout(None if math.isinf(deadline) else deadline - time.monotonic()):
                return await prepared
        except TimeoutError:
            raise DeadlineError("the time allowed was over before the texts were prepared; allow more or send less") from None


def _retire(serving: Serving) -> None:
    """Stop the workers of a model that is no longer asked, beside everything else: they may hang. Then give its memory back."""
    holder = [serving]

    def end() -> None:
        holder.pop().scheduler.close()
        give_memory_back()

    threading.Thread(target=end, name="rasid-retire", daemon=True).start()


def give_memory_back() -> None:
    """Free what nobody holds any more. glibc keeps what was freed unless it is told; others have no such call."""
    gc.collect()
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).malloc_trim(0)


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
        wanted = number < 2
        if told is not None and (told.probability >= 0.5) != wanted:
            what = "tells" if wanted else "does not tell"
            raise ActivationError(
                f"the bundle gives displacement {told.probability} to check text {number}, which {what} of it"
            )

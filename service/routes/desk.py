"""What every route has at hand, and the one way from a request to answers."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Sequence
from dataclasses import dataclass, replace
from typing import Annotated, Any

from fastapi import Depends, Header, Request
from pydantic import WithJsonSchema

from models.classifier import Classifier, TextItem
from models.errors import TextTooLongError
from models.prediction import Answer, Granularity, Problem, Rejection
from service.auth import KeyRing, Scope
from service.errors import ClientLeftError, TooLargeError
from service.jobs.host import JobHost
from service.metrics import Metrics
from service.quotas import Quotas
from service.requests import facts_of
from service.schemas import ProblemDetail
from service.serving import Answered, ModelHost, Serving
from service.settings import Settings

Timeout = Annotated[
    float | None,
    WithJsonSchema({"type": "number", "exclusiveMinimum": 0}),
    Header(alias="X-Timeout-Seconds", gt=0, allow_inf_nan=False, description="Answer within so many seconds, or with 504."),
]


@dataclass(frozen=True, slots=True)
class Desk:
    """The parts of one service."""

    settings: Settings
    host: ModelHost
    keys: KeyRing
    quotas: Quotas
    metrics: Metrics
    jobs: JobHost

    async def classify(
        self,
        request: Request,
        items: Sequence[TextItem],
        *,
        granularity: Granularity,
        evidence: bool,
        timeout_seconds: float | None,
    ) -> tuple[Answered, Classifier]:
        """Answers in the order of the items; those beyond the limit of length are rejected. Raises ServiceError.

        Where the caller hangs up, what was not computed yet is dropped.
        """
        if len(items) > self.settings.max_texts:
            raise TooLargeError(f"expected at most {self.settings.max_texts} texts in a request, got {len(items)}")
        self.host.admit(sum(len(item.text) for item in items) // _CHARACTERS_PER_TOKEN)  # before it counts for the quota
        self.spend(request, len(items))
        facts = facts_of(request.scope)
        allowed = min(timeout_seconds or self.settings.timeout_seconds, self.settings.timeout_seconds)
        with self.host.request() as serving:
            work = self.answer(serving, items, granularity=granularity, evidence=evidence, deadline=facts.received + allowed)
            answered = await unless_left(request, work)
        facts.logged["texts"] = len(items)
        facts.logged["tokens"] = answered.tokens
        for phase in ("prepare", "queue", "inference"):
            facts.logged[f"{phase}_seconds"] = round(getattr(answered, f"{phase}_seconds"), 4)
        return answered, serving.classifier

    async def answer(
        self,
        serving: Serving,
        items: Sequence[TextItem],
        *,
        granularity: Granularity,
        evidence: bool,
        deadline: float,
        patient: bool = False,
    ) -> Answered:
        """Answers in the order of the items, counted in the metrics."""
        limit = self.settings.max_text_characters
        fitting = [item for item in items if len(item.text) <= limit]
        answered = await self.host.classify(
            serving, fitting, granularity=granularity, evidence=evidence, deadline=deadline, patient=patient
        )
        if len(fitting) < len(items):
            found = iter(answered.answers)
            whole = [next(found) if len(item.text) <= limit else _too_long(item, limit) for item in items]
            answered = replace(answered, answers=whole)
        model = serving.classifier.bundle.manifest.model_hash
        self.metrics.answered(answered, model=model, granularity=granularity)
        return answered

    def spend(self, request: Request, texts: int) -> None:
        """Count texts against the caller's quotas. Raises QuotaError."""
        address = request.client.host if request.client else "unknown"
        self.quotas.spend(facts_of(request.scope).caller, address, texts)


async def unless_left(request: Request, work: Coroutine[Any, Any, Answered]) -> Answered:
    """What `work` returns; cancels it and raises ClientLeftError where the caller closes the connection first."""
    task = asyncio.ensure_future(work)
    left = asyncio.ensure_future(_until_left(request))
    try:
        await asyncio.wait({task, left}, return_when=asyncio.FIRST_COMPLETED)
        if not task.done():
            raise ClientLeftError("the caller closed the connection")
        return task.result()
    finally:
        for one in (task, left):
            one.cancel()


async def _until_left(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass


def server_timing(answered: Answered) -> str:
    """The phases of a request as the `Server-Timing` header has them, in milliseconds."""
    phases = ("prepare", "queue", "inference")
    return ", ".join(f"{phase};dur={getattr(answered, f'{phase}_seconds') * 1_000:.1f}" for phase in phases)


def problems(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """How a route's problems are described in the OpenAPI document."""
    return {
        status: {"description": _PROBLEMS[status], "content": {"application/problem+json": {"schema": _PROBLEM_SCHEMA}}}
        for status in (*statuses, *_EVERYWHERE)
    }


def allow(scope: Scope) -> Any:
    """A dependency: the caller must have the scope."""

    async def check(request: Request) -> None:  # a function that is not async would cost a hop to a thread
        facts_of(request.scope).caller.require(scope)

    return Depends(check)


async def _desk(request: Request) -> Desk:
    desk: Desk = request.app.state.desk
    return desk


def _too_long(item: TextItem, limit: int) -> Answer:
    detail = f"expected at most {limit} characters, got {len(item.text)}; send the article in parts"
    return Rejection(id=item.id, error=Problem(code=TextTooLongError.code, detail=detail))


_CHARACTERS_PER_TOKEN = 8  # few, so that only a really full queue refuses before the tokens are known
_PROBLEM_SCHEMA = {"$ref": f"#/components/schemas/{ProblemDetail.__name__}"}
_EVERYWHERE = (401, 403, 500)
_PROBLEMS = {
    400: "The body does not parse.",
    401: "An API key is needed.",
    403: "The key lacks the scope.",
    404: "There is nothing of this name.",
    409: "Not in this state of things: the bundle cannot take over, or the job has no results.",
    410: "What came of the job was deleted.",
    413: "Too large.",
    415: "The body is packed in a way that is not understood.",
    416: "There are no such bytes.",
    422: "A field is missing or wrong.",
    429: "The quota is used up; `Retry-After` tells for how long.",
    503: "Overloaded or stopping; `Retry-After` tells when to come again.",
    500: "The service failed.",
    504: "Not answered in the time allowed.",
    507: "The disk is full; `Retry-After` tells when to come again.",
}
DeskDependency = Annotated[Desk, Depends(_desk)]

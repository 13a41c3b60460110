"""Classifying: a request with its answer, and many texts as a stream of lines."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Sequence
from typing import Annotated

from fastapi import APIRouter, Query, Request
from fastapi.responses import Response, StreamingResponse

from models.classifier import TextItem
from models.errors import RasidError
from models.prediction import Answer, Granularity, Problem, Rejection
from service.auth import Scope
from service.errors import OverloadedError
from service.lines import read_line
from service.requests import facts_of
from service.routes.desk import Desk, DeskDependency, Timeout, allow, problems, server_timing
from service.schemas import ClassifyRequest, ClassifyResponse, ModelName

router = APIRouter(tags=["classify"], dependencies=[allow(Scope.CLASSIFY)])

_CHUNK_LINES = 32
_RETRY_SECONDS = 0.05


@router.post(
    "/v1/classify",
    response_model=ClassifyResponse,
    responses=problems(400, 413, 415, 422, 429, 503, 504),
    summary="Classify texts",
)
async def classify(body: ClassifyRequest, request: Request, desk: DeskDependency, timeout_seconds: Timeout = None) -> Response:
    """Classify one text or many. A text that cannot be answered comes back with its `error`; the others are not affected.

    `Server-Timing` tells how long preparation, queue and inference took.
    """
    items = [
        TextItem(str(index), entry) if isinstance(entry, str) else TextItem(entry.id, entry.text)
        for index, entry in enumerate(body.texts)
    ]
    answered = await desk.classify(
        request, items, granularity=body.granularity, evidence=body.evidence, timeout_seconds=timeout_seconds
    )
    manifest = answered.classifier.bundle.manifest
    content = ClassifyResponse(
        model=ModelName(name=manifest.name, version=manifest.version), predictions=answered.answers
    ).model_dump_json()
    return Response(content, media_type="application/json", headers={"Server-Timing": server_timing(answered)})


@router.post(
    "/v1/classify/stream",
    response_class=StreamingResponse,
    responses={
        200: {"description": "One prediction or rejection a line.", "content": {"application/x-ndjson": {"schema": {}}}},
        **problems(400, 413, 415, 422, 429, 503),
    },
    openapi_extra={
        "requestBody": {
            "required": True,
            "description": 'Lines of JSON: `{"id": …, "text": …}` or a string.',
            "content": {"application/x-ndjson": {"schema": {"type": "string"}}},
        }
    },
    summary="Classify many texts as a stream of lines",
)
async def stream(
    request: Request,
    desk: DeskDependency,
    granularity: Annotated[Granularity, Query(description="As in /v1/classify.")] = "passage",
    evidence: Annotated[bool, Query(description="As in /v1/classify.")] = False,
    timeout_seconds: Timeout = None,
) -> StreamingResponse:
    """One answer a line, in the order of the lines, each sent when it is known.

    A line that cannot be used is answered in its place. When the service is busy the stream slows down; lines that are not
    answered within the time allowed come back with the error `deadline_exceeded`.
    """
    lines = [line for line in (await request.body()).split(b"\n") if line.strip()]
    desk.spend(request, len(lines))
    facts_of(request.scope).logged["texts"] = len(lines)
    deadline = facts_of(request.scope).received + timeout_seconds if timeout_seconds else None
    manifest = desk.host.classifier.bundle.manifest
    return StreamingResponse(
        _answer_lines(desk, lines, granularity, evidence, deadline),
        media_type="application/x-ndjson",
        headers={"X-Model-Name": manifest.name, "X-Model-Version": manifest.version},
    )


async def _answer_lines(
    desk: Desk, lines: Sequence[bytes], granularity: Granularity, evidence: bool, deadline: float | None
) -> AsyncIterator[bytes]:
    for at in range(0, len(lines), _CHUNK_LINES):
        entries = [read_line(raw, at + n) for n, raw in enumerate(lines[at : at + _CHUNK_LINES], 1)]
        items = [entry for entry in entries if isinstance(entry, TextItem)]
        answers = iter(await _patiently(desk, items, granularity, evidence, deadline))
        whole = [entry if isinstance(entry, Rejection) else next(answers) for entry in entries]
        yield "".join(answer.model_dump_json() + "\n" for answer in whole).encode()


async def _patiently(
    desk: Desk, items: Sequence[TextItem], granularity: Granularity, evidence: bool, deadline: float | None
) -> list[Answer]:
    """Answers for a chunk of a stream, which waits its turn where others would be sent away."""
    latest = deadline or time.monotonic() + desk.settings.timeout_seconds
    while True:
        try:
            answered = await desk.answer(items, granularity=granularity, evidence=evidence, deadline=latest)
        except OverloadedError as error:
            if time.monotonic() + _RETRY_SECONDS < latest:
                await asyncio.sleep(_RETRY_SECONDS)
                continue
            return _rejected(items, error)
        except RasidError as error:
            return _rejected(items, error)
        return answered.answers


def _rejected(items: Sequence[TextItem], error: RasidError) -> list[Answer]:
    return [Rejection(id=item.id, error=Problem(code=error.code, detail=str(error))) for item in items]

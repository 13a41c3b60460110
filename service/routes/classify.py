"""Classifying: a request with its answer, and many texts as a stream of lines."""

from __future__ import annotations

import io
import time
from collections.abc import AsyncIterator, Iterator
from itertools import islice
from typing import Annotated

from fastapi import APIRouter, Query, Request
from fastapi.responses import Response, StreamingResponse
from starlette.requests import ClientDisconnect

from models.classifier import TextItem
from models.errors import RasidError
from models.prediction import Answer, Granularity, Problem, Rejection
from service.auth import Scope
from service.errors import ClientLeftError, TooLargeError
from service.lines import read_line
from service.requests import facts_of
from service.routes.desk import Desk, DeskDependency, Timeout, allow, problems, server_timing
from service.schemas import MAX_STREAM_LINES, ClassifyRequest, ClassifyResponse, ModelName

router = APIRouter(tags=["classify"], dependencies=[allow(Scope.CLASSIFY)])

_CHUNK_LINES = 32


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
    answered, classifier = await desk.classify(
        request, items, granularity=body.granularity, evidence=body.evidence, timeout_seconds=timeout_seconds
    )
    manifest = classifier.bundle.manifest
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
    try:
        body = await request.body()
    except ClientDisconnect:
        raise ClientLeftError("the caller closed the connection") from None
    count = sum(1 for _ in _lines(body))
    if count > MAX_STREAM_LINES:
        raise TooLargeError(f"expected at most {MAX_STREAM_LINES} lines, got {count}; send them in parts")
    desk.spend(request, count)
    facts_of(request.scope).logged["texts"] = count
    deadline = facts_of(request.scope).received + timeout_seconds if timeout_seconds else None
    manifest = desk.host.active.classifier.bundle.manifest
    return StreamingResponse(
        _answer_lines(desk, body, granularity, evidence, deadline),
        media_type="application/x-ndjson",
        headers={"X-Model-Name": manifest.name, "X-Model-Version": manifest.version},
    )


def _lines(body: bytes) -> Iterator[bytes]:
    return (line for line in io.BytesIO(body) if line.strip())


async def _answer_lines(
    desk: Desk, body: bytes, granularity: Granularity, evidence: bool, deadline: float | None
) -> AsyncIterator[bytes]:
    lines = enumerate(_lines(body), 1)
    with desk.host.request() as serving:  # a model that takes over meanwhile does not answer the rest
        while entries := [read_line(raw, number) for number, raw in islice(lines, _CHUNK_LINES)]:
            items = [entry for entry in entries if isinstance(entry, TextItem)]
            latest = deadline or time.monotonic() + desk.settings.timeout_seconds
            answers: list[Answer]
            try:
                answered = await desk.answer(
                    serving, items, granularity=granularity, evidence=evidence, deadline=latest, patient=True
                )
                answers = answered.answers
            except RasidError as error:
                answers = [Rejection(id=item.id, error=Problem(code=error.code, detail=str(error))) for item in items]
            found = iter(answers)
            whole = [entry if isinstance(entry, Rejection) else next(found) for entry in entries]
            yield "".join(answer.model_dump_json() + "\n" for answer in whole).encode()

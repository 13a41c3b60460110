"""For those who run the service: is it alive, is it ready, what does it do, what does it take."""

from __future__ import annotations

from fastapi import APIRouter, Request
from fastapi.responses import RedirectResponse, Response
from prometheus_client import CONTENT_TYPE_LATEST

from service.auth import Scope
from service.requests import facts_of
from service.routes.desk import DeskDependency, allow, problems
from service.schemas import MAX_STREAM_LINES, Health, LimitsResponse

router = APIRouter(tags=["operation"])


@router.get("/livez", summary="The process answers")
async def livez() -> Health:
    """Whether the process answers at all."""
    return Health(status="alive")


@router.get("/readyz", responses={503: problems(503)[503]}, summary="The model answers")
async def readyz(desk: DeskDependency) -> Health:
    """Whether the model answers: runs it on one text in each language, ahead of what waits in the queue."""
    await desk.host.check()
    return Health(status="ready")


@router.get(
    "/metrics",
    response_class=Response,
    responses={200: {"description": "Prometheus text format.", "content": {"text/plain": {}}}, **problems()},
    summary="Prometheus metrics",
)
async def metrics(request: Request, desk: DeskDependency) -> Response:
    """Requests, queue, batches, tokens, time by phase, labels, languages, probabilities.

    Where there are keys it takes one with the scope `admin`: who reads them between two requests of somebody else learns what
    was decided on them.
    """
    caller = facts_of(request.scope).caller
    if caller.name != desk.keys.anonymous.name:
        caller.require(Scope.ADMIN)
    return Response(desk.metrics.page(), media_type=CONTENT_TYPE_LATEST)


@router.get("/v1/limits", dependencies=[allow(Scope.CLASSIFY)], responses=problems(), summary="What this service takes")
async def limits(request: Request, desk: DeskDependency) -> LimitsResponse:
    """Limits of a request, and the caller's quotas."""
    settings = desk.settings
    caller = facts_of(request.scope).caller
    return LimitsResponse(
        max_request_bytes=settings.max_request_bytes,
        max_texts=settings.max_texts,
        max_stream_lines=MAX_STREAM_LINES,
        max_text_characters=settings.max_text_characters,
        max_tokens=desk.host.active.classifier.bundle.manifest.max_tokens,
        timeout_seconds=settings.timeout_seconds,
        max_job_bytes=settings.max_job_bytes,
        max_job_unpacked_bytes=settings.max_job_unpacked_bytes,
        max_jobs=settings.max_jobs,
        job_retention_hours=settings.job_retention_hours,
        caller=caller.name,
        scopes=list(caller.scopes),
        rate=caller.rate or (settings.rate_per_key if caller.name != "anonymous" else None),
        rate_per_address=settings.rate_per_address,
    )


@router.get("/", include_in_schema=False)
async def root() -> RedirectResponse:
    """Send a browser to the documentation."""
    return RedirectResponse("/docs")

"""Jobs: files that are scored in the background, and fetched when they are done."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from pathlib import Path as FilePath
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Header, Path, Query, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import FileResponse
from fastapi.sse import EventSourceResponse, ServerSentEvent
from pydantic import ValidationError
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.types import Message, Receive, Send
from starlette.types import Scope as ASGIScope

from models.prediction import Problem
from service.auth import Scope
from service.errors import ClientLeftError, JobExpiredError, JobNotFinishedError, JobNotFoundError
from service.jobs.job import UNFINISHED, Job, JobOptions, State
from service.requests import JOBS_PATH, facts_of
from service.routes.desk import Desk, DeskDependency, allow, problems
from service.schemas import JobResponse, JobsResponse

router = APIRouter(tags=["jobs"], dependencies=[allow(Scope.JOBS)])

_WATCH_SECONDS = 1.0
_MEDIA_TYPES = {
    "jsonl": "application/x-ndjson",
    "csv": "text/csv",
    "tsv": "text/tab-separated-values",
    "parquet": "application/vnd.apache.parquet",
    "xlsx": "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet",
}


def _without_null(option: dict[str, Any]) -> dict[str, Any]:
    """A form says that an option is not given by leaving it out."""
    kinds = [kind for kind in option.get("anyOf", ()) if kind.get("type") != "null"]
    return {key: value for key, value in option.items() if key not in ("anyOf", "default")} | kinds[0] if kinds else option


_FORM = {
    "type": "object",
    "required": ["file"],
    "additionalProperties": False,
    "properties": {
        "file": {
            "type": "string",
            "format": "binary",
            "description": "JSONL, CSV, TSV, Parquet, Excel, text; .gz, .zst.",
        },
        **{name: _without_null(option) for name, option in JobOptions.model_json_schema()["properties"].items()},
    },
}
_IDEMPOTENCY_KEY = r"^[\x21-\x7e]{1,255}$"
_FILE: dict[int | str, dict[str, Any]] = {
    200: {"description": "The file."},
    206: {"description": "The bytes that `Range` asks for."},
}


class _File(FileResponse):
    """A file, whole or in part. A `Range` that cannot be answered is a problem like any other."""

    async def __call__(self, scope: ASGIScope, receive: Receive, send: Send) -> None:
        async def tell(message: Message) -> None:
            if message["type"] == "http.response.start" and message["status"] not in (200, 206):
                size = self.headers["content-length"]
                detail = f"expected a Range of bytes among the {size} of the file"
                raise HTTPException(416, detail, headers={"Content-Range": f"bytes */{size}"})
            await send(message)

        await super().__call__(scope, receive, tell)


async def _find(job_id: Annotated[str, Path(pattern=r"^[0-9a-f]{32}$")], request: Request, desk: DeskDependency) -> Job:
    tenant = facts_of(request.scope).caller.name
    job = await asyncio.to_thread(lambda: desk.jobs.store.get(job_id, tenant))
    if job is None:
        raise JobNotFoundError("there is no job of this id; GET /v1/jobs lists yours")
    return job


_Found = Annotated[Job, Depends(_find)]


@router.post(
    JOBS_PATH,
    status_code=202,
    responses={
        200: {"model": JobResponse, "description": "The job that was sent with this key."},
        **problems(400, 413, 415, 422, 429, 503, 507),
    },
    openapi_extra={"requestBody": {"required": True, "content": {"multipart/form-data": {"schema": _FORM}}}},
    summary="Score a file in the background",
)
async def submit(
    request: Request,
    response: Response,
    desk: DeskDependency,
    idempotency_key: Annotated[
        str | None,
        Header(pattern=_IDEMPOTENCY_KEY, description="Sent again with the same key, the same file is not scored again."),
    ] = None,
) -> JobResponse:
    """Send a file of texts as a form. Its rows are scored behind what is asked at once; nothing is lost if the service stops.

    The file is looked at before it is answered; each row that cannot be scored is told in the rejects.
    """
    from service.jobs.uploads import check_room, receive_form  # noqa: PLC0415 - with the first job

    tenant = facts_of(request.scope).caller.name
    files = await asyncio.to_thread(lambda: desk.jobs.files)
    if idempotency_key is None or not await asyncio.to_thread(desk.jobs.store.knows, tenant, idempotency_key):
        await asyncio.to_thread(desk.jobs.check_room_for, tenant)
    length = request.headers.get("content-length", "")
    await asyncio.to_thread(check_room, files.folder, int(length) if length.isdecimal() else 0)
    path = files.new_upload()
    try:
        try:
            upload = await receive_form(request.stream(), request.headers.get("content-type", ""), path)
        except ClientDisconnect:
            raise ClientLeftError("the caller closed the connection") from None
        job, is_new = await asyncio.to_thread(
            desk.jobs.submit, upload, _options(upload.fields), tenant=tenant, key=idempotency_key
        )
    finally:
        path.unlink(missing_ok=True)
    facts_of(request.scope).logged["job"] = job.id
    response.headers["Location"] = f"{JOBS_PATH}/{job.id}"
    if not is_new:
        response.status_code = 200
    return _describe(job, desk)


@router.get(JOBS_PATH, responses=problems(422, 503), summary="The caller's jobs")
async def page(
    request: Request,
    desk: DeskDependency,
    limit: Annotated[int, Query(ge=1, le=100)] = 20,
    after: Annotated[str | None, Query(pattern=r"^[0-9a-f]{32}$", description="`next` of the page before.")] = None,
) -> JobsResponse:
    """The newest first, page by page."""
    tenant = facts_of(request.scope).caller.name
    found = await asyncio.to_thread(lambda: desk.jobs.store.page(tenant, limit=limit + 1, after=after))
    shown = [_describe(job, desk) for job in found[:limit]]
    return JobsResponse(jobs=shown, next=shown[-1].id if len(found) > limit else None)


@router.get(JOBS_PATH + "/{job_id}", responses=problems(404, 422, 503), summary="Where a job stands")
async def read(job: _Found, desk: DeskDependency) -> JobResponse:
    """State, progress, and at the end the counts or the error."""
    return _describe(job, desk)


@router.get(
    JOBS_PATH + "/{job_id}/events",
    response_class=EventSourceResponse,
    responses=problems(404, 422, 503),
    summary="A job's progress as it comes",
)
async def events(job: _Found, desk: DeskDependency) -> AsyncIterator[ServerSentEvent]:
    """Server-sent events: `progress` with the job whenever it has changed, and `end` when it has ended."""
    shown: Job | None = None
    now: Job | None = job
    while now is not None:
        if now != shown:
            shown = now
            ended = now.state not in UNFINISHED
            yield ServerSentEvent(event="end" if ended else "progress", data=_describe(now, desk))
            if ended:
                return
        await asyncio.sleep(_WATCH_SECONDS)
        now = await asyncio.to_thread(lambda: desk.jobs.store.get(job.id))


@router.get(
    JOBS_PATH + "/{job_id}/results",
    response_class=FileResponse,
    responses={**_FILE, **problems(404, 409, 410, 416, 422, 503)},
    summary="What came of a job",
)
async def results(job: _Found, desk: DeskDependency) -> FileResponse:
    """The scored rows in the order of the file, in the format that was asked for. Takes `Range`."""
    options = JobOptions(**job.options)
    path = desk.jobs.files.results(job.id, options)
    return _file(job, path, _MEDIA_TYPES[options.output], f"rasid-{job.id[:8]}{path.suffix}")


@router.get(
    JOBS_PATH + "/{job_id}/rejects",
    response_class=FileResponse,
    responses={**_FILE, **problems(404, 409, 410, 416, 422, 503)},
    summary="What could not be scored",
)
async def rejects(job: _Found, desk: DeskDependency) -> FileResponse:
    """A line of JSON for each rejected row: its number, its id, a code and the reason, without its text. Takes `Range`."""
    return _file(job, desk.jobs.files.rejects(job.id), _MEDIA_TYPES["jsonl"], f"rasid-{job.id[:8]}.rejects.jsonl")


@router.post(JOBS_PATH + "/{job_id}/cancel", responses=problems(404, 413, 415, 422, 503), summary="Stop a job")
async def cancel(job: _Found, desk: DeskDependency) -> JobResponse:
    """Stop a job and delete its file. A job that has ended stays as it is."""
    await asyncio.to_thread(desk.jobs.cancel, job)
    now = await asyncio.to_thread(desk.jobs.store.get, job.id)
    return _describe(now or job, desk)


@router.delete(JOBS_PATH + "/{job_id}", status_code=204, responses=problems(404, 422, 503), summary="Delete a job's files")
async def delete(job: _Found, desk: DeskDependency) -> None:
    """Stop a job where it runs, and delete its file and what came of it now. Its counts stay."""
    await asyncio.to_thread(desk.jobs.delete, job)


def _options(fields: dict[str, str]) -> JobOptions:
    try:
        return JobOptions.model_validate(fields)
    except ValidationError as error:
        raise RequestValidationError([{**entry, "loc": ("body", *entry["loc"])} for entry in error.errors()]) from None


def _file(job: Job, path: FilePath, media_type: str, name: str) -> FileResponse:
    if job.state is State.EXPIRED:
        raise JobExpiredError("what came of this job was deleted; send the file again")
    if job.state is not State.COMPLETED:
        raise JobNotFinishedError(f"expected a job that is completed, this one is {job.state}")
    if not path.is_file():
        raise JobExpiredError("the file is not there; do all services that share the database share RASID_JOBS too?")
    return _File(path, media_type=media_type, filename=name, headers={"Cache-Control": "private, no-store"})


def _describe(job: Job, desk: Desk) -> JobResponse:
    ended = job.ended
    kept = ended + desk.settings.job_retention_hours * 3_600 if ended is not None and job.state is not State.EXPIRED else None
    return JobResponse(
        id=job.id,
        state=job.state,
        created=_moment(job.created),
        started=_maybe_moment(job.started),
        ended=_maybe_moment(ended),
        expires=_maybe_moment(kept),
        bytes=job.bytes,
        total_rows=job.total,
        rows=job.rows,
        rejected=job.rejected,
        options=JobOptions(**job.options),
        model=job.model,
        summary=job.summary,
        error=Problem(code=job.error_code, detail=job.error_detail or "") if job.error_code is not None else None,
    )


def _moment(seconds: float) -> datetime:
    return datetime.fromtimestamp(seconds, UTC)


def _maybe_moment(seconds: float | None) -> datetime | None:
    return None if seconds is None else _moment(seconds)

"""Errors over HTTP: one table from what went wrong to a status, a code and a problem document (RFC 9457).

Nothing here repeats the input: validation errors name the place and the rule, never the value.
"""

from __future__ import annotations

import re
from http import HTTPStatus
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException

from models.errors import BundleError, BundleNotFoundError, InputError, RasidError
from service.errors import BodyError, ServiceError
from service.schemas import ProblemDetail

MEDIA_TYPE = "application/problem+json"

_STATUSES: dict[type[RasidError], int] = {
    InputError: HTTPStatus.UNPROCESSABLE_ENTITY,
    BundleNotFoundError: HTTPStatus.NOT_FOUND,
    BundleError: HTTPStatus.CONFLICT,  # only a request to activate one meets it
}
_CODES = {
    HTTPStatus.BAD_REQUEST: "malformed_body",
    HTTPStatus.NOT_FOUND: "not_found",
    HTTPStatus.METHOD_NOT_ALLOWED: "method_not_allowed",
    HTTPStatus.REQUEST_ENTITY_TOO_LARGE: "too_large",
    HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE: "range_not_satisfiable",
}
TEI_PATH = "/predict"
_TEI_KINDS: dict[int, tuple[int, str]] = {
    400: (422, "Validation"),
    401: (401, "Unauthorized"),
    403: (403, "Unauthorized"),
    413: (413, "Validation"),
    415: (415, "Validation"),
    422: (422, "Validation"),
    429: (429, "Overloaded"),
    500: (424, "Backend"),
    503: (429, "Overloaded"),
    504: (429, "Overloaded"),
}
_KNOWN = frozenset(HTTPStatus)
_RETRY_SECONDS = 5  # after a 503 that does not tell how long it lasts
_MAX_ERRORS = 20
_INTERNAL = re.compile(r"^(body$|TextInput$|str$|function-|list\[|constrained-)")


def problem(
    request: Request, status: int, code: str, detail: str, *, errors: list[dict[str, str]] | None = None
) -> JSONResponse:
    """A problem response for this request; in the words of text-embeddings-inference at its door."""
    if request.url.path == TEI_PATH:
        status, kind = _TEI_KINDS.get(status, (status, "Backend"))
        return JSONResponse({"error": detail, "error_type": kind}, status_code=status)
    content = ProblemDetail(
        title=HTTPStatus(status).phrase if status in _KNOWN else "Client Closed Request",
        status=status,
        detail=detail,
        code=code,
        request_id=facts.request_id if (facts := request.scope.get("rasid.facts")) else "",
        errors=errors or [],
    )
    return JSONResponse(content.model_dump(), status_code=status, media_type=MEDIA_TYPE)


def answer_error(request: Request, error: RasidError) -> JSONResponse:
    """The problem response for an error that was raised on purpose."""
    if isinstance(error, ServiceError):
        status = error.status
    else:
        kinds = (status for kind, status in _STATUSES.items() if isinstance(error, kind))
        status = next(kinds, HTTPStatus.INTERNAL_SERVER_ERROR)
    response = problem(request, status, error.code, str(error))
    seconds = error.retry_after_seconds if isinstance(error, ServiceError) else None
    if seconds is None and status == HTTPStatus.SERVICE_UNAVAILABLE:
        seconds = _RETRY_SECONDS
    if seconds is not None:
        response.headers["Retry-After"] = str(seconds)
    if status == HTTPStatus.UNAUTHORIZED:
        response.headers["WWW-Authenticate"] = "Bearer"
    return response


def add_handlers(app: FastAPI) -> None:
    """Answer every exception with a problem document."""

    @app.exception_handler(RequestValidationError)
    async def invalid(request: Request, error: RequestValidationError) -> JSONResponse:
        found = error.errors()
        if any(entry["type"] == "json_invalid" for entry in found):
            return problem(request, HTTPStatus.BAD_REQUEST, "malformed_body", "expected a JSON body; it does not parse")
        errors = [{"pointer": _pointer(entry), "detail": str(entry["msg"])} for entry in found[:_MAX_ERRORS]]
        detail = f"the request has {len(found)} fault(s), the first at {errors[0]['pointer']}: {errors[0]['detail']}"
        return problem(request, HTTPStatus.UNPROCESSABLE_ENTITY, "invalid_request", detail, errors=errors)

    @app.exception_handler(HTTPException)
    async def http_error(request: Request, error: HTTPException) -> JSONResponse:
        code = _CODES.get(HTTPStatus(error.status_code), "http_error")
        details = {
            "malformed_body": "expected a JSON body in UTF-8; it does not parse",
            "not_found": "there is nothing at this path; /docs lists what there is",
            "method_not_allowed": "this path does not take this method; /docs lists what it takes",
        }
        detail = str(error.detail) if isinstance(error, BodyError) else details.get(code, str(error.detail))
        response = problem(request, error.status_code, code, detail)
        response.headers.update(error.headers or {})
        return response

    @app.exception_handler(RasidError)
    async def rasid_error(request: Request, error: RasidError) -> JSONResponse:
        return answer_error(request, error)


def internal_error(request: Request) -> JSONResponse:
    """500: the service failed in a way nobody foresaw."""
    detail = "the service failed; the log has the request id"
    return problem(request, HTTPStatus.INTERNAL_SERVER_ERROR, "internal_error", detail)


def _pointer(error: dict[str, Any]) -> str:
    """Where in the body, as a JSON pointer (RFC 6901).

    Without FastAPI's leading `body` and the names pydantic gives to the members of a union, and without the name of a field
    that is not known: whoever mixed up names and contents put a text there.
    """
    parts = [part for part in error["loc"] if isinstance(part, int) or not _INTERNAL.match(part)]
    if error["type"] == "extra_forbidden":
        parts = parts[:-1]
    return "/" + "/".join(str(part).replace("~", "~0").replace("/", "~1") for part in parts)

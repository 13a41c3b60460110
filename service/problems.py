"""Errors over HTTP: one table from what went wrong to a status, a code and a problem document (RFC 9457).

Nothing here repeats the input: validation errors name the place and the rule, never the value.
"""

from __future__ import annotations

import logging
import traceback
from http import HTTPStatus

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException

from models.errors import BundleError, EngineError, InputError, RasidError
from service.schemas import ProblemDetail

logger = logging.getLogger("rasid")

MEDIA_TYPE = "application/problem+json"

STATUSES: dict[type[RasidError], int] = {
    InputError: HTTPStatus.UNPROCESSABLE_ENTITY,
    EngineError: HTTPStatus.INTERNAL_SERVER_ERROR,
    BundleError: HTTPStatus.INTERNAL_SERVER_ERROR,
}
_CODES = {
    HTTPStatus.BAD_REQUEST: "malformed_body",
    HTTPStatus.NOT_FOUND: "not_found",
    HTTPStatus.METHOD_NOT_ALLOWED: "method_not_allowed",
    HTTPStatus.REQUEST_ENTITY_TOO_LARGE: "too_large",
}
_MAX_ERRORS = 20


class TooLargeError(InputError):
    """A request is beyond a limit of this service."""

    code = "too_large"


def problem(
    request: Request, status: int, code: str, detail: str, *, errors: list[dict[str, str]] | None = None
) -> JSONResponse:
    """A problem response for this request."""
    content = ProblemDetail(
        title=HTTPStatus(status).phrase,
        status=status,
        detail=detail,
        code=code,
        request_id=request.scope.get("rasid.request_id", ""),
        errors=errors or [],
    )
    return JSONResponse(content.model_dump(), status_code=status, media_type=MEDIA_TYPE)


def too_large(request: Request, detail: str) -> JSONResponse:
    """413: the request is beyond a limit of this service."""
    return problem(request, HTTPStatus.REQUEST_ENTITY_TOO_LARGE, TooLargeError.code, detail)


def add_handlers(app: FastAPI) -> None:
    """Answer every exception with a problem document."""

    @app.exception_handler(RequestValidationError)
    async def invalid(request: Request, error: RequestValidationError) -> JSONResponse:
        found = error.errors()
        if any(entry["type"] == "json_invalid" for entry in found):
            return problem(request, HTTPStatus.BAD_REQUEST, "malformed_body", "expected a JSON body; it does not parse")
        errors = [
            {"pointer": "/" + "/".join(str(part) for part in _place(entry["loc"])), "detail": str(entry["msg"])}
            for entry in found[:_MAX_ERRORS]
        ]
        detail = f"the request has {len(found)} fault(s), the first at {errors[0]['pointer']}: {errors[0]['detail']}"
        return problem(request, HTTPStatus.UNPROCESSABLE_ENTITY, "invalid_request", detail, errors=errors)

    @app.exception_handler(HTTPException)
    async def http_error(request: Request, error: HTTPException) -> JSONResponse:
        code = _CODES.get(HTTPStatus(error.status_code), "http_error")
        details = {
            "malformed_body": "expected a JSON body in UTF-8; it does not parse",
            "not_found": "there is nothing at this path; /docs lists what there is",
            "too_large": "the body is larger than this service takes; send fewer or shorter texts in a request",
            "method_not_allowed": "this path does not take this method; /docs lists what it takes",
        }
        response = problem(request, error.status_code, code, details.get(code, str(error.detail)))
        response.headers.update(error.headers or {})
        return response

    @app.exception_handler(TooLargeError)
    async def beyond_limit(request: Request, error: TooLargeError) -> JSONResponse:
        return too_large(request, str(error))

    @app.exception_handler(RasidError)
    async def rasid_error(request: Request, error: RasidError) -> JSONResponse:
        status = next((status for kind, status in STATUSES.items() if isinstance(error, kind)), 500)
        return problem(request, status, error.code, str(error))

    @app.exception_handler(Exception)
    async def unexpected(request: Request, error: Exception) -> JSONResponse:
        # An exception's own words may quote the text, so only its type and the places it passed are logged.
        places = [f"{frame.filename}:{frame.lineno}" for frame in traceback.extract_tb(error.__traceback__)[-8:]]
        logger.error("unexpected error", extra={"error": type(error).__name__, "places": places})
        return problem(
            request, HTTPStatus.INTERNAL_SERVER_ERROR, "internal_error", "the service failed; the log has the request id"
        )


def _place(location: tuple[int | str, ...]) -> tuple[int | str, ...]:
    """Where in the body: without FastAPI's leading `body` and the names pydantic gives to the members of a union."""
    return tuple(part for part in location if part not in ("body", "TextInput") and not str(part).startswith("function-"))

"""What the service raises beside the model's own errors (`models.errors`), and the status each is answered with.

RasidError
├── TooLargeError          413  a request is beyond a limit of this service
├── UnsupportedEncodingError 415  a body is compressed in a way that is not understood
├── UnauthorizedError      401  no key, or one that is not known
├── ForbiddenError         403  a key without the scope
├── QuotaError             429  the caller's quota is used up
├── OverloadedError        503  the queue is full
├── ShuttingDownError      503  the service drains
├── NotReadyError          503  the model does not answer
├── DeadlineError          504  the answer would come after the request's deadline
├── ClientLeftError        499  the caller closed the connection: nobody reads the answer
├── ActivationError        409  a bundle cannot take over
├── JobNotFoundError       404  there is no such job of this caller's
├── JobNotFinishedError    409  a job has no results yet, or ended without
├── JobsUnavailableError   503  the database or the folder of jobs cannot be used
├── JobExpiredError        410  what came of a job was deleted
└── StorageFullError       507  the disk has no room for a file

BodyError, 400 or 413, is raised while a body is being read, where only an HTTPException reaches the handlers.
"""

from __future__ import annotations

from http import HTTPStatus
from typing import ClassVar

from starlette.exceptions import HTTPException

from models.errors import InputError, RasidError


class ServiceError(RasidError):
    """Base: an error with a status of its own and, where trying again helps, the seconds to wait."""

    status: ClassVar[int] = HTTPStatus.INTERNAL_SERVER_ERROR

    def __init__(self, detail: str, *, retry_after_seconds: int | None = None) -> None:
        """Say what was expected, what came and what to do."""
        super().__init__(detail)
        self.retry_after_seconds = retry_after_seconds


class TooLargeError(ServiceError, InputError):
    """A request is beyond a limit of this service."""

    code = "too_large"
    status = HTTPStatus.REQUEST_ENTITY_TOO_LARGE


class BodyError(HTTPException):
    """A body is too large, or not what its headers say."""

    def __init__(self, status: int, detail: str) -> None:
        super().__init__(status, detail)


class UnsupportedEncodingError(ServiceError, InputError):
    """A body is compressed in a way that is not understood."""

    code = "unsupported_encoding"
    status = HTTPStatus.UNSUPPORTED_MEDIA_TYPE


class UnauthorizedError(ServiceError):
    """There is no key, or one that is not known."""

    code = "unauthorized"
    status = HTTPStatus.UNAUTHORIZED


class ForbiddenError(ServiceError):
    """The key lacks the scope that this needs."""

    code = "forbidden"
    status = HTTPStatus.FORBIDDEN


class QuotaError(ServiceError):
    """The caller's quota is used up for now."""

    code = "quota_exceeded"
    status = HTTPStatus.TOO_MANY_REQUESTS


class OverloadedError(ServiceError):
    """More waits already than can be answered in good time."""

    code = "overloaded"
    status = HTTPStatus.SERVICE_UNAVAILABLE


class ShuttingDownError(ServiceError):
    """The service finishes what it has and takes nothing new."""

    code = "shutting_down"
    status = HTTPStatus.SERVICE_UNAVAILABLE


class NotReadyError(ServiceError):
    """The model does not answer."""

    code = "not_ready"
    status = HTTPStatus.SERVICE_UNAVAILABLE


class DeadlineError(ServiceError):
    """The answer would come after the request's deadline."""

    code = "deadline_exceeded"
    status = HTTPStatus.GATEWAY_TIMEOUT


class ClientLeftError(ServiceError):
    """The caller closed the connection; the status is for the log alone."""

    code = "client_closed_request"
    status = 499


class ActivationError(ServiceError):
    """A bundle cannot take over."""

    code = "activation_failed"
    status = HTTPStatus.CONFLICT


class JobNotFoundError(ServiceError):
    """There is no such job of this caller's."""

    code = "job_not_found"
    status = HTTPStatus.NOT_FOUND


class JobNotFinishedError(ServiceError):
    """A job has no results yet, or ended without any."""

    code = "job_not_completed"
    status = HTTPStatus.CONFLICT


class JobExpiredError(ServiceError):
    """What came of a job was deleted."""

    code = "job_expired"
    status = HTTPStatus.GONE


class JobsUnavailableError(ServiceError):
    """The database or the folder of jobs cannot be used now."""

    code = "jobs_unavailable"
    status = HTTPStatus.SERVICE_UNAVAILABLE


class StorageFullError(ServiceError):
    """The disk has no room for a file."""

    code = "storage_full"
    status = HTTPStatus.INSUFFICIENT_STORAGE

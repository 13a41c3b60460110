"""What happens to every request before and after its route: an id, a size limit, a log line without texts."""

from __future__ import annotations

import logging
import re
import time
import uuid

from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from service.problems import problem

logger = logging.getLogger("rasid.access")

_REQUEST_ID = re.compile(r"^[A-Za-z0-9._-]{1,128}$")
_QUIET_PATHS = frozenset({"/livez", "/readyz"})


class RequestGuard:
    """Middleware: honours or makes `X-Request-Id`, refuses bodies over the limit with 413, logs one line a request."""

    def __init__(self, app: ASGIApp, *, max_request_bytes: int) -> None:
        self._app = app
        self._limit = max_request_bytes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        given = headers.get("x-request-id", "")
        request_id = given if _REQUEST_ID.match(given) else uuid.uuid4().hex
        scope["rasid.request_id"] = request_id
        started = time.monotonic()
        status = 500

        async def tell(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                MutableHeaders(scope=message)["X-Request-Id"] = request_id
            await send(message)

        received = 0

        async def limited() -> Message:
            nonlocal received
            message = await receive()
            if message["type"] == "http.request":
                received += len(message.get("body", b""))
                if received > self._limit:
                    raise _BodyTooLargeError
            return message

        try:
            if int(headers.get("content-length") or 0) > self._limit:
                raise _BodyTooLargeError
            await self._app(scope, limited, tell)
        except _BodyTooLargeError:
            detail = f"expected a body of at most {self._limit} bytes; send fewer or shorter texts in a request"
            await problem(Request(scope), 413, "too_large", detail)(scope, receive, tell)
        finally:
            level = logging.DEBUG if scope["path"] in _QUIET_PATHS else logging.INFO
            seconds = round(time.monotonic() - started, 4)
            facts = {"request_id": request_id, "method": scope["method"], "status": status, "seconds": seconds}
            logger.log(level, "request", extra={**facts, "route": _route(scope)})


class _BodyTooLargeError(Exception):
    """Raised where the body passes the limit, whoever reads it."""


def _route(scope: Scope) -> str:
    """The route's pattern, never the path as sent: a path could carry anything."""
    route = scope.get("route")
    return str(getattr(route, "path", "none"))

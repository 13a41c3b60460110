"""What happens to every request before and after its route: an id, a size limit, a log line without texts."""

from __future__ import annotations

import logging
import re
import time
import uuid
from http import HTTPStatus

from starlette.datastructures import Headers, MutableHeaders
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from service.problems import too_large

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
            received += len(message.get("body", b""))
            if received > self._limit:
                raise HTTPException(HTTPStatus.REQUEST_ENTITY_TOO_LARGE)
            return message

        try:
            length = headers.get("content-length", "")
            if length.isdecimal() and int(length) > self._limit:
                answer = too_large(Request(scope), f"expected a body of at most {self._limit} bytes, got {length}")
                await answer(scope, receive, tell)
            else:
                await self._app(scope, limited, tell)
        finally:
            level = logging.DEBUG if scope["path"] in _QUIET_PATHS else logging.INFO
            seconds = round(time.monotonic() - started, 4)
            facts = {"request_id": request_id, "method": scope["method"], "status": status, "seconds": seconds}
            logger.log(level, "request", extra={**facts, "route": _route(scope)})


def _route(scope: Scope) -> str:
    """The route's pattern, never the path as sent: a path could carry anything."""
    route = scope.get("route")
    return str(getattr(route, "path", "none"))

"""What happens to every request before and after its route.

An id and a trace, the caller's key, the size limit, unpacking, refusal while the queue is full, a log line without texts. What
can be decided before the body is read is decided then.
"""

from __future__ import annotations

import logging
import re
import time
import uuid
import zlib
from dataclasses import dataclass, field
from urllib.parse import urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from service.auth import Caller, KeyRing
from service.errors import BodyError, ServiceError, TooLargeError, UnsupportedEncodingError
from service.logs import log_unexpected
from service.metrics import Metrics
from service.problems import answer_error, internal_error
from service.serving import ModelHost
from service.settings import Settings

logger = logging.getLogger("rasid.access")

_REQUEST_ID = re.compile(r"^[A-Za-z0-9._-]{1,128}$")
_TRACEPARENT = re.compile(r"^(?!ff)[0-9a-f]{2}-(?!0{32})([0-9a-f]{32})-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}$")
_QUIET_PATHS = frozenset({"/livez", "/readyz", "/metrics"})
OPEN_PATHS = frozenset({"/livez", "/readyz", "/docs", "/docs/oauth2-redirect", "/openapi.json"})
_OPEN_FOLDER = "/static-offline-docs/"  # the page's own scripts
_CLASSIFYING_PATHS = frozenset({"/v1/classify", "/v1/classify/stream", "/"})  # `/predict` refuses in words of its own
_BYTES_PER_TOKEN = 8  # of a JSON body, a guess for two scripts: the exact count is checked when it is known
JOBS_PATH = "/v1/jobs"
_FORM_BYTES = 64 * 1024  # what a form holds beside its file
LOOPBACK = frozenset({"127.0.0.1", "::1", "localhost"})
_GATEWAY_HEADERS = frozenset({"forwarded", "via", "x-forwarded-for", "x-forwarded-host", "x-forwarded-proto", "x-real-ip"})
_METHODS_WITH_BODY = frozenset({"POST", "PUT", "PATCH"})


@dataclass(slots=True)
class Facts:
    """What is known of a request, for its log line; routes add to `logged`."""

    request_id: str
    trace_id: str
    caller: Caller
    received: float
    logged: dict[str, object] = field(default_factory=dict)
    answering: bool = False


def facts_of(scope: Scope) -> Facts:
    """The facts of a request that came through the guard."""
    facts: Facts = scope["rasid.facts"]
    return facts


class RequestGuard:
    """The middleware around all routes."""

    def __init__(self, app: ASGIApp, *, settings: Settings, keys: KeyRing, host: ModelHost, metrics: Metrics) -> None:
        self._app = app
        self._limit = settings.max_request_bytes
        self._job_limit = settings.max_job_bytes + _FORM_BYTES
        self._early_tokens = settings.max_batch_tokens
        self._keys = keys
        self._host = host
        self._metrics = metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        given = headers.get("x-request-id", "")
        trace = _TRACEPARENT.match(headers.get("traceparent", ""))
        facts = scope["rasid.facts"] = Facts(
            request_id=given if _REQUEST_ID.match(given) else uuid.uuid4().hex,
            trace_id=trace[1] if trace else "",
            caller=self._keys.anonymous,
            received=time.monotonic(),
        )
        status = 500

        async def tell(message: Message) -> None:
            nonlocal status
            facts.answering = True
            if message["type"] == "http.response.start":
                status = message["status"]
                MutableHeaders(scope=message)["X-Request-Id"] = facts.request_id
            await send(message)

        self._metrics.in_flight.inc()
        try:
            try:
                body = self._admit(scope, headers, receive, facts)
            except ServiceError as error:
                await answer_error(Request(scope), error)(scope, receive, tell)
            else:
                await self._serve(scope, body, tell)
        finally:
            self._metrics.in_flight.dec()
            self._tell(scope, facts, status)

    async def _serve(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await self._app(scope, receive, send)
        except Exception as error:
            log_unexpected(error)
            facts = facts_of(scope)
            facts.logged["error"] = type(error).__name__
            if not facts.answering:
                await internal_error(Request(scope))(scope, receive, send)

    def _admit(self, scope: Scope, headers: Headers, receive: Receive, facts: Facts) -> Receive:
        """Check all that can be known without the body; the way to read it. Raises ServiceError."""
        is_open = scope["path"] in OPEN_PATHS or scope["path"].startswith(_OPEN_FOLDER)
        if not is_open and scope["method"] != "OPTIONS":
            facts.caller = self._keys.identify(headers.get("authorization", ""), headers.get("x-api-key", ""))
            if facts.caller is self._keys.anonymous and _is_strange(scope, headers):
                facts.caller = self._keys.stranger
        if scope["method"] not in _METHODS_WITH_BODY:
            return receive
        length = headers.get("content-length", "")
        expected = int(length) if length.isdecimal() and length.isascii() else 0
        limit = self._job_limit if scope["path"] == JOBS_PATH else self._limit
        if expected > limit:
            raise TooLargeError(f"expected a body of at most {limit} bytes, got {expected}")
        if scope["path"] in _CLASSIFYING_PATHS:
            self._host.admit(min(expected // _BYTES_PER_TOKEN, self._early_tokens))
        encoding = headers.get("content-encoding", "identity").strip().lower()
        if encoding in ("gzip", "x-gzip") and scope["path"] == JOBS_PATH:
            raise UnsupportedEncodingError("expected a form that is not packed; the file in it may be, as .gz or .zst")
        if encoding in ("gzip", "x-gzip"):
            return _unpacked(receive, limit)
        if encoding not in ("", "identity"):
            raise UnsupportedEncodingError("expected a body that is plain or packed with gzip; send one of these")
        return _limited(receive, limit)

    def _tell(self, scope: Scope, facts: Facts, status: int) -> None:
        seconds = time.monotonic() - facts.received
        route = _route(scope)
        self._metrics.request(route, scope["method"], status, seconds)
        level = logging.DEBUG if scope["path"] in _QUIET_PATHS else logging.INFO
        if not logger.isEnabledFor(level):
            return
        extra: dict[str, object] = {
            "request_id": facts.request_id,
            "method": scope["method"],
            "route": route,
            "status": status,
            "seconds": round(seconds, 4),
            "caller": facts.caller.name,
            **facts.logged,
        }
        if facts.trace_id:
            extra["trace_id"] = facts.trace_id
        logger.log(level, "request", extra=extra)


def _is_strange(scope: Scope, headers: Headers) -> bool:
    """Whether a request came by way of a gateway, of another site's page, or of a name that such a site may have made up."""
    if scope["http_version"] == "1.0" or not _GATEWAY_HEADERS.isdisjoint(headers.keys()):
        return True
    if headers.get("sec-fetch-site", "none") not in ("none", "same-origin"):
        return True
    host = headers.get("host", "")
    try:
        origin = urlsplit(headers.get("origin", f"http://{host}")).netloc
        return urlsplit(f"//{host}").hostname not in LOOPBACK or origin != host
    except ValueError:
        return True


def _limited(receive: Receive, limit: int) -> Receive:
    received = 0

    async def limited() -> Message:
        nonlocal received
        message = await receive()
        received += len(message.get("body", b""))
        if received > limit:
            raise BodyError(413, f"expected a body of at most {limit} bytes, got more; send less at once")
        return message

    return limited


def _unpacked(receive: Receive, limit: int) -> Receive:
    """Reads a gzip body, refusing one that is or unpacks to more than the limit before it has done so."""
    unpack = zlib.decompressobj(wbits=16 + zlib.MAX_WBITS)
    packed = unpacked = 0

    async def unpacking() -> Message:
        nonlocal packed, unpacked
        message = await receive()
        if message["type"] != "http.request":
            return message
        part = message.get("body", b"")
        packed += len(part)
        try:
            body = unpack.decompress(part, limit - unpacked + 1)
        except zlib.error:
            raise BodyError(400, "expected a gzip body, as its Content-Encoding says; it does not unpack") from None
        unpacked += len(body)
        if max(packed, unpacked) > limit:
            raise BodyError(413, f"expected a body that is and unpacks to at most {limit} bytes, got more")
        if unpack.unused_data or (not message.get("more_body", False) and not unpack.eof):
            raise BodyError(400, "expected one whole gzip stream as the body, got part of one or more than one")
        return {**message, "body": body}

    return unpacking


def _route(scope: Scope) -> str:
    """The route's pattern, never the path as sent: a path could carry anything."""
    route = scope.get("route")
    return str(getattr(route, "path", "none"))

"""The HTTP application: its parts, put together."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from fastapi import FastAPI
from fastapi.middleware.cors import CORSMiddleware
from fastapi_offline import FastAPIOffline

from models.classifier import Classifier
from service.auth import KeyRing, Scope
from service.jobs.host import JobHost
from service.metrics import Metrics
from service.problems import add_handlers
from service.quotas import Quotas
from service.requests import LOOPBACK, OPEN_PATHS, RequestGuard
from service.routes import classify, compatible, model, operation
from service.routes import jobs as job_routes
from service.routes.desk import Desk
from service.schemas import ProblemDetail
from service.serving import ModelHost
from service.settings import Settings

_DESCRIPTION = """Reads Arabic and English text about conflict and says, for each passage or article, whether it tells of
sectarian violence, displacement, an official statement or a call for accountability: calibrated probabilities, the
sentences that carry each label, and an honest `review` where a person should look. Texts are never logged, and only
the files of jobs are stored, until they expire or are deleted."""
_KEY = "An API key made by `rasid keys add`; on loopback none is needed."
_OWN_HEADERS = ("Idempotency-Key", "X-Api-Key", "X-Request-Id", "X-Timeout-Seconds")


def create_app(classifier: Classifier, settings: Settings) -> FastAPI:
    """Build the application around an opened classifier. Raises InputError where the key file cannot be used."""
    metrics = Metrics()
    host = ModelHost(classifier, settings, observe=metrics.batch)
    metrics.watch(host.state, host.describe)
    jobs = JobHost(settings, host.bundle_path)
    metrics.watch_jobs(jobs.counts)
    metrics.watch_drift(host.describe, host.reference)
    keys = KeyRing.open(settings.keys, **open_scopes(settings))

    @asynccontextmanager
    async def lifespan(_app: FastAPI) -> AsyncIterator[None]:
        jobs.start()
        yield
        await asyncio.to_thread(jobs.close)
        await asyncio.to_thread(host.close)

    app = FastAPIOffline(
        docs_url="/docs",
        redoc_url=None,
        title="Rasid",
        version="1",
        description=_DESCRIPTION,
        lifespan=lifespan,
        redirect_slashes=False,  # a redirect could send a text and a key over another scheme
        telemetry={"tracing": settings.telemetry, "metrics": settings.telemetry, "logs": False},
    )
    app.state.desk = Desk(settings, host, keys, Quotas(settings), metrics, jobs)
    app.add_middleware(RequestGuard, settings=settings, keys=keys, host=host, metrics=metrics)
    if settings.cors_origins:
        app.add_middleware(
            CORSMiddleware,
            allow_origins=settings.cors_origins,
            allow_methods=["GET", "POST", "DELETE"],
            allow_headers=[*_OWN_HEADERS, "Authorization", "Content-Encoding", "Content-Type", "traceparent"],
            expose_headers=["Location", "X-Request-Id", "Retry-After", "Server-Timing"],
        )
    add_handlers(app)
    for routes in (classify, job_routes, model, operation, compatible):
        app.include_router(routes.router)
    _complete_description(app)
    return app


def _complete_description(app: FastAPI) -> None:
    """Put into the OpenAPI document what the guard does: the keys it wants, and the problems that all routes share."""
    plain = app.openapi

    def described() -> dict[str, Any]:
        document = plain()
        components = document["components"]
        if "securitySchemes" not in components:
            schema = ProblemDetail.model_json_schema(ref_template="#/components/schemas/{model}")
            components["schemas"][ProblemDetail.__name__] = schema
            components["securitySchemes"] = {
                "bearer": {"type": "http", "scheme": "bearer", "description": _KEY},
                "header": {"type": "apiKey", "in": "header", "name": "X-Api-Key", "description": _KEY},
            }
            for path, operations in document["paths"].items():
                for operation in operations.values() if path not in OPEN_PATHS else ():
                    operation["security"] = [{"bearer": []}, {"header": []}]
        return document

    app.openapi = described  # type: ignore[method-assign]


def open_scopes(settings: Settings) -> dict[str, tuple[Scope, ...]]:
    """What may be done without a key.

    On loopback everything by programs of this machine. By way of a web page or a gateway, and beyond loopback where somebody
    said that no key is wanted, only what stores nothing and shows nothing stored: nobody knows there whose a job is.
    """
    harmless = (Scope.CLASSIFY,)
    return {"anonymous_scopes": tuple(Scope) if settings.host in LOOPBACK else harmless, "stranger_scopes": harmless}


def is_exposed(settings: Settings) -> bool:
    """Whether the service would answer anybody beyond this machine without a key."""
    return settings.host not in LOOPBACK and settings.keys is None and not settings.allow_anonymous

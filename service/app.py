"""The HTTP application: its routes, and how they reach the classifier."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any

import anyio
from fastapi import APIRouter, Depends, FastAPI, Request
from fastapi.responses import RedirectResponse

from models.classifier import Classifier, TextItem
from models.errors import TextTooLongError
from models.prediction import Answer, Granularity, Problem, Rejection
from service.problems import TooLargeError, add_handlers
from service.requests import RequestGuard
from service.schemas import (
    ARABIC_EXAMPLE,
    ENGLISH_EXAMPLE,
    ClassifyRequest,
    ClassifyResponse,
    Health,
    LabelDescription,
    LabelsResponse,
    ModelName,
    ModelResponse,
    ProblemDetail,
)
from service.settings import Settings

_PROBLEMS: dict[int | str, dict[str, Any]] = {
    status: {"model": ProblemDetail, "content": {"application/problem+json": {}}, "description": what}
    for status, what in ((400, "The body is not JSON."), (413, "Too large."), (422, "A field is missing or wrong."))
}
_DESCRIPTION = """Reads Arabic and English text about conflict and says, for each passage or article, whether it tells of
sectarian violence, displacement, an official statement or a call for accountability: calibrated probabilities, the
sentences that carry each label, and an honest `review` where a person should look. Texts are not stored and not logged."""


class Runner:
    """Runs the classifier away from the event loop, one batch at a time: it uses all processors itself."""

    def __init__(self, classifier: Classifier) -> None:
        self.classifier = classifier
        self._permit = anyio.CapacityLimiter(1)

    async def classify(self, items: Sequence[TextItem], *, granularity: Granularity, evidence: bool) -> list[Answer]:
        """Answers for the items, in their order."""
        return await anyio.to_thread.run_sync(
            lambda: self.classifier.classify(items, granularity=granularity, evidence=evidence), limiter=self._permit
        )


def create_app(classifier: Classifier, settings: Settings) -> FastAPI:
    """Build the application around an opened classifier."""
    app = FastAPI(title="Rasid", version="1", description=_DESCRIPTION)
    app.state.runner = Runner(classifier)
    app.state.settings = settings
    app.add_middleware(RequestGuard, max_request_bytes=settings.max_request_bytes)
    add_handlers(app)
    app.include_router(router)
    return app


router = APIRouter()


def _runner(request: Request) -> Runner:
    runner: Runner = request.app.state.runner
    return runner


def _settings(request: Request) -> Settings:
    settings: Settings = request.app.state.settings
    return settings


RunnerDependency = Annotated[Runner, Depends(_runner)]
SettingsDependency = Annotated[Settings, Depends(_settings)]


@router.post("/v1/classify", responses=_PROBLEMS, tags=["classify"], summary="Classify texts")
async def classify(body: ClassifyRequest, runner: RunnerDependency, settings: SettingsDependency) -> ClassifyResponse:
    """Classify one text or many. A text that cannot be answered comes back with its `error`; the others are not affected."""
    if len(body.texts) > settings.max_texts:
        raise TooLargeError(f"expected at most {settings.max_texts} texts in a request, got {len(body.texts)}")
    items = [
        TextItem(str(index), entry) if isinstance(entry, str) else TextItem(entry.id, entry.text)
        for index, entry in enumerate(body.texts)
    ]
    short = [item for item in items if len(item.text) <= settings.max_text_characters]
    found = iter(await runner.classify(short, granularity=body.granularity, evidence=body.evidence))
    predictions = [
        next(found) if len(item.text) <= settings.max_text_characters else _too_long(item, settings.max_text_characters)
        for item in items
    ]
    manifest = runner.classifier.bundle.manifest
    return ClassifyResponse(model=ModelName(name=manifest.name, version=manifest.version), predictions=predictions)


def _too_long(item: TextItem, limit: int) -> Rejection:
    detail = f"expected at most {limit} characters, got {len(item.text)}; send the article in parts"
    return Rejection(id=item.id, error=Problem(code=TextTooLongError.code, detail=detail))


@router.get("/v1/labels", tags=["model"], summary="What the labels mean")
async def labels(runner: RunnerDependency) -> LabelsResponse:
    """The labels, their names and their definitions in both languages."""
    taxonomy = runner.classifier.bundle.taxonomy
    return LabelsResponse(
        taxonomy=taxonomy.name,
        version=taxonomy.version,
        languages=list(taxonomy.languages),
        labels=[LabelDescription(id=label.id, name=label.name, definition=label.definition) for label in taxonomy.labels],
    )


@router.get("/v1/model", tags=["model"], summary="Which model answers")
async def model(runner: RunnerDependency) -> ModelResponse:
    """Name, version, hash, base model and measured quality of the model that answers."""
    manifest = runner.classifier.bundle.manifest
    return ModelResponse(
        **manifest.model_dump(include=set(ModelResponse.model_fields) - {"model_hash"}), model_hash=manifest.model_hash
    )


@router.get("/livez", tags=["operation"], summary="The process answers")
async def livez() -> Health:
    """Whether the process answers at all."""
    return Health(status="alive")


@router.get("/readyz", tags=["operation"], summary="The model answers")
async def readyz(runner: RunnerDependency) -> Health:
    """Whether the model answers: runs it on one text in each language."""
    items = [TextItem("en", ENGLISH_EXAMPLE), TextItem("ar", ARABIC_EXAMPLE)]
    await runner.classify(items, granularity="passage", evidence=False)
    return Health(status="ready")


@router.get("/", include_in_schema=False)
async def root() -> RedirectResponse:
    """Send a browser to the documentation."""
    return RedirectResponse("/docs")

"""What the model is, and exchanging it while the service runs."""

from __future__ import annotations

from pathlib import Path

from fastapi import APIRouter

from models.errors import BundleNotFoundError
from service.auth import Scope
from service.routes.desk import Desk, DeskDependency, allow, problems
from service.schemas import ActivateRequest, LabelDescription, LabelsResponse, ModelResponse

router = APIRouter(tags=["model"])


@router.get("/v1/labels", dependencies=[allow(Scope.CLASSIFY)], responses=problems(), summary="What the labels mean")
async def labels(desk: DeskDependency) -> LabelsResponse:
    """The labels, their names and their definitions in both languages."""
    taxonomy = desk.host.active.classifier.bundle.taxonomy
    return LabelsResponse(
        taxonomy=taxonomy.name,
        version=taxonomy.version,
        languages=list(taxonomy.languages),
        labels=[LabelDescription(id=label.id, name=label.name, definition=label.definition) for label in taxonomy.labels],
    )


@router.get("/v1/model", dependencies=[allow(Scope.CLASSIFY)], responses=problems(), summary="Which model answers")
async def model(desk: DeskDependency) -> ModelResponse:
    """Name, version, hash, base model and measured quality of the model that answers."""
    return _describe(desk)


@router.post(
    "/v1/model/activate",
    dependencies=[allow(Scope.ADMIN)],
    responses=problems(400, 404, 409, 413, 415, 422),
    summary="Let another bundle take over",
)
async def activate(body: ActivateRequest, desk: DeskDependency) -> ModelResponse:
    """Load a bundle from the folder RASID_BUNDLES, check it on fixed texts, and let it answer from now on.

    Requests that began before end with the model they began with; none fails. A bundle that is unsealed, altered or fails
    the check is refused, and the active one goes on.
    """
    await desk.host.activate(_bundle_path(desk.settings.bundles, body.bundle))
    return _describe(desk)


@router.post(
    "/v1/model/rollback",
    dependencies=[allow(Scope.ADMIN)],
    responses=problems(404, 409, 413, 415),
    summary="Let the model before this one take over again",
)
async def rollback(desk: DeskDependency) -> ModelResponse:
    """Go back to the model that answered before the last exchange."""
    await desk.host.rollback()
    return _describe(desk)


def _bundle_path(folder: Path | None, name: str) -> Path:
    if folder is None:
        raise BundleNotFoundError("this service was started without RASID_BUNDLES, the folder that bundles are taken from")
    path = folder / name  # the name has no separator in it
    if not (path / "manifest.json").is_file():
        there = sorted(entry.parent.name for entry in folder.glob("*/manifest.json"))
        raise BundleNotFoundError(f"there is no bundle of this name; there is {', '.join(there) or 'none'}")
    return path


def _describe(desk: Desk) -> ModelResponse:
    manifest = desk.host.active.classifier.bundle.manifest
    return ModelResponse(
        **manifest.model_dump(include=set(ModelResponse.model_fields) - {"model_hash"}), model_hash=manifest.model_hash
    )

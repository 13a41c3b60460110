"""Doors for clients of other servers: text-embeddings-inference's `/predict`, and `/` for `huggingface_hub.InferenceClient`.

They carry probabilities alone; decisions, review and evidence are only in `/v1/classify`.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

import numpy as np
from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, WithJsonSchema

from models.classifier import TextItem
from models.errors import EmptyTextError
from models.prediction import Prediction
from service.auth import Scope
from service.routes.desk import DeskDependency, allow, problems
from service.schemas import MOST_TEXTS, Text

router = APIRouter(tags=["compatible"], dependencies=[allow(Scope.CLASSIFY)])
_TEXT = {"type": "string"}
_ALONE = {"type": "array", "items": _TEXT, "minItems": 1, "maxItems": 1}  # pairs are understood only to be refused
Sequences = Annotated[list[Text], Field(min_length=1, max_length=2, fail_fast=True)]


class Refusal(BaseModel):
    """An error in the words of text-embeddings-inference."""

    error: str
    error_type: str


_REFUSALS: dict[int | str, dict[str, Any]] = {
    status: {"model": Refusal, "description": "As text-embeddings-inference says it."}
    for status in (400, 401, 403, 413, 415, 422, 424, 429)
}


class PredictRequest(BaseModel):
    """What text-embeddings-inference takes: a text, or a batch `[["a"], ["b"]]`."""

    model_config = ConfigDict(strict=True)

    inputs: Annotated[
        Text | Sequences | Annotated[list[Sequences], Field(min_length=1, max_length=MOST_TEXTS, fail_fast=True)],
        WithJsonSchema({"anyOf": [_TEXT, _ALONE, {"type": "array", "items": _ALONE, "minItems": 1, "maxItems": MOST_TEXTS}]}),
    ]
    truncate: bool | None = Field(
        default=None, description="False refuses a text that is too long; else its beginning is judged."
    )
    truncation_direction: Literal["right", "Right"] = Field(default="right", description="Which end is cut off.")
    raw_scores: bool = Field(default=False, description="Log-odds of the probabilities.")


class Score(BaseModel):
    """A label and its probability."""

    score: float
    label: str


def _whole(value: Any) -> Any:
    """To JSON 3.0 is a whole number."""
    return int(value) if isinstance(value, float) and value.is_integer() else value


class TextClassificationParameters(BaseModel):
    """What `InferenceClient.text_classification` may ask for."""

    model_config = ConfigDict(strict=True, extra="ignore")

    function_to_apply: Literal["sigmoid", "softmax", "none"] | None = Field(
        default=None, description="`sigmoid` by default: labels are independent, so there is no softmax over them."
    )
    top_k: Annotated[int, Field(ge=1), BeforeValidator(_whole)] | None = None


class TextClassificationRequest(BaseModel):
    """What `InferenceClient.text_classification` sends."""

    inputs: Text
    parameters: TextClassificationParameters = Field(default_factory=TextClassificationParameters)


@router.post(
    "/predict",
    response_model=list[Score] | list[list[Score]],
    responses=_REFUSALS,
    summary="As text-embeddings-inference answers",
)
async def predict(body: PredictRequest, request: Request, desk: DeskDependency) -> JSONResponse:
    """Scores of every label, the highest first, for a text or for each text of a batch."""
    one = isinstance(body.inputs, str) or isinstance(body.inputs[0], str)
    batch = [body.inputs] if one else body.inputs
    sequences = [[entry] if isinstance(entry, str) else entry for entry in batch]
    if any(len(entry) != 1 for entry in sequences):
        detail = 'a list of two strings is a pair, which this model does not take; a batch is [["first"], ["second"]]'
        return _refusal(422, "Tokenizer", detail)
    items = [TextItem(str(number), str(entry[0])) for number, entry in enumerate(sequences)]
    answered, classifier = await desk.classify(request, items, granularity="passage", evidence=False, timeout_seconds=None)
    found: list[list[dict[str, object]]] = []
    for item, answer in zip(items, answered.answers, strict=True):
        if not isinstance(answer, Prediction):
            status, kind = (400, "Empty") if answer.error.code == EmptyTextError.code else (413, "Validation")
            return _refusal(status, kind, f"input {item.id}: {answer.error.detail}")
        if answer.truncated and body.truncate is False:
            limit = classifier.bundle.manifest.max_tokens
            return _refusal(413, "Validation", f"input {item.id} has more than {limit} tokens; shorten it or set truncate")
        found.append(_scores(answer, raw=body.raw_scores))
    return JSONResponse(found[0] if one else found)


@router.post(
    "/",
    response_model=list[list[Score]],
    responses=problems(400, 413, 415, 422, 429, 503, 504),
    summary="As huggingface_hub.InferenceClient expects",
)
async def text_classification(body: TextClassificationRequest, request: Request, desk: DeskDependency) -> JSONResponse:
    """Scores of every label, the highest first: `InferenceClient(base_url=…).text_classification(text)`."""
    parameters = body.parameters
    items = [TextItem("0", body.inputs)]
    answered, _ = await desk.classify(request, items, granularity="passage", evidence=False, timeout_seconds=None)
    [answer] = answered.answers
    if not isinstance(answer, Prediction):
        raise EmptyTextError(answer.error.detail)
    scores = _scores(answer, raw=parameters.function_to_apply in ("none", "softmax"))
    if parameters.function_to_apply == "softmax":
        odds = np.exp([float(str(entry["score"])) for entry in scores])
        scores = [{**entry, "score": float(share)} for entry, share in zip(scores, odds / odds.sum(), strict=True)]
    return JSONResponse([scores[: parameters.top_k]])


def _scores(answer: Prediction, *, raw: bool) -> list[dict[str, object]]:
    given = sorted(answer.labels.items(), key=lambda entry: -entry[1].probability)
    return [{"label": label, "score": _log_odds(p.probability) if raw else p.probability} for label, p in given]


def _log_odds(probability: float) -> float:
    bounded = min(max(probability, 5e-5), 1 - 5e-5)  # probabilities have four decimals
    return float(np.log(bounded / (1 - bounded)))


def _refusal(status: int, kind: str, detail: str) -> JSONResponse:
    return JSONResponse({"error": detail, "error_type": kind}, status_code=status)

"""What Rasid answers for one text: the same JSON over HTTP, on the command line and in scored files."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

Decision = Literal["yes", "no", "review"]
Granularity = Literal["passage", "document"]


class LabelPrediction(BaseModel):
    """One label of one text."""

    model_config = ConfigDict(frozen=True)

    probability: float = Field(ge=0, le=1, description="Calibrated probability, 4 decimals.")
    decision: Decision = Field(description="`review`: too close to call, a person should look.")


class Evidence(BaseModel):
    """A stretch of the text that carries a label. Offsets count Unicode code points of the text as sent."""

    model_config = ConfigDict(frozen=True)

    label: str
    start: int = Field(ge=0)
    end: int = Field(ge=0)
    text: str
    probability: float = Field(ge=0, le=1)


class Prediction(BaseModel):
    """The labels of one text."""

    model_config = ConfigDict(frozen=True)

    id: str
    language: Literal["ar", "en", "und"] = Field(description="`und`: neither Arabic nor English.")
    flags: list[str] = Field(
        default_factory=list, description="`unsupported_language`, `no_letters`, `mixed_language`: handle with care."
    )
    labels: dict[str, LabelPrediction]
    evidence: list[Evidence] = Field(default_factory=list)
    truncated: bool = Field(default=False, description="Whether the end of the text was beyond the model's reach.")


class Problem(BaseModel):
    """Why a text could not be answered."""

    model_config = ConfigDict(frozen=True)

    code: str
    detail: str


class Rejection(BaseModel):
    """Stands in the place of a prediction for a text that could not be answered; the others are not affected."""

    model_config = ConfigDict(frozen=True)

    id: str
    error: Problem


Answer = Prediction | Rejection

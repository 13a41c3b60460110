"""What comes in over HTTP and what goes out, beside the predictions themselves (`models.prediction`)."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from models.prediction import Answer, Granularity, Problem
from models.text import replace_surrogates
from service.jobs.job import JobOptions, State
from service.lines import MAX_ID_CHARACTERS

ENGLISH_EXAMPLE = (
    "The interior ministry said that the men who burned the Druze families' homes would be tried. "
    "More than forty families have fled to the next town."
)
ARABIC_EXAMPLE = (
    "قالت وزارة الداخلية إن من أحرقوا بيوت العائلات الدرزية سيحاكمون. ونزحت أكثر من أربعين عائلة إلى البلدة المجاورة."
)


MOST_TEXTS = 10_000
"""No setting allows more texts in one request."""
MAX_STREAM_LINES = 100_000


def _mend(value: Any) -> Any:
    return replace_surrogates(value) if isinstance(value, str) else value


Text = Annotated[str, BeforeValidator(_mend)]


class TextInput(BaseModel):
    """A text with an id of the caller's."""

    model_config = ConfigDict(strict=True, extra="forbid")

    id: Text = Field(max_length=MAX_ID_CHARACTERS)
    text: Text


class ClassifyRequest(BaseModel):
    """Texts to classify."""

    model_config = ConfigDict(
        strict=True,
        extra="forbid",
        json_schema_extra={
            "examples": [
                {"texts": [ENGLISH_EXAMPLE, ARABIC_EXAMPLE]},
                {"texts": [{"id": "a-17", "text": ARABIC_EXAMPLE}], "granularity": "document", "evidence": True},
            ]
        },
    )

    texts: list[Text | TextInput] = Field(
        min_length=1, max_length=MOST_TEXTS, fail_fast=True, description="Texts, or objects with `id` and `text`."
    )
    granularity: Granularity = Field(
        default="passage", description="`passage`: judge each text as one piece. `document`: judge its sentences."
    )
    evidence: bool = Field(default=False, description="Name the sentences that carry each label.")


class ModelName(BaseModel):
    """Which model answered."""

    name: str
    version: str


class ClassifyResponse(BaseModel):
    """One prediction, or the reason why there is none, for each text, in the order sent."""

    model: ModelName
    predictions: list[Answer]


class LabelDescription(BaseModel):
    """One label and what it means."""

    id: str
    name: dict[str, str]
    definition: dict[str, str]


class LabelsResponse(BaseModel):
    """The taxonomy the model answers in."""

    taxonomy: str
    version: str
    languages: list[str]
    labels: list[LabelDescription]


class ModelResponse(BaseModel):
    """What the model says of itself."""

    name: str
    version: str
    model_hash: str
    created: str
    taxonomy: str
    base_model: str
    base_licence: str
    max_tokens: int
    quality: dict[str, Any]


class Health(BaseModel):
    """Alive or ready."""

    status: str


class ProblemDetail(BaseModel):
    """An error as RFC 9457 has it, with a stable code and the request's id. It never repeats what was sent."""

    type: str = "about:blank"
    title: str
    status: int
    detail: str
    code: str
    request_id: str
    errors: list[dict[str, str]] = Field(default_factory=list)


class ActivateRequest(BaseModel):
    """Which bundle shall answer."""

    model_config = ConfigDict(extra="forbid", json_schema_extra={"examples": [{"bundle": "rasid-1.2.0"}]})

    bundle: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,127}$", description="Name of a folder in the folder of bundles.")


class LimitsResponse(BaseModel):
    """What one request may hold, and what the caller may send."""

    max_request_bytes: int = Field(description="Of a body, unpacked.")
    max_texts: int
    max_stream_lines: int = Field(description="Of a request to `/v1/classify/stream`.")
    max_text_characters: int
    max_tokens: int = Field(description="Of a passage; longer ones are judged by their beginning and marked `truncated`.")
    timeout_seconds: float
    max_job_bytes: int = Field(description="Of a job's file as it is sent.")
    max_job_unpacked_bytes: int
    max_jobs: int = Field(description="Unfinished jobs of a caller.")
    job_retention_hours: float = Field(description="How long what came of a job is kept.")
    caller: str
    scopes: list[str]
    rate: str | None = Field(description="Texts in a span of time for this key.")
    rate_per_address: str | None = Field(description="Texts in a span of time for this address.")


class JobResponse(BaseModel):
    """A job and where it stands."""

    id: str
    state: State
    created: datetime
    started: datetime | None
    ended: datetime | None
    expires: datetime | None = Field(description="When the files of an ended job are deleted.")
    bytes: int = Field(description="Of the file as it was sent.")
    total_rows: int | None = Field(description="Known when the file was looked through.")
    rows: int = Field(description="Done, rejected ones among them.")
    rejected: int
    options: JobOptions
    model: str | None
    summary: dict[str, Any] | None = Field(description="Counts by label, language and reason, of a completed job.")
    error: Problem | None = Field(description="Why it failed.")


class JobsResponse(BaseModel):
    """One page of the caller's jobs, the newest first."""

    jobs: list[JobResponse]
    next: str | None = Field(description="What to give as `after` for the next page; null on the last.")

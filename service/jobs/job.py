"""A job: what it is asked for, where it stands."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from models.prediction import Granularity
from service.score.sources import Format

_NAME = r"^[^\x00-\x1f\x7f]*$"


def _flag(value: Any) -> Any:
    """A form has nothing but strings."""
    return {"true": True, "false": False}.get(value, value) if isinstance(value, str) else value


_Flag = Annotated[bool, Field(strict=True), BeforeValidator(_flag)]


class JobOptions(BaseModel):
    """How a job's file is read, judged and written. The fields of the form that comes with the file."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    granularity: Granularity = Field(
        default="passage", description="`passage`: judge each text as one piece. `document`: judge its sentences."
    )
    evidence: _Flag = Field(default=False, description="Name the sentences that carry each label.")
    output: Literal["jsonl", "csv", "tsv", "parquet", "xlsx"] = Field(default="jsonl", description="Format of the results.")
    text_column: str | None = Field(
        default=None, min_length=1, max_length=256, pattern=_NAME, description="Column of the text; else found by its name."
    )
    id_column: str | None = Field(
        default=None, min_length=1, max_length=256, pattern=_NAME, description="Column of the id; else found by its name."
    )
    keep_columns: _Flag = Field(default=False, description="Carry all columns of the file over into the results.")
    format: Format | None = Field(default=None, description="What the file is; else found by its content and name.")


class State(StrEnum):
    """Where a job stands."""

    VALIDATING = "validating"
    QUEUED = "queued"
    RUNNING = "running"
    COMPLETED = "completed"
    FAILED = "failed"
    CANCELLED = "cancelled"
    EXPIRED = "expired"


UNFINISHED = (State.VALIDATING, State.QUEUED, State.RUNNING)
FINISHED = (State.COMPLETED, State.FAILED, State.CANCELLED)


@dataclass(frozen=True, slots=True)
class Job:
    """One job as it stood when it was read. Times are seconds since 1970; `rows` of `total` are done."""

    id: str
    state: State
    owner: str | None
    created: float
    started: float | None
    ended: float | None
    tries: int
    tenant: str
    digest: str
    options: dict[str, Any]
    bytes: int
    total: int | None
    rows: int
    rejected: int
    summary: dict[str, Any] | None
    model: str | None
    error_code: str | None
    error_detail: str | None

"""Deployment settings, read once from the environment (`RASID_...`). Facts about the model live in the bundle."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, field_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from models.engine import MAX_BATCH_TOKENS, EngineName
from service.schemas import MOST_TEXTS

_RATE = r"^\d+ ?/ ?(second|minute|hour|day)$"


def _state_folder() -> Path:
    """Where the XDG specification puts what a program keeps."""
    return Path(os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state") / "rasid" / "jobs"


class Settings(BaseSettings):
    """How one service process runs. Frozen; passed down, never read from the environment again."""

    model_config = SettingsConfigDict(env_prefix="RASID_", frozen=True, extra="ignore")

    host: str = Field(default="127.0.0.1", description="Address to listen on.")
    port: int = Field(default=8080, ge=0, le=65_535, description="Port to listen on; 0 takes a free one.")
    bundle: Path | None = Field(default=None, description="Bundle to serve; the one Rasid ships by default.")
    bundles: Path | None = Field(default=None, description="Folder of the bundles that may be activated while serving.")
    engine: EngineName = Field(default="onnxruntime", description="What computes; openvino is an extra.")
    threads: int | None = Field(default=None, ge=1, description="Inference threads; all processors by default.")
    max_request_bytes: int = Field(default=8 * 1024 * 1024, ge=1_024, description="Largest request body, unpacked.")
    max_texts: int = Field(default=512, ge=1, le=MOST_TEXTS, description="Most texts in one request.")
    max_text_characters: int = Field(default=200_000, ge=1, description="Longest text, in Unicode code points.")
    max_waiting_tokens: int = Field(default=16_384, ge=512, description="Tokens that may wait before requests are refused.")
    max_requests: int = Field(default=512, ge=1, description="Requests that may be in work before others are refused.")
    max_batch_tokens: int = Field(default=MAX_BATCH_TOKENS, ge=1, description="Tokens of one batch.")
    cache_texts: int = Field(default=0, ge=0, description="Passages whose logits are remembered, by hash; 0 for none.")
    timeout_seconds: float = Field(default=30.0, gt=0, description="Longest a request may take, unless it asks for less.")
    drain_seconds: int = Field(default=30, ge=0, description="How long a stopping service finishes what it has.")
    keys: Path | None = Field(default=None, description="File of API keys, made by `rasid keys add`.")
    allow_anonymous: bool = Field(default=False, description="Listen beyond loopback without keys.")
    rate_per_key: str | None = Field(default=None, pattern=_RATE, description="Texts per key, as 6000/minute.")
    rate_per_address: str | None = Field(default=None, pattern=_RATE, description="Texts per client address, as 600/minute.")
    cors_origins: Annotated[tuple[str, ...], NoDecode] = Field(
        default=(), description="Origins whose pages may call, separated by commas."
    )
    jobs: Path = Field(default_factory=_state_folder, description="Folder of the jobs' files.")
    jobs_database: str | None = Field(default=None, description="SQLAlchemy URL; SQLite in the folder of jobs by default.")
    max_job_bytes: int = Field(default=1024**3, ge=1_024, description="Largest file of a job, as it is sent.")
    max_job_unpacked_bytes: int = Field(default=16 * 1024**3, ge=1_024, description="What a job's file may unpack to.")
    max_jobs: int = Field(default=100, ge=1, description="Unfinished jobs a caller may have.")
    job_retention_hours: float = Field(default=72.0, gt=0, description="How long the files of an ended job are kept.")
    telemetry: bool = Field(default=False, description="OpenTelemetry spans and metrics; they hold paths and queries.")
    log_level: Literal["debug", "info", "warning", "error"] = "info"

    @field_validator("cors_origins", mode="before")
    @classmethod
    def _split(cls, value: object) -> object:
        return tuple(part.strip() for part in value.split(",") if part.strip()) if isinstance(value, str) else value

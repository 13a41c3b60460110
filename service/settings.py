"""Deployment settings, read once from the environment (`RASID_...`). Facts about the model live in the bundle."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import Field
from pydantic_settings import BaseSettings, SettingsConfigDict


class Settings(BaseSettings):
    """How one service process runs. Frozen; passed down, never read from the environment again."""

    model_config = SettingsConfigDict(env_prefix="RASID_", frozen=True, extra="ignore")

    host: str = Field(default="127.0.0.1", description="Address to listen on.")
    port: int = Field(default=8080, ge=0, le=65_535, description="Port to listen on; 0 takes a free one.")
    bundle: Path | None = Field(default=None, description="Bundle to serve; the one Rasid ships by default.")
    threads: int | None = Field(default=None, ge=1, description="Inference threads; all processors by default.")
    max_request_bytes: int = Field(default=8 * 1024 * 1024, ge=1_024, description="Largest request body.")
    max_texts: int = Field(default=512, ge=1, description="Most texts in one request.")
    max_text_characters: int = Field(default=200_000, ge=1, description="Longest text, in Unicode code points.")
    log_level: Literal["debug", "info", "warning", "error"] = "info"

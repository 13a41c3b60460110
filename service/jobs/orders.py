"""What the service tells its worker, on the worker's standard input."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass

from models.engine import EngineName

DRAIN = "drain"
"""A line that says: finish the job you have, and go."""


@dataclass(frozen=True, slots=True)
class WorkerSettings:
    """How a worker works. The first line it reads."""

    name: str
    database: str
    folder: str
    bundle: str
    engine: EngineName
    threads: int | None
    max_characters: int
    max_bytes: int
    log_level: str

    def line(self) -> str:
        """The settings as a line of JSON."""
        return json.dumps(asdict(self)) + "\n"

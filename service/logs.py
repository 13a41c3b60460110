"""Logging as JSON lines. What is logged is chosen field by field; texts are never among them."""

from __future__ import annotations

import json
import logging
import sys
import traceback
from datetime import UTC, datetime

_STANDARD = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName", "color_message"}


class JsonFormatter(logging.Formatter):
    """One JSON object a record: time, level, logger, message and the fields given as `extra`."""

    def format(self, record: logging.LogRecord) -> str:
        """The record as one line of JSON; an exception only by its type, since its words may quote a text."""
        content: dict[str, object] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            # what asyncio says of a task that failed goes on with the error's own words
            "message": record.getMessage().split("\n", 1)[0] if record.name == "asyncio" else record.getMessage(),
        }
        content.update({key: value for key, value in vars(record).items() if key not in _STANDARD})
        if record.exc_info and record.exc_info[0] is not None:
            content["error"] = record.exc_info[0].__name__
        return json.dumps(content, ensure_ascii=False, default=str)


def configure_logging(level: str) -> None:
    """Send everything to standard error as JSON lines."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonFormatter())
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level.upper())
    for name in ("uvicorn", "uvicorn.error", "uvicorn.access"):
        logging.getLogger(name).handlers.clear()
        logging.getLogger(name).propagate = name != "uvicorn.access"
    logging.getLogger("python_multipart").setLevel(logging.CRITICAL)  # it quotes what it cannot parse


def log_unexpected(error: BaseException) -> None:
    """Log the type of an error and the places it passed: its own words may quote a text."""
    places = [f"{frame.filename}:{frame.lineno}" for frame in traceback.extract_tb(error.__traceback__)[-8:]]
    logging.getLogger("rasid").error("unexpected error", extra={"error": type(error).__name__, "places": places})

"""A LitServe server around a function from texts to answers, set up as its documentation shows."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import litserve  # not a dependency of this project: only the two servers beside this file import it

from eval.contenders.protocol import Arguments

Load = Callable[[str, str, int], Any]

_MAX_BATCH = 32
_WAIT_SECONDS = 0.01


class TextApi(litserve.LitAPI):  # type: ignore[misc]
    """Collects texts to batches and answers them."""

    def __init__(self, load: Load, arguments: Arguments) -> None:
        super().__init__(max_batch_size=_MAX_BATCH, batch_timeout=_WAIT_SECONDS)
        self._load = load
        self._arguments = arguments

    def setup(self, device: str) -> None:  # noqa: ARG002 - there is one
        """Load the model in the worker process."""
        given = self._arguments
        self.classify = self._load(str(given.bundle), str(given.model), given.threads)

    def decode_request(self, request: dict[str, str]) -> str:
        """The text of a request."""
        return request["text"]

    def predict(self, texts: list[str]) -> list[Any]:
        """Answers to a batch."""
        found: list[Any] = self.classify(texts)
        return found

    def encode_response(self, answer: Any) -> dict[str, Any]:
        """What goes back."""
        return {"answer": answer}


def run_server(load: Load, arguments: Arguments) -> None:
    """Serve `POST /predict` with `{"text": ...}` until the process is ended."""
    server = litserve.LitServer(TextApi(load, arguments), accelerator="cpu")
    server.run(host="127.0.0.1", port=arguments.port, generate_client_file=False, log_level="error")

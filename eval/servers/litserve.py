"""A LitServe server around a function from texts to answers, set up as its documentation shows."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from eval.contenders.protocol import Arguments

_MAX_BATCH = 32
_WAIT_SECONDS = 0.01


def run_server(load: Callable[[str, str, int], Any], arguments: Arguments) -> None:
    """Serve `POST /predict` with `{"text": ...}` until the process is ended."""
    import litserve  # noqa: PLC0415 - not a dependency of this project

    class Api(litserve.LitAPI):  # type: ignore[misc]
        def setup(self, _device: str) -> None:
            self.classify = load(str(arguments.bundle), str(arguments.model), arguments.threads)

        def decode_request(self, request: dict[str, str]) -> str:
            return request["text"]

        def predict(self, texts: list[str]) -> list[Any]:
            found: list[Any] = self.classify(texts)
            return found

        def encode_response(self, answer: Any) -> dict[str, Any]:
            return {"answer": answer}

    server = litserve.LitServer(Api(max_batch_size=_MAX_BATCH, batch_timeout=_WAIT_SECONDS), accelerator="cpu")
    server.run(host="127.0.0.1", port=arguments.port, generate_client_file=False, log_level="error")

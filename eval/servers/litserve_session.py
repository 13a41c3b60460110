"""Server: LitServe running Rasid's own classifier, to see what its scheduler and HTTP add or cost.

    python -m eval.servers.litserve_session --bundle BUNDLE --threads 2 --port 9000

Needs `pip install litserve`. Dynamic batching is on, as its documentation recommends: up to 32 texts, 10 ms of waiting.
"""

from __future__ import annotations

from typing import Any

from eval.contenders.protocol import read_arguments
from eval.servers.litserve import run_server


def load(bundle: str, _model: str, threads: int) -> Any:
    """A function from texts to answers; called in the server's worker process."""
    from pathlib import Path  # noqa: PLC0415 - the worker imports what it needs

    from models.classifier import Classifier  # noqa: PLC0415

    classifier = Classifier.load(Path(bundle), threads=threads, require_seal=False)
    return lambda texts: [answer.model_dump() for answer in classifier.classify(texts)]


if __name__ == "__main__":
    run_server(load, read_arguments(__doc__ or "", "python -m eval.servers.litserve_session ... --port 9000", port=True))

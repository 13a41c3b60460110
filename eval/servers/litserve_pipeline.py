"""Server: LitServe running a plain transformers pipeline on the same weights in float32.

    python -m eval.servers.litserve_pipeline --bundle BUNDLE --model runs/reference/pytorch --threads 2 --port 9000

Needs `pip install litserve`. Dynamic batching is on, as its documentation recommends: up to 32 texts, 10 ms of waiting.
"""

from __future__ import annotations

from typing import Any

from eval.contenders.protocol import read_arguments
from eval.servers.litserve import run_server


def load(bundle: str, model: str, threads: int) -> Any:
    """A function from texts to answers; called in the server's worker process."""
    from pathlib import Path  # noqa: PLC0415 - the worker imports what it needs

    from eval.contenders.pipeline import load as load_pipeline  # noqa: PLC0415
    from eval.contenders.protocol import Arguments  # noqa: PLC0415

    loaded = load_pipeline(Arguments(Path(bundle), Path(model), threads))
    return loaded.classify


if __name__ == "__main__":
    run_server(load, read_arguments(__doc__ or "", "python -m eval.servers.litserve_pipeline ... --port 9000", port=True))

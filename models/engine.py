"""The inference engine: token ids in, logits out, and never a number that depends on the neighbours.

Texts are not padded: only texts of one length share a batch, so the arithmetic of a text is the same alone, in any batch
and in any order. The matrix products are exact in int8, every other operation works on one row at a time.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from models.errors import EngineError

MAX_BATCH_TOKENS = 2_048


def plan_batches(lengths: Sequence[int], max_batch_tokens: int = MAX_BATCH_TOKENS) -> Iterator[list[int]]:
    """Indices of every row once, grouped by equal length, no group above the token budget (one row always fits)."""
    by_length: dict[int, list[int]] = {}
    for index, length in enumerate(lengths):
        by_length.setdefault(length, []).append(index)
    for length, indices in sorted(by_length.items()):
        size = max(1, max_batch_tokens // max(1, length))
        for start in range(0, len(indices), size):
            yield indices[start : start + size]


class OnnxEngine:
    """Runs a bundle's `model.onnx` with ONNX Runtime on the CPU. Safe to share between threads."""

    def __init__(self, path: Path, *, threads: int | None = None) -> None:
        """Open the session; `threads` defaults to the processors this process may use. Raises EngineError."""
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads or available_processors()
        options.log_severity_level = 3
        try:
            self._session = onnxruntime.InferenceSession(str(path), sess_options=options, providers=["CPUExecutionProvider"])
        except Exception as error:  # onnxruntime raises its own unrelated types
            raise EngineError(f"{path.name} could not be loaded by ONNX Runtime {onnxruntime.__version__}: {error}") from error
        self.label_count = int(self._session.get_outputs()[0].shape[1])

    def logits(self, rows: Sequence[Sequence[int]]) -> NDArray[np.float32]:
        """Logits `[N, L]` of `N` rows of token ids, in their order. Raises EngineError where the session fails."""
        logits = np.empty((len(rows), self.label_count), dtype=np.float32)
        for batch in plan_batches([len(row) for row in rows]):
            ids = np.asarray([rows[index] for index in batch], dtype=np.int64)
            try:
                logits[batch] = self._session.run(["logits"], {"input_ids": ids})[0]
            except Exception as error:
                raise EngineError(f"inference failed on a batch of {ids.shape}: {type(error).__name__}") from error
        return logits


def available_processors() -> int:
    """How many processors this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1

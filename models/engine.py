"""The inference engine: token ids in, logits out, and never a number that depends on the neighbours.

Texts are not padded: only texts of one length share a batch, so the arithmetic of a text is the same alone, in any batch
and in any order. The matrix products are exact in int8, every other operation works on one row at a time.

Several batches run side by side, each on one thread, which wastes less than sharing out the small operations of one batch among
all threads; a batch that is alone gets all threads. Threads do not spin while there is nothing to do.
"""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Literal

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from models.errors import EngineError

# Larger batches leave the processor's cache: 1,024 tokens are four hundredths slower and take 60 MB more.
MAX_BATCH_TOKENS = 384
EngineName = Literal["onnxruntime", "openvino"]
_PROVIDERS = ("CUDAExecutionProvider", "CPUExecutionProvider")


def plan_batches(lengths: Sequence[int], max_batch_tokens: int = MAX_BATCH_TOKENS) -> Iterator[list[int]]:
    """Indices of every row once, grouped by equal length, no group above the token budget (one row always fits)."""
    by_length: dict[int, list[int]] = {}
    for index, length in enumerate(lengths):
        by_length.setdefault(length, []).append(index)
    for length, indices in sorted(by_length.items(), reverse=True):
        size = max(1, max_batch_tokens // max(1, length))
        for start in range(0, len(indices), size):
            yield indices[start : start + size]


class Engine(ABC):
    """Computes logits on one model. Safe to share between threads."""

    def __init__(self, *, streams: int, label_count: int) -> None:
        """`streams` is how many batches may run side by side, `label_count` the columns of the logits."""
        self.streams = streams
        self.label_count = label_count
        self._pool = ThreadPoolExecutor(streams, thread_name_prefix="rasid-stream") if streams > 1 else None

    def logits(self, rows: Sequence[Sequence[int]]) -> NDArray[np.float32]:
        """Logits `[N, L]` of `N` rows of token ids, in their order. Raises EngineError where the session fails."""
        logits = np.empty((len(rows), self.label_count), dtype=np.float32)
        batches = list(plan_batches([len(row) for row in rows]))

        def run(batch: list[int]) -> None:
            logits[batch] = self.run([rows[index] for index in batch], alone=len(batches) == 1)

        if self._pool is None or len(batches) == 1:
            for batch in batches:
                run(batch)
        else:
            list(self._pool.map(run, batches))
        return logits

    def run(self, rows: Sequence[Sequence[int]], *, alone: bool = True) -> NDArray[np.float32]:
        """Logits `[B, L]` of `B` rows of one length, by all threads where the batch is `alone`, else by the calling one.

        Raises EngineError where the session fails.
        """
        ids = np.asarray(rows, dtype=np.int64)
        try:
            return self._infer(ids, alone=alone)
        except Exception as error:  # runtimes raise their own unrelated types
            raise EngineError(f"inference failed on a batch of {ids.shape}: {type(error).__name__}") from error

    @abstractmethod
    def _infer(self, ids: NDArray[np.int64], *, alone: bool) -> NDArray[np.float32]:
        """Logits `[B, L]` of token ids `[B, T]`."""


class OnnxEngine(Engine):
    """Runs a bundle's `model.onnx` with ONNX Runtime, on a GPU where its CUDA provider is installed, else on the CPU."""

    def __init__(self, path: Path, *, threads: int | None = None, streams: int | None = None) -> None:
        """Open the sessions. Raises EngineError.

        `threads` defaults to the processors this process may use; `streams`, how many batches run side by side, to the
        threads, or to one on a GPU.
        """
        providers = [name for name in _PROVIDERS if name in onnxruntime.get_available_providers()]
        threads = threads or available_processors()
        streams = streams or (threads if len(providers) == 1 else 1)
        self._wide = _open(path, threads, providers)
        self._narrow = self._wide if threads == 1 or streams == 1 else _open(path, 1, providers)
        super().__init__(streams=streams, label_count=int(self._wide.get_outputs()[0].shape[1]))

    def _infer(self, ids: NDArray[np.int64], *, alone: bool) -> NDArray[np.float32]:
        session = self._wide if alone else self._narrow
        logits: NDArray[np.float32] = session.run(["logits"], {"input_ids": ids})[0]
        return logits


def _open(path: Path, threads: int, providers: list[str]) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 3
    options.add_session_config_entry("session.force_spinning_stop", "1")  # when a run ends, not some time after
    try:
        return onnxruntime.InferenceSession(str(path), sess_options=options, providers=providers)
    except Exception as error:  # onnxruntime raises its own unrelated types
        raise EngineError(f"{path.name} could not be loaded by ONNX Runtime {onnxruntime.__version__}: {error}") from error


def open_engine(name: EngineName, path: Path, *, threads: int | None = None) -> Engine:
    """The engine of a name on a model. Raises EngineError."""
    if name == "openvino":
        from models.openvino_engine import OpenVinoEngine  # noqa: PLC0415 - it imports this module

        return OpenVinoEngine(path, threads=threads)
    return OnnxEngine(path, threads=threads)


def available_processors() -> int:
    """How many processors this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1

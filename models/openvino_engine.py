"""The engine on OpenVINO, an extra: the same `model.onnx`, for machines where it is the faster runtime.

Install it with `pip install -e '.[openvino]'` in the checkout, choose it with `RASID_ENGINE=openvino`.

Its kernels add in another order for other batch sizes (a logit moved by 0.05), and two requests at once on one compiled model
of open shape gave wrong numbers (2026.4), so it is given one row at a time: the answers must not depend on the company.
"""

from __future__ import annotations

import threading
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from models.engine import Engine, available_processors
from models.errors import EngineError


class OpenVinoEngine(Engine):
    """Runs a bundle's `model.onnx` with OpenVINO on the CPU, in float32 where it is not int8."""

    def __init__(self, path: Path, *, threads: int | None = None) -> None:
        """Compile the model for `threads` (all processors by default). Raises EngineError, also where it is not installed."""
        try:
            import openvino  # noqa: PLC0415 - an extra
        except ImportError:
            raise EngineError(
                "OpenVINO is not installed: pip install -e '.[openvino]' in the checkout, or RASID_ENGINE=onnxruntime"
            ) from None
        options = {
            "INFERENCE_NUM_THREADS": threads or available_processors(),
            "NUM_STREAMS": 1,
            "INFERENCE_PRECISION_HINT": "f32",
        }
        try:
            core = openvino.Core()
            model = core.read_model(path)
            self._request = core.compile_model(model, "CPU", options).create_infer_request()
        except Exception as error:  # openvino raises its own unrelated types
            raise EngineError(f"{path.name} could not be loaded by OpenVINO {openvino.__version__}: {error}") from error
        self._lock = threading.Lock()
        super().__init__(streams=1, label_count=int(model.output(0).partial_shape[1].get_length()))

    def _infer(self, ids: NDArray[np.int64], *, alone: bool) -> NDArray[np.float32]:  # noqa: ARG002 - all are
        logits = np.empty((len(ids), self.label_count), dtype=np.float32)
        with self._lock:
            for index in range(len(ids)):
                self._request.infer({0: ids[index : index + 1]})
                logits[index] = self._request.get_output_tensor(0).data[0]
        return logits

"""The arithmetic limit: how many operations a text costs, and how many this machine can do.

A multiplication with its addition counts as two operations.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto, helper, numpy_helper

_PROBE_TOKENS = 8
# Rows, inner and outer width of products like the encoder's own and of larger ones; the best rate of all counts.
_PEAK_SHAPES = ((512, 384, 1536), (512, 1536, 384), (1024, 1024, 1024), (1024, 2048, 2048))
_PEAK_SECONDS = 0.15
_PEAK_WARMUP = 3


@dataclass(frozen=True, slots=True)
class Operations:
    """What a model's matrix products cost: so much a token, and in attention so much for every pair of tokens of a text."""

    int8_per_token: int
    float_per_token: int
    attention_per_pair: int

    def of(self, lengths: Iterable[int]) -> int:
        """All operations of texts of these lengths in tokens."""
        each = self.int8_per_token + self.float_per_token
        return sum(length * each + length * length * self.attention_per_pair for length in lengths)


def count_operations(path: Path) -> Operations:
    """Count the matrix products of an ONNX file by the shapes of their inputs.

    A product with a constant matrix is int8 where that matrix is stored as int8, else float; a product of two computed
    tensors with heads (four dimensions) is attention. Gathers, sums and the pooling are left out: well below one per cent.
    """
    model = onnx.load(path)
    for dimension, value in zip(model.graph.input[0].type.tensor_type.shape.dim, (1, _PROBE_TOKENS), strict=True):
        dimension.Clear()
        dimension.dim_value = value
    inferred = onnx.shape_inference.infer_shapes(model, data_prop=True)
    shapes = {
        info.name: [int(dimension.dim_value) for dimension in info.type.tensor_type.shape.dim]
        for info in inferred.graph.value_info
    }
    constants = {tensor.name: tensor for tensor in inferred.graph.initializer}
    dequantised = {node.output[0]: node.input[0] for node in inferred.graph.node if node.op_type == "DequantizeLinear"}
    int8 = floats = pairs = 0
    for node in inferred.graph.node:
        if node.op_type not in ("MatMul", "MatMulInteger"):
            continue
        right = dequantised.get(node.input[1], node.input[1])
        if right in constants:
            weights = 2 * math.prod(constants[right].dims)
            if constants[right].data_type in (TensorProto.INT8, TensorProto.UINT8):
                int8 += weights
            else:
                floats += weights
        elif len(shapes[node.output[0]]) == 4:
            inner = shapes[node.input[0]][-1]
            pairs += 2 * math.prod(shapes[node.output[0]]) * inner // _PROBE_TOKENS**2
    return Operations(int8, floats, pairs)


class PeakInt8:
    """Measures the best rate of int8 matrix products that ONNX Runtime reaches here, with a given number of threads."""

    def __init__(self, *, threads: int) -> None:
        """Build one product uint8 by int8 for each shape."""
        self._products = [_product(shape, threads) for shape in _PEAK_SHAPES]
        self.rates: list[float] = []

    @property
    def best(self) -> float:
        """The best rate of all measurements, in operations a second."""
        return max(self.rates)

    def measure(self, seconds: float = _PEAK_SECONDS) -> float:
        """Run every product for some seconds; the best rate of this measurement, in operations a second."""
        best = 0.0
        for session, binding, operations in self._products:
            for _ in range(_PEAK_WARMUP):
                session.run_with_iobinding(binding)
            end = time.perf_counter() + seconds
            while (began := time.perf_counter()) < end:
                session.run_with_iobinding(binding)
                best = max(best, operations / (time.perf_counter() - began))
        self.rates.append(best)
        return best


def _product(shape: tuple[int, int, int], threads: int) -> tuple[onnxruntime.InferenceSession, onnxruntime.IOBinding, int]:
    rows, inner, outer = shape
    generator = np.random.default_rng(0)
    weight = numpy_helper.from_array(generator.integers(-127, 128, (inner, outer), dtype=np.int8), "b")
    graph = helper.make_graph(
        [helper.make_node("MatMulInteger", ["a", "b"], ["y"])],
        "peak",
        [helper.make_tensor_value_info("a", TensorProto.UINT8, [rows, inner])],
        [helper.make_tensor_value_info("y", TensorProto.INT32, [rows, outer])],
        [weight],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    binding = session.io_binding()
    binding.bind_cpu_input("a", generator.integers(0, 256, (rows, inner), dtype=np.uint8))
    result = onnxruntime.OrtValue.ortvalue_from_shape_and_type([rows, outer], np.int32, "cpu")
    binding.bind_ortvalue_output("y", result)
    return session, binding, 2 * rows * inner * outer

"""The ONNX graph of a fine-tuned BERT-family encoder, written node by node.

The graph takes `input_ids` `[N, T]` (int64) and gives `logits` `[N, L]` (float32). It has no attention mask: texts are never
padded, only texts of one length share a batch (see `models.engine`), so a text's numbers cannot depend on its neighbours.
Only standard operators are used, so that any ONNX runtime can run it.

With `Quantisation` the inputs of all four matrix products of a layer pass through QuantizeLinear and DequantizeLinear
with fixed scales, and their weights are stored as int8 per output channel. Without it the graph is float32.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from training.encoder import PassageEncoder

FloatArray = NDArray[np.float32]
OPSET = 21
SITES = ("attention_input", "context", "ffn_input", "ffn_hidden")
_Q4_BLOCK = 32


@dataclass(frozen=True, slots=True)
class ActivationRange:
    """How the input of a matrix product is quantised: `q = round(x * smoothing / scale) + zero_point`, as uint8.

    `smoothing` `[C]` evens out the channels before rounding (SmoothQuant, Xiao et al. 2023); the weight rows are divided
    by it. None means no smoothing.
    """

    scale: float
    zero_point: int
    smoothing: FloatArray | None = None


Quantisation = dict[tuple[int, str], ActivationRange]


@dataclass(frozen=True, slots=True)
class LayerWeights:
    """One encoder layer; matrices are `[in, out]`."""

    qkv: FloatArray
    qkv_bias: FloatArray
    attention_out: FloatArray
    attention_out_bias: FloatArray
    attention_norm: tuple[FloatArray, FloatArray]
    ffn_in: FloatArray
    ffn_in_bias: FloatArray
    ffn_out: FloatArray
    ffn_out_bias: FloatArray
    ffn_norm: tuple[FloatArray, FloatArray]


@dataclass(frozen=True, slots=True)
class EncoderWeights:
    """All weights the graph needs, as float32 arrays, and the shape facts of the encoder."""

    words: FloatArray
    positions: FloatArray
    embedding_norm: tuple[FloatArray, FloatArray]
    layers: tuple[LayerWeights, ...]
    head: FloatArray
    head_bias: FloatArray
    heads: int
    epsilon: float


def encoder_weights(model: PassageEncoder) -> EncoderWeights:
    """Collect the weights of a fine-tuned model."""
    state = {name: value.detach().numpy() for name, value in model.state_dict().items()}
    config = model.encoder.config

    def norm(name: str) -> tuple[FloatArray, FloatArray]:
        return state[f"{name}.weight"], state[f"{name}.bias"]

    positions = state["encoder.embeddings.position_embeddings.weight"]
    if config.model_type != "bert":  # RoBERTa counts positions from the padding id on
        positions = positions[int(config.pad_token_id) + 1 :]
    layers = []
    for index in range(int(config.num_hidden_layers)):
        prefix = f"encoder.encoder.layer.{index}"
        attention = [f"{prefix}.attention.self.{part}" for part in ("query", "key", "value")]
        layers.append(
            LayerWeights(
                qkv=np.concatenate([state[f"{name}.weight"].T for name in attention], axis=1),
                qkv_bias=np.concatenate([state[f"{name}.bias"] for name in attention]),
                attention_out=state[f"{prefix}.attention.output.dense.weight"].T,
                attention_out_bias=state[f"{prefix}.attention.output.dense.bias"],
                attention_norm=norm(f"{prefix}.attention.output.LayerNorm"),
                ffn_in=state[f"{prefix}.intermediate.dense.weight"].T,
                ffn_in_bias=state[f"{prefix}.intermediate.dense.bias"],
                ffn_out=state[f"{prefix}.output.dense.weight"].T,
                ffn_out_bias=state[f"{prefix}.output.dense.bias"],
                ffn_norm=norm(f"{prefix}.output.LayerNorm"),
            )
        )
    return EncoderWeights(
        words=state["encoder.embeddings.word_embeddings.weight"],
        positions=positions + state["encoder.embeddings.token_type_embeddings.weight"][0],
        embedding_norm=norm("encoder.embeddings.LayerNorm"),
        layers=tuple(layers),
        head=state["head.weight"].T,
        head_bias=state["head.bias"],
        heads=int(config.num_attention_heads),
        epsilon=float(config.layer_norm_eps),
    )


def pack_q4(values: FloatArray) -> tuple[NDArray[np.uint8], NDArray[np.float16]] | None:
    """Pack `[V, H]` into 4-bit blocks of 32 along `H` where that loses nothing: nibbles `[V, H/2]`, scales `[V, H/32]`.

    Values that came out of Q4_0 blocks and were not trained since go back without loss; others give None.
    """
    rows, width = values.shape
    if width % _Q4_BLOCK:
        return None
    blocks = values.reshape(rows, width // _Q4_BLOCK, _Q4_BLOCK)
    extreme = np.take_along_axis(blocks, np.abs(blocks).argmax(axis=2, keepdims=True), axis=2)[..., 0]
    scales = (extreme / -8.0).astype(np.float16)
    safe = np.where(scales == 0, 1.0, scales.astype(np.float32))[..., None]
    nibbles = np.clip(np.rint(blocks / safe) + 8, 0, 15).astype(np.uint8)
    if not np.array_equal((nibbles.astype(np.float32) - 8) * scales.astype(np.float32)[..., None], blocks):
        return None
    packed = nibbles[..., :16] | (nibbles[..., 16:] << 4)
    return packed.reshape(rows, width // 2), scales


def quantise_weight(weight: FloatArray) -> tuple[NDArray[np.int8], FloatArray]:
    """Symmetric int8 per output channel of `[in, out]`: values and scales `[out]`."""
    scales = np.maximum(np.abs(weight).max(axis=0) / 127.0, 1e-12).astype(np.float32)
    return np.clip(np.rint(weight / scales), -127, 127).astype(np.int8), scales


class _Graph:
    """Collects nodes and constants under unique names."""

    def __init__(self) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self.constants: list[onnx.TensorProto] = []

    def constant(self, name: str, value: Any) -> str:
        self.constants.append(numpy_helper.from_array(np.asarray(value, order="C"), name))
        return name

    def node(self, operator: str, inputs: Sequence[str], output: str, **attributes: Any) -> str:
        self.nodes.append(helper.make_node(operator, list(inputs), [output], name=output, **attributes))
        return output


def build_graph(weights: EncoderWeights, quantisation: Quantisation | None = None) -> onnx.ModelProto:
    """The graph of an encoder, float32 without `quantisation`, int8 matrix products with it."""
    graph = _Graph()
    width = weights.words.shape[1]
    head_width = width // weights.heads
    hidden = _embed(graph, weights, width)
    for index, layer in enumerate(weights.layers):

        def product(name: str, source: str, weight: FloatArray, bias: FloatArray, site: str, *, index: int = index) -> str:
            name = f"l{index}.{name}"
            chosen = quantisation.get((index, site)) if quantisation is not None else None
            if chosen is None:
                raw = graph.node("MatMul", [source, graph.constant(f"{name}.w", weight)], f"{name}.mm")
            else:
                raw = _quantised_product(graph, name, source, weight, chosen)
            return graph.node("Add", [raw, graph.constant(f"{name}.b", bias)], name)

        qkv = product("qkv", hidden, layer.qkv, layer.qkv_bias, "attention_input")
        context = _attend(graph, f"l{index}", qkv, weights.heads, head_width)
        out = product("ao", context, layer.attention_out, layer.attention_out_bias, "context")
        hidden = _norm(graph, f"l{index}.aln", out, hidden, layer.attention_norm, weights.epsilon)
        inner = product("fi", hidden, layer.ffn_in, layer.ffn_in_bias, "ffn_input")
        inner = graph.node("Gelu", [inner], f"l{index}.gelu")
        out = product("fo", inner, layer.ffn_out, layer.ffn_out_bias, "ffn_hidden")
        hidden = _norm(graph, f"l{index}.oln", out, hidden, layer.ffn_norm, weights.epsilon)
    _pool_and_classify(graph, weights, hidden)
    model = helper.make_model(
        helper.make_graph(
            graph.nodes,
            "rasid",
            [helper.make_tensor_value_info("input_ids", TensorProto.INT64, ["N", "T"])],
            [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["N", int(weights.head.shape[1])])],
            graph.constants,
        ),
        opset_imports=[helper.make_opsetid("", OPSET)],
        producer_name="rasid",
        ir_version=10,
    )
    onnx.checker.check_model(model, full_check=True)
    return model


def _embed(graph: _Graph, weights: EncoderWeights, width: int) -> str:
    packed = pack_q4(weights.words)
    if packed is None:
        values, scales = quantise_weight(weights.words.T)  # one scale a row of the table
        rows = graph.node("Gather", [graph.constant("emb.rows", values.T), "input_ids"], "emb.gather")
        scale = graph.node("Gather", [graph.constant("emb.scales", scales[:, None]), "input_ids"], "emb.scale")
        rows = graph.node("Cast", [rows], "emb.float", to=TensorProto.FLOAT)
        words = graph.node("Mul", [rows, scale], "emb.words")
    else:
        nibbles, block_scales = packed
        blocks = width // _Q4_BLOCK
        rows = graph.node("Gather", [graph.constant("emb.nibbles", nibbles), "input_ids"], "emb.gather")
        scale = graph.node("Gather", [graph.constant("emb.scales", block_scales), "input_ids"], "emb.scale16")
        scale = graph.node("Cast", [scale], "emb.scale", to=TensorProto.FLOAT)
        scale = graph.node("Unsqueeze", [scale, graph.constant("emb.last", np.array([-1], np.int64))], "emb.scale4")
        shape = graph.constant("emb.blocks", np.array([0, 0, blocks, _Q4_BLOCK // 2], np.int64))
        rows = graph.node("Reshape", [rows, shape], "emb.packed")
        low = graph.node("BitwiseAnd", [rows, graph.constant("emb.15", np.array(15, np.uint8))], "emb.low")
        high = graph.node("BitShift", [rows, graph.constant("emb.4", np.array(4, np.uint8))], "emb.high", direction="RIGHT")
        both = graph.node("Concat", [low, high], "emb.both", axis=3)
        both = graph.node("Cast", [both], "emb.float", to=TensorProto.FLOAT)
        both = graph.node("Sub", [both, graph.constant("emb.8", np.array(8, np.float32))], "emb.centred")
        both = graph.node("Mul", [both, scale], "emb.scaled")
        words = graph.node("Reshape", [both, graph.constant("emb.wide", np.array([0, 0, width], np.int64))], "emb.words")
    length = graph.node("Shape", ["input_ids"], "length", start=1, end=2)
    zero = graph.constant("zero", np.array([0], np.int64))
    positions = graph.node("Slice", [graph.constant("emb.pos", weights.positions), zero, length, zero], "emb.positions")
    return _norm(graph, "emb.ln", words, positions, weights.embedding_norm, weights.epsilon)


def _pool_and_classify(graph: _Graph, weights: EncoderWeights, hidden: str) -> None:
    """Mean over the tokens of `[N, T, H]` and the linear head: `logits` `[N, L]`.

    Runtimes reduce the middle axis, and multiply a single row, by other kernels for a batch of one than for many; these
    add in another order, and a text's numbers would depend on its company. So the sum over tokens is a batched product,
    whose shape for each text is the same in any batch, and the head is a sum over the last axis.
    """
    length = graph.node("Shape", [hidden], "pool.length", start=1, end=2)
    one = graph.constant("pool.one", np.array([1], np.int64))
    shape = graph.node("Concat", [one, one, length], "pool.shape", axis=0)
    value = numpy_helper.from_array(np.array([1.0], np.float32))
    ones = graph.node("ConstantOfShape", [shape], "pool.ones", value=value)
    total = graph.node("MatMul", [ones, hidden], "pool.sum")
    count = graph.node("Cast", [length], "pool.count", to=TensorProto.FLOAT)
    mean = graph.node("Div", [total, count], "pool.mean")
    products = graph.node("Mul", [mean, graph.constant("head.w", weights.head.T)], "head.products")
    axis = graph.constant("head.axis", np.array([2], np.int64))
    raw = graph.node("ReduceSum", [products, axis], "head.sum", keepdims=0)
    graph.node("Add", [raw, graph.constant("head.b", weights.head_bias)], "logits")


def _norm(graph: _Graph, name: str, left: str, right: str, parameters: tuple[FloatArray, FloatArray], epsilon: float) -> str:
    total = graph.node("Add", [left, right], f"{name}.sum")
    gain, bias = graph.constant(f"{name}.w", parameters[0]), graph.constant(f"{name}.b", parameters[1])
    return graph.node("LayerNormalization", [total, gain, bias], name, axis=-1, epsilon=epsilon)


def _attend(graph: _Graph, name: str, qkv: str, heads: int, head_width: int) -> str:
    """Softmax attention over `[N, T, 3*H]`: `[N, T, H]`."""
    shape = graph.constant(f"{name}.split", np.array([0, 0, 3, heads, head_width], np.int64))
    parts = graph.node("Reshape", [qkv, shape], f"{name}.parts")
    parts = graph.node("Transpose", [parts], f"{name}.heads", perm=[2, 0, 3, 1, 4])
    one = [
        graph.node("Gather", [parts, graph.constant(f"{name}.{part}.at", np.array(at, np.int64))], f"{name}.{part}", axis=0)
        for at, part in enumerate("qkv")
    ]
    query = graph.node(
        "Mul", [one[0], graph.constant(f"{name}.root", np.array(head_width**-0.5, np.float32))], f"{name}.scaled"
    )
    key = graph.node("Transpose", [one[1]], f"{name}.kt", perm=[0, 1, 3, 2])
    weight = graph.node("Softmax", [graph.node("MatMul", [query, key], f"{name}.qk")], f"{name}.softmax", axis=-1)
    context = graph.node("MatMul", [weight, one[2]], f"{name}.context")
    context = graph.node("Transpose", [context], f"{name}.merged", perm=[0, 2, 1, 3])
    flat = graph.constant(f"{name}.flat", np.array([0, 0, heads * head_width], np.int64))
    return graph.node("Reshape", [context, flat], f"{name}.flatcontext")


def _quantised_product(graph: _Graph, name: str, source: str, weight: FloatArray, chosen: ActivationRange) -> str:
    if chosen.smoothing is not None:
        source = graph.node("Mul", [source, graph.constant(f"{name}.smooth", chosen.smoothing)], f"{name}.smoothed")
        weight = weight / chosen.smoothing[:, None]
    values, scales = quantise_weight(weight)
    scale = graph.constant(f"{name}.xs", np.array(chosen.scale, np.float32))
    zero = graph.constant(f"{name}.xz", np.array(chosen.zero_point, np.uint8))
    quantised = graph.node("QuantizeLinear", [source, scale, zero], f"{name}.q")
    left = graph.node("DequantizeLinear", [quantised, scale, zero], f"{name}.dq")
    weight_name = graph.constant(f"{name}.w", values)
    weight_scale = graph.constant(f"{name}.ws", scales)
    weight_zero = graph.constant(f"{name}.wz", np.zeros(scales.shape, np.int8))
    right = graph.node("DequantizeLinear", [weight_name, weight_scale, weight_zero], f"{name}.wdq", axis=1)
    return graph.node("MatMul", [left, right], f"{name}.mm")

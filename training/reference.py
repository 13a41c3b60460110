"""What the evaluation compares a bundle with: the same model in float32, the same model for PyTorch, and its base encoder.

Everything comes from the bundle's own `model.onnx`, int8 weights times their scales, so that a comparison shows what the int8
arithmetic and the runtime do, and not that another training run was taken. The folder:

- `float32.onnx`: the model as a float32 graph; its word embedding stays packed, as in the bundle;
- `pytorch/`: `config.json` (with the labels), `model.safetensors` (a BertModel under `encoder.`, the linear head under `head.`)
  and the tokenizer, for `transformers`;
- `base.onnx`, `base-tokenizer.json`: the base encoder before fine-tuning, vocabulary trimmed; its output `logits` is the
  mean-pooled vector `[N, H]`;
- `reference.json`: which bundle and which base it was made from. It marks the folder as one that may be replaced.

    rasid-train reference --out runs/reference
"""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from onnx import numpy_helper
from safetensors.torch import save_file
from tokenizers import Tokenizer
from transformers import BertConfig, BertModel, PreTrainedTokenizerFast

from models.bundle import Bundle, load_bundle
from models.engine import OnnxEngine
from models.errors import InputError, RasidError
from training.base import DEFAULT_BASE, load_base
from training.encoder import PassageEncoder, keep_vocabulary_rows
from training.graph import EncoderWeights, FloatArray, LayerWeights, build_graph, encoder_weights
from training.vocabulary import trim_vocabulary

MARK = "reference.json"
TOLERANCE = 1e-4  # between the logits of the float32 graph and PyTorch; relative where they are above one
_PAD_TOKENS = ("<pad>", "[PAD]")


class ReferenceModelError(RasidError):
    """The float32 graph and the PyTorch model of a reference do not say the same."""

    code = "reference_error"


def write_reference(bundle_path: Path, out: Path, *, base: str | None = None) -> Path:
    """Write the reference folder of a bundle and return it; `base` is by default the one the bundle names.

    An older reference folder at `out` is replaced in one step. Raises InputError where `out` is something else or the ONNX
    file is not one of `rasid-train export`, BundleError, BaseEncoderError, or ReferenceModelError where the parts disagree.
    """
    _check_target(out)
    bundle = load_bundle(bundle_path, require_seal=False)
    weights = read_weights(bundle.model_path)
    partial = out.with_name(out.name + ".part")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    try:
        onnx.save(build_graph(weights), partial / "float32.onnx")
        network = rebuild_network(weights, pad_id=_pad_id(bundle.tokenizer()))
        check_agreement(partial / "float32.onnx", network, max_tokens=bundle.manifest.max_tokens)
        _write_pytorch(network, bundle, partial / "pytorch")
        content = {
            "model_hash": bundle.manifest.model_hash,
            "bundle": bundle.manifest.name,
            "version": bundle.manifest.version,
            "base": _write_base(base or _base_of(bundle), partial),
        }
        (partial / MARK).write_text(json.dumps(content, ensure_ascii=False, indent=2) + "\n", encoding="utf-8")
        _replace(partial, out)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return out


def read_weights(path: Path) -> EncoderWeights:
    """The float32 weights of a graph that `training.graph` wrote, int8 and 4-bit values multiplied out.

    Raises InputError where a tensor is missing.
    """
    model = onnx.load(path)
    tensors = {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer}
    found = {match[1] for name in tensors if (match := re.fullmatch(r"l(\d+)\.qkv\.w", name))}
    try:
        layers = tuple(_layer(tensors, index) for index in range(len(found)))
        split = tensors["l0.split"]
        norm = next(node for node in model.graph.node if node.name == "emb.ln")
        epsilon = next(float(attribute.f) for attribute in norm.attribute if attribute.name == "epsilon")
        return EncoderWeights(
            words=_words(tensors),
            positions=tensors["emb.pos"],
            embedding_norm=(tensors["emb.ln.w"], tensors["emb.ln.b"]),
            layers=layers,
            head=tensors["head.w"].T,
            head_bias=tensors["head.b"],
            heads=int(split[3]),
            epsilon=epsilon,
        )
    except (KeyError, StopIteration) as error:
        missing = f"no tensor {error}" if isinstance(error, KeyError) else "no normalisation emb.ln"
        raise InputError(f"{path} has {missing}; expected the graph of an encoder that rasid-train export wrote") from error


def rebuild_network(weights: EncoderWeights, *, pad_id: int = 0) -> PassageEncoder:
    """The PyTorch network of some weights: a BertModel, whatever family of encoder they came from."""
    positions, width = weights.positions.shape
    config = BertConfig(
        vocab_size=len(weights.words),
        hidden_size=width,
        num_hidden_layers=len(weights.layers),
        num_attention_heads=weights.heads,
        intermediate_size=weights.layers[0].ffn_in.shape[1],
        max_position_embeddings=positions,
        type_vocab_size=1,
        layer_norm_eps=weights.epsilon,
        pad_token_id=pad_id,
    )
    network = PassageEncoder(BertModel(config, add_pooling_layer=False), len(weights.head_bias))
    arrays = {
        "embeddings.word_embeddings.weight": weights.words,
        "embeddings.position_embeddings.weight": weights.positions,  # the graph keeps the token type's row in here
        "embeddings.token_type_embeddings.weight": np.zeros((1, width), np.float32),
        "embeddings.LayerNorm.weight": weights.embedding_norm[0],
        "embeddings.LayerNorm.bias": weights.embedding_norm[1],
    }
    for index, layer in enumerate(weights.layers):
        arrays |= {f"encoder.layer.{index}.{name}": value for name, value in _layer_arrays(layer).items()}
    state = {f"encoder.{name}": _tensor(value) for name, value in arrays.items()}
    state |= {"head.weight": _tensor(weights.head.T), "head.bias": _tensor(weights.head_bias)}
    network.load_state_dict(state)
    return network.eval()


@torch.no_grad()
def check_agreement(path: Path, network: PassageEncoder, *, max_tokens: int) -> float:
    """The largest difference between logits of an ONNX file and of PyTorch, on rows of random tokens up to the longest.

    It is relative where a logit is above one. Raises ReferenceModelError above the tolerance.
    """
    generator = np.random.default_rng(0)
    lengths = (3, max(3, max_tokens // 4), max_tokens)
    vocabulary = int(network.encoder.config.vocab_size)
    rows = [generator.integers(0, vocabulary, size=length).tolist() for length in lengths]
    exported = OnnxEngine(path).logits(rows)
    wanted = np.concatenate([network(torch.tensor([row]), torch.ones(1, len(row))).numpy() for row in rows])
    largest = float((np.abs(exported - wanted) / np.maximum(1.0, np.abs(wanted))).max())
    if not largest <= TOLERANCE:
        raise ReferenceModelError(f"logits of {path.name} and of PyTorch differ by {largest:.2g}, at most {TOLERANCE} can be")
    return largest


def _check_target(out: Path) -> None:
    if out.exists() and not (out / MARK).is_file():
        raise InputError(f"{out} exists and is no reference folder (it has no {MARK}); choose another --out")


def _replace(partial: Path, out: Path) -> None:
    old = out.with_name(out.name + ".old")
    shutil.rmtree(old, ignore_errors=True)
    if out.exists():
        out.replace(old)
    partial.replace(out)
    shutil.rmtree(old, ignore_errors=True)


def _layer(tensors: dict[str, NDArray[np.generic]], index: int) -> LayerWeights:
    def matrix(name: str) -> FloatArray:
        values, scales = tensors[f"l{index}.{name}.w"], tensors.get(f"l{index}.{name}.ws")
        matrix = values.astype(np.float32)
        if scales is not None:
            matrix = (matrix - tensors[f"l{index}.{name}.wz"].astype(np.float32)) * scales.astype(np.float32)
        smoothing = tensors.get(f"l{index}.{name}.smooth")
        return matrix if smoothing is None else matrix * smoothing.astype(np.float32)[:, None]

    def vector(name: str) -> FloatArray:
        return tensors[f"l{index}.{name}"].astype(np.float32)

    return LayerWeights(
        qkv=matrix("qkv"),
        qkv_bias=vector("qkv.b"),
        attention_out=matrix("ao"),
        attention_out_bias=vector("ao.b"),
        attention_norm=(vector("aln.w"), vector("aln.b")),
        ffn_in=matrix("fi"),
        ffn_in_bias=vector("fi.b"),
        ffn_out=matrix("fo"),
        ffn_out_bias=vector("fo.b"),
        ffn_norm=(vector("oln.w"), vector("oln.b")),
    )


def _words(tensors: dict[str, NDArray[np.generic]]) -> FloatArray:
    """The word embedding `[V, H]`, from 4-bit blocks (see `training.graph.pack_q4`) or from int8 rows."""
    scales = tensors["emb.scales"].astype(np.float32)
    if "emb.nibbles" not in tensors:
        rows: FloatArray = tensors["emb.rows"].astype(np.float32) * scales
        return rows
    packed = tensors["emb.nibbles"].astype(np.uint8)
    packed = packed.reshape(len(packed), scales.shape[1], -1)
    values = np.concatenate([packed & 15, packed >> 4], axis=2).astype(np.float32) - 8.0
    words: FloatArray = (values * scales[..., None]).reshape(len(packed), -1)
    return words


def _layer_arrays(layer: LayerWeights) -> dict[str, FloatArray]:
    """One layer under the names of `BertModel`, matrices `[out, in]`."""
    arrays = {
        "attention.output.dense.weight": layer.attention_out.T,
        "attention.output.dense.bias": layer.attention_out_bias,
        "attention.output.LayerNorm.weight": layer.attention_norm[0],
        "attention.output.LayerNorm.bias": layer.attention_norm[1],
        "intermediate.dense.weight": layer.ffn_in.T,
        "intermediate.dense.bias": layer.ffn_in_bias,
        "output.dense.weight": layer.ffn_out.T,
        "output.dense.bias": layer.ffn_out_bias,
        "output.LayerNorm.weight": layer.ffn_norm[0],
        "output.LayerNorm.bias": layer.ffn_norm[1],
    }
    parts = zip(("query", "key", "value"), np.split(layer.qkv, 3, axis=1), np.split(layer.qkv_bias, 3), strict=True)
    for part, weight, bias in parts:
        arrays |= {f"attention.self.{part}.weight": weight.T, f"attention.self.{part}.bias": bias}
    return arrays


def _write_pytorch(network: PassageEncoder, bundle: Bundle, folder: Path) -> None:
    folder.mkdir()
    labels = bundle.taxonomy.label_ids
    config = network.encoder.config
    config.architectures = ["MeanPooledClassifier"]
    config.problem_type = "multi_label_classification"
    config.id2label = dict(enumerate(labels))
    config.label2id = {label: index for index, label in enumerate(labels)}
    config.save_pretrained(folder)
    state = {name: value.contiguous() for name, value in network.state_dict().items()}
    save_file(state, folder / "model.safetensors", metadata={"format": "pt"})
    tokenizer = bundle.tokenizer()
    pad = tokenizer.id_to_token(int(config.pad_token_id))
    fast = PreTrainedTokenizerFast(  # type: ignore[no-untyped-call]
        tokenizer_object=tokenizer, pad_token=pad, model_max_length=bundle.manifest.max_tokens,
        model_input_names=["input_ids", "attention_mask"],
    )  # fmt: skip
    fast.save_pretrained(folder)


def _write_base(name: str, folder: Path) -> str:
    """Write `base.onnx` and `base-tokenizer.json`; returns the full name of the base."""
    base = load_base(name)
    tokenizer = base.tokenizer_json
    width = int(base.model.config.hidden_size)
    network = PassageEncoder(base.model, width)
    if tokenizer["model"]["type"] == "Unigram":
        trimmed = trim_vocabulary(tokenizer)
        tokenizer = trimmed.tokenizer_json
        keep_vocabulary_rows(network.encoder, trimmed.kept_ids)
    with torch.no_grad():
        network.head.weight.copy_(torch.eye(width))
        network.head.bias.zero_()
    onnx.save(build_graph(encoder_weights(network)), folder / "base.onnx")
    (folder / "base-tokenizer.json").write_text(json.dumps(tokenizer, ensure_ascii=False), encoding="utf-8")
    return base.name


def _base_of(bundle: Bundle) -> str:
    """The name under which `load_base` knows the bundle's base encoder."""
    name = bundle.manifest.base_model
    return DEFAULT_BASE if name.endswith(f"/{DEFAULT_BASE}") else name


def _pad_id(tokenizer: Tokenizer) -> int:
    return next((found for token in _PAD_TOKENS if (found := tokenizer.token_to_id(token)) is not None), 0)


def _tensor(value: FloatArray) -> torch.Tensor:
    return torch.from_numpy(np.array(value, np.float32, order="C"))

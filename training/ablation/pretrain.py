"""Continued pre-training: the base encoder guesses hidden pieces of unlabelled passages (Gururangan et al. 2020, "Don't Stop
Pretraining"), before it is fine-tuned."""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from typing import Any

import torch
from tokenizers import Tokenizer
from torch import Tensor, nn
from tqdm import tqdm
from transformers import PreTrainedModel

from models.errors import InputError
from training.attention import CPU_ATTENTION
from training.batching import batches, encode, pad
from training.finetune import bfloat16_is_faster

HIDDEN_SHARE = 0.15


class _PieceHead(nn.Module):
    """Scores `[N, V]` of all pieces for vectors `[N, H]`: a layer of its own, then the word embedding, as in BERT."""

    def __init__(self, width: int, pieces: int) -> None:
        super().__init__()
        self.dense = nn.Linear(width, width)
        nn.init.eye_(self.dense.weight)
        nn.init.zeros_(self.dense.bias)
        self.norm = nn.LayerNorm(width)
        self.bias = nn.Parameter(torch.zeros(pieces))

    def forward(self, vectors: Tensor, embedding: Tensor) -> Tensor:
        hidden = self.norm(nn.functional.gelu(self.dense(vectors)))
        return nn.functional.linear(hidden, embedding, self.bias)


def pretrain(
    encoder: PreTrainedModel,
    tokenizer: Tokenizer,
    texts: Sequence[str],
    *,
    epochs: int = 1,
    batch_size: int = 16,
    learning_rate: float = 1e-4,
    max_tokens: int = 128,
    seed: int = 1,
    show_progress: bool = True,
) -> float:
    """Train `encoder` in place on prepared texts, its word embedding frozen; the mean loss of the last tenth of the steps.

    Raises InputError where there is no text, or no piece that stands for a hidden one.
    """
    if not texts:
        raise InputError("expected passages to pre-train on, got none that is not for validation or measuring")
    torch.manual_seed(seed)
    generator = random.Random(seed)
    embedding: Any = encoder.get_input_embeddings().weight
    embedding.requires_grad_(False)
    encoder.set_attn_implementation(CPU_ATTENTION)
    head = _PieceHead(int(encoder.config.hidden_size), len(embedding))
    learned = [value for value in (*encoder.parameters(), *head.parameters()) if value.requires_grad]
    optimiser = torch.optim.AdamW(learned, lr=learning_rate, weight_decay=0.01, fused=True)
    steps = math.ceil(len(texts) / batch_size) * epochs
    warmup = max(1, steps // 16)
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimiser, lambda step: min((step + 1) / warmup, (steps - step) / max(1, steps - warmup))
    )
    mask_id = tokenizer.token_to_id("<mask>")
    if mask_id is None:
        raise InputError("expected a tokenizer with the piece <mask>; this base cannot be pre-trained further")
    pad_id = int(encoder.config.pad_token_id)
    encoded = encode(tokenizer, texts, max_tokens)
    use_bfloat16 = bfloat16_is_faster()
    losses = []
    encoder.train()
    with tqdm(total=steps, unit="step", desc="pre-training", disable=not show_progress, dynamic_ncols=True) as bar:
        for epoch in range(epochs):
            for batch in batches([len(ids) for ids in encoded], batch_size, seed=seed * 1_000 + epoch):
                ids, mask = pad([encoded[index] for index in batch], pad_id)
                hidden = torch.tensor(
                    [
                        [0 < at < len(encoded[index]) - 1 and generator.random() < HIDDEN_SHARE for at in range(ids.shape[1])]
                        for index in batch
                    ]
                )
                if not hidden.any():
                    continue
                shown = torch.where(hidden, _instead(ids, mask_id, len(embedding), generator), ids)
                with torch.autocast("cpu", dtype=torch.bfloat16, enabled=use_bfloat16):
                    vectors = encoder(input_ids=shown, attention_mask=mask).last_hidden_state
                    scores = head(vectors[hidden], embedding)
                loss = nn.functional.cross_entropy(scores.float(), ids[hidden])
                loss.backward()  # type: ignore[no-untyped-call]
                nn.utils.clip_grad_norm_(learned, 1.0)
                optimiser.step()
                schedule.step()
                optimiser.zero_grad(set_to_none=True)
                losses.append(float(loss.detach()))
                bar.update()
                bar.set_postfix(loss=f"{losses[-1]:.3f}")
    last = losses[-max(1, len(losses) // 10) :]
    return sum(last) / len(last)


def _instead(ids: Tensor, mask_id: int, pieces: int, generator: random.Random) -> Tensor:
    """What is shown where a piece is hidden: eight in ten times the mask, else a random piece or the piece itself."""
    chance = torch.tensor([[generator.random() for _ in row] for row in ids.tolist()])
    other = torch.tensor([[generator.randrange(pieces) for _ in row] for row in ids.tolist()])
    return torch.where(chance < 0.8, torch.full_like(ids, mask_id), torch.where(chance < 0.9, other, ids))

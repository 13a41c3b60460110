"""The network that is fine-tuned: a BERT-family encoder, mean pooling over the tokens, one logit a label."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel


class PassageEncoder(nn.Module):
    """Maps token ids `[N, T]` and their mask `[N, T]` (1 token, 0 padding) to logits `[N, L]`."""

    def __init__(self, encoder: PreTrainedModel, label_count: int, *, dropout: float = 0.1) -> None:
        super().__init__()
        self.encoder = encoder
        self.dropout = nn.Dropout(dropout)
        self.head = nn.Linear(int(encoder.config.hidden_size), label_count)
        nn.init.normal_(self.head.weight, std=0.02)
        nn.init.zeros_(self.head.bias)

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """Logits `[N, L]`, float32."""
        hidden = self.encoder(input_ids=input_ids, attention_mask=attention_mask).last_hidden_state
        return self.classify(hidden, attention_mask).float()

    def classify(self, hidden: Tensor, attention_mask: Tensor) -> Tensor:
        """Logits `[N, L]` of the encoder's token vectors `[N, T, H]`."""
        logits: Tensor = self.head(self.dropout(mean_pool(hidden, attention_mask)))
        return logits


def mean_pool(hidden: Tensor, attention_mask: Tensor) -> Tensor:
    """The mean of the token vectors `[N, T, H]` that the mask `[N, T]` keeps: `[N, H]`, float32."""
    mask = attention_mask.unsqueeze(-1).to(torch.float32)
    return (hidden.float() * mask).sum(dim=1) / mask.sum(dim=1)


def keep_vocabulary_rows(encoder: PreTrainedModel, kept_ids: list[int]) -> None:
    """Replace the word embedding by its rows `kept_ids`, in that order."""
    old: Any = encoder.get_input_embeddings()
    new = nn.Embedding(len(kept_ids), int(old.embedding_dim), padding_idx=kept_ids.index(encoder.config.pad_token_id))
    with torch.no_grad():
        new.weight.copy_(old.weight[torch.tensor(kept_ids)])
    encoder.set_input_embeddings(new)
    encoder.config.vocab_size = len(kept_ids)
    encoder.config.pad_token_id = new.padding_idx

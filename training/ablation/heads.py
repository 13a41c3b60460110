"""Other ways from token vectors to logits than the recipe's mean and one linear layer."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from training.encoder import PassageEncoder, mean_pool


class MeanAndMax(PassageEncoder):
    """The mean of the token vectors and their largest values side by side: a passing clause cannot drown in the mean."""

    def __init__(self, encoder: PreTrainedModel, label_count: int, *, dropout: float = 0.1) -> None:
        super().__init__(encoder, label_count, dropout=dropout)
        self.head = _linear(2 * int(encoder.config.hidden_size), label_count)

    def classify(self, hidden: Tensor, attention_mask: Tensor) -> Tensor:
        """Logits `[N, L]` of the encoder's token vectors `[N, T, H]`."""
        largest = hidden.float().masked_fill(attention_mask.unsqueeze(-1) == 0, -torch.inf).amax(dim=1)
        logits: Tensor = self.head(self.dropout(torch.cat([mean_pool(hidden, attention_mask), largest], dim=1)))
        return logits


class LabelAttention(PassageEncoder):
    """Every label weighs the tokens by a vector of its own (Mullenbach et al. 2018); at the start all weigh the same."""

    def __init__(self, encoder: PreTrainedModel, label_count: int, *, dropout: float = 0.1) -> None:
        super().__init__(encoder, label_count, dropout=dropout)
        self.query = nn.Linear(int(encoder.config.hidden_size), label_count, bias=False)
        nn.init.zeros_(self.query.weight)

    def classify(self, hidden: Tensor, attention_mask: Tensor) -> Tensor:
        """Logits `[N, L]` of the encoder's token vectors `[N, T, H]`."""
        scores = self.query(hidden).float().masked_fill(attention_mask.unsqueeze(-1) == 0, -torch.inf)
        pooled = torch.einsum("ntl,nth->nlh", scores.softmax(dim=1), hidden.float())
        logits: Tensor = (self.dropout(pooled) * self.head.weight).sum(dim=2) + self.head.bias
        return logits


class HiddenLayer(PassageEncoder):
    """A layer as wide as the encoder between the mean and the logits."""

    def __init__(self, encoder: PreTrainedModel, label_count: int, *, dropout: float = 0.1) -> None:
        super().__init__(encoder, label_count, dropout=dropout)
        size = int(encoder.config.hidden_size)
        self.dense = _linear(size, size)

    def classify(self, hidden: Tensor, attention_mask: Tensor) -> Tensor:
        """Logits `[N, L]` of the encoder's token vectors `[N, T, H]`."""
        between = nn.functional.gelu(self.dense(self.dropout(mean_pool(hidden, attention_mask))))
        logits: Tensor = self.head(self.dropout(between))
        return logits


def _linear(inputs: int, outputs: int) -> nn.Linear:
    layer = nn.Linear(inputs, outputs)
    nn.init.normal_(layer.weight, std=0.02)
    nn.init.zeros_(layer.bias)
    return layer

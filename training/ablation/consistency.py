"""Cross-lingual consistency: a passage and its translation are to get the same probabilities.

The labels of the passages are not used. After Zheng et al. 2021, "Consistency Regularization for Cross-Lingual Fine-Tuning":
the symmetric Kullback-Leibler divergence of both predictions, each side learning from the other as it stands.
"""

from __future__ import annotations

import hashlib
import random
from collections.abc import Collection, Sequence

import torch
from tokenizers import Tokenizer
from torch import Tensor, nn

from models.text import prepare_text
from models.translations import Translation
from training.batching import encode, pad
from training.encoder import PassageEncoder

PAIRS_PER_STEP = 4
Pair = tuple[str, str]


def usable_pairs(translations: Sequence[Translation], kept_apart: Collection[str]) -> list[Pair]:
    """The prepared texts of both sides, without pairs of which a side is kept apart for validation or measuring."""
    pairs = [(prepare_text(one.en).text, prepare_text(one.ar).text) for one in translations]
    return [pair for pair in pairs if not any(side in kept_apart for side in pair)]


def divergence(first: Tensor, second: Tensor) -> Tensor:
    """The symmetric Kullback-Leibler divergence `[N, L]`, in nats, of the probabilities that two sets of logits stand for.

    The gradient of each side is that of its divergence from the other, which is held fast.
    """
    return _from(first.detach(), second) + _from(second.detach(), first)


class Consistency:
    """The mean divergence between the sides of a few pairs, other ones at each step; the same ones for the same seed."""

    def __init__(
        self,
        model: PassageEncoder,
        tokenizer: Tokenizer,
        pairs: Sequence[Pair],
        *,
        weight: float,
        max_tokens: int,
        seed: int,
    ) -> None:
        self.model, self.weight, self.seed = model, weight, seed
        self.order: list[int] = []
        self.count = len(pairs)
        self.passed = -1
        self.encoded = encode(tokenizer, [side for pair in pairs for side in pair], max_tokens)
        self.name = f"consistency {weight} {PAIRS_PER_STEP} {digest_pairs(pairs)}"

    def __call__(self, step: int) -> Tensor:
        """The weighted loss of the pairs whose turn it is at a step: all once, shuffled, before any comes again."""
        chosen = [self._at(step * PAIRS_PER_STEP + offset) for offset in range(PAIRS_PER_STEP)]
        sides = [self.encoded[2 * pair + side] for side in (0, 1) for pair in chosen]
        logits = self.model(*pad(sides, int(self.model.encoder.config.pad_token_id)))
        return self.weight * divergence(logits[: len(chosen)], logits[len(chosen) :]).mean()

    def _at(self, turn: int) -> int:
        if turn // self.count != self.passed:
            self.passed, self.order = turn // self.count, list(range(self.count))
            random.Random(self.seed * 1_000 + self.passed).shuffle(self.order)
        return self.order[turn % self.count]


def _from(fixed: Tensor, other: Tensor) -> Tensor:
    """The Kullback-Leibler divergence of `other` from `fixed`."""
    return nn.functional.binary_cross_entropy_with_logits(
        other, torch.sigmoid(fixed), reduction="none"
    ) - nn.functional.binary_cross_entropy_with_logits(fixed, torch.sigmoid(fixed), reduction="none")


def digest_pairs(pairs: Sequence[Pair]) -> str:
    """A digest of the texts, in order."""
    return hashlib.sha256(repr(list(pairs)).encode("utf-8", "surrogatepass")).hexdigest()[:16]

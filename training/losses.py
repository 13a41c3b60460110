"""Losses: of every label of every row, and between the sides of contrast pairs; the form of any other."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Protocol

import torch
from torch import Tensor, nn

# Maps logits `[N, L]` and targets `[N, L]` to the loss of each.
Loss = Callable[[Tensor, Tensor], Tensor]


class AuxiliaryLoss(Protocol):
    """A loss of the network beside that of its rows.

    It must depend on nothing but the step, the weights and torch's random state, so that a run can go on. `name` says what it
    is, with a digest of the texts that it uses.
    """

    name: str

    def __call__(self, step: int) -> Tensor:
        """The loss at a step, counted from 0: a scalar."""


def binary_cross_entropy(logits: Tensor, wanted: Tensor) -> Tensor:
    """The loss of every label of every row, `[N, L]`; targets may be probabilities."""
    return nn.functional.binary_cross_entropy_with_logits(logits, wanted, reduction="none")


def focal(logits: Tensor, wanted: Tensor, *, gamma: float = 2.0) -> Tensor:
    """Focal loss (Lin et al. 2017), `[N, L]`: what is right already counts for less."""
    missed = (torch.sigmoid(logits) - wanted).abs()
    return missed**gamma * binary_cross_entropy(logits, wanted)


def class_weighted(loss: Loss, wanted: Tensor) -> Loss:
    """The loss with each label's positives weighted by its negatives over its positives in `wanted` `[N, L]`.

    With cross-entropy and targets of 0 and 1 this is torch's `pos_weight`. A label without a positive keeps its weights.
    """
    positives = wanted.sum(dim=0)
    ratio = torch.where(positives > 0, (len(wanted) - positives) / positives, 1.0)

    def weighted(logits: Tensor, wanted: Tensor) -> Tensor:
        return loss(logits, wanted) * (1 + (ratio - 1) * wanted)

    weighted.__name__ = f"class-weighted {loss.__name__}"
    return weighted


def pair_loss(logits: Tensor, wanted: Tensor, batch: Sequence[int], partners: Mapping[int, int], loss: Loss) -> Tensor:
    """The loss of the difference in logits between the sides of each pair in the batch, on the labels that differ.

    What the sides have in common cancels out: what is left to learn from is the words that decide. Divided by the rows of the
    batch.
    """
    place = {index: at for at, index in enumerate(batch)}
    lefts = [index for index in batch if index < partners.get(index, -1) and partners[index] in place]
    left, right = [place[index] for index in lefts], [place[partners[index]] for index in lefts]
    sign = wanted[left] - wanted[right]
    difference = sign * (logits[left] - logits[right])
    return (loss(difference, torch.ones_like(difference)) * sign.abs()).sum() / len(batch)

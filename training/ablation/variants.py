"""The variants of the recipe: each changes one thing of the baseline."""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from itertools import chain, islice
from typing import Any

import torch
from torch import Tensor, nn

from training.ablation.heads import HiddenLayer, LabelAttention, MeanAndMax
from training.encoder import PassageEncoder
from training.losses import Loss, binary_cross_entropy, focal
from training.noise import Noise
from training.rows import OWN_PREFIX, TrainingRow

Choice = Callable[[Sequence[TrainingRow], int], list[TrainingRow]]
_SAMPLE_SEED = 5


def asymmetric(logits: Tensor, wanted: Tensor, *, gamma: float = 4.0, margin: float = 0.05) -> Tensor:
    """Asymmetric loss (Ridnik et al. 2021): clear negatives count for less, very clear ones for nothing."""
    shifted = (torch.sigmoid(logits) - margin).clamp(min=0)
    absent = -torch.log1p(-shifted.clamp(max=1 - 1e-6)) * shifted**gamma
    return wanted * -nn.functional.logsigmoid(logits) + (1 - wanted) * absent


def sampled(rows: Sequence[TrainingRow], count: int) -> list[TrainingRow]:
    """A fixed sample of the rows that somebody labelled."""
    return _draw([row for row in rows if not soft(row)], count)


def without_own(rows: Sequence[TrainingRow], count: int) -> list[TrainingRow]:
    """As many rows, none of the own corpus."""
    return _draw([row for row in rows if not soft(row) and not _own(row)], count)


def half_own(rows: Sequence[TrainingRow], count: int) -> list[TrainingRow]:
    """As many rows, half of them of the own corpus."""
    return _draw([row for row in rows if _own(row)], count // 2) + without_own(rows, count - count // 2)


def with_pseudo(rows: Sequence[TrainingRow], count: int) -> list[TrainingRow]:
    """The sample, and half as many pseudo-labels more."""
    return sampled(rows, count) + _draw([row for row in rows if soft(row)], count // 2)


def smoothed(rows: Sequence[TrainingRow], count: int) -> list[TrainingRow]:
    """The sample with targets of .2 and .8 where the reader doubted."""
    return [
        replace(row, targets=tuple(0.2 + 0.6 * value for value in row.targets)) if row.unsure else row
        for row in sampled(rows, count)
    ]


@dataclass(frozen=True, slots=True, kw_only=True)
class Variant:
    """One change of the baseline: loss, rows, settings of the fine-tuning, noise, head, or the encoder to start from.

    `class_weights` weights each label's positives by its negatives over its positives among the rows; `consistency` weighs the
    divergence between translations.
    """

    what: str
    loss: Loss = focal
    class_weights: bool = False
    rows: Choice = sampled
    settings: dict[str, Any] = field(default_factory=dict)
    noise: Noise | None = field(default_factory=Noise)
    network: type[PassageEncoder] = PassageEncoder
    consistency: float = 0.0
    pretrained: bool = False
    needs_pseudo: bool = False

    @property
    def needs_more(self) -> bool:
        """Whether it needs more than the rows of any run: pseudo-labels, a pool, translations."""
        return bool(self.pretrained or self.needs_pseudo or self.consistency)


BASELINE = "baseline"
VARIANTS = {
    BASELINE: Variant(what="the recipe as it is"),
    "cross-entropy": Variant(what="binary cross-entropy", loss=binary_cross_entropy),
    "weighted": Variant(what="focal loss, positives weighted by negatives / positives", class_weights=True),
    "weighted-cross-entropy": Variant(
        what="cross-entropy, positives weighted by negatives / positives", loss=binary_cross_entropy, class_weights=True
    ),
    "no-pairs": Variant(what="contrast pairs are rows like others", settings={"pair_weight": 0.0}),
    "asymmetric": Variant(what="asymmetric loss", loss=asymmetric),
    "smoothed": Variant(what="unsure rows: targets .2 and .8, full weight", rows=smoothed, settings={"unsure_weight": 1.0}),
    "unsure-full": Variant(what="unsure rows: full weight", settings={"unsure_weight": 1.0}),
    "without-own": Variant(what="no row of the own corpus", rows=without_own),
    "half-own": Variant(what="half the rows from the own corpus", rows=half_own),
    "pseudo": Variant(what="half as many pseudo-labels on top", rows=with_pseudo, needs_pseudo=True),
    "no-noise": Variant(what="training texts as they are", noise=None),
    "max-pooling": Variant(what="the largest values of the token vectors beside their mean", network=MeanAndMax),
    "label-attention": Variant(what="each label weighs the tokens for itself", network=LabelAttention),
    "hidden-layer": Variant(what="one more layer before the logits", network=HiddenLayer),
    "fast": Variant(what="twice the encoder's learning rate", settings={"learning_rate": 1.6e-4}),
    "slow": Variant(what="half the encoder's learning rate", settings={"learning_rate": 4e-5}),
    "consistency": Variant(what="translations get the same probabilities", consistency=1.0),
    "pretrained": Variant(what="encoder pre-trained further on the pool", pretrained=True),
}


def _own(row: TrainingRow) -> bool:
    return row.id.startswith(OWN_PREFIX)


def soft(row: TrainingRow) -> bool:
    """Whether a row is a pseudo-label: it has a probability for a target."""
    return any(0 < value < 1 for value in row.targets)


def _draw(rows: Sequence[TrainingRow], count: int) -> list[TrainingRow]:
    """Document after document, so that contrast pairs stay pairs, up to `count` rows."""
    documents: dict[str, list[TrainingRow]] = defaultdict(list)
    for row in rows:
        documents[row.document].append(row)
    names = list(documents)
    random.Random(_SAMPLE_SEED).shuffle(names)
    return list(islice(chain.from_iterable(documents[name] for name in names), count))

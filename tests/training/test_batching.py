"""Batches and losses: every row once, pairs side by side, and the losses by their formulas."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch

from training.batching import batches, contrast_partners, pad
from training.losses import binary_cross_entropy, focal, pair_loss
from training.rows import TrainingRow


def row(name: str, *targets: float) -> TrainingRow:
    return TrainingRow(name, name.split("#", maxsplit=1)[0], "", "en", f"text of {name}", targets, unsure=False)


def test_every_row_is_in_one_batch_of_similar_length() -> None:
    lengths = [i % 50 + 1 for i in range(500)]
    found = list(batches(lengths, 16, seed=3))
    assert sorted(i for batch in found for i in batch) == list(range(500))
    assert list(batches(lengths, 16, seed=3)) == found
    assert list(batches(lengths, 16, seed=4)) != found
    padded = sum(max(lengths[i] for i in batch) * len(batch) for batch in found)
    assert padded < 1.1 * sum(lengths)


def test_padding_and_its_mask() -> None:
    ids, mask = pad([[5, 6, 7], [8]], 1)
    assert ids.tolist() == [[5, 6, 7], [8, 1, 1]]
    assert mask.tolist() == [[1, 1, 1], [1, 0, 0]]


def test_partners_stand_in_one_batch() -> None:
    lengths = [i * 37 % 50 + 1 for i in range(500)]
    partners = {one: other for i in range(0, 200, 2) for one, other in ((i, i + 1), (i + 1, i))}
    found = list(batches(lengths, 16, seed=3, partners=partners))
    assert sorted(i for batch in found for i in batch) == list(range(500))
    together = sum(partners[i] in batch for batch in found for i in batch if i in partners)
    assert together >= 180  # the others stand at the end of one batch and the start of the next


def test_partners_are_documents_of_two_rows_that_differ() -> None:
    rows = [
        row("own-a:1#0", 1),
        row("own-a:2#0", 1),
        row("own-a:1#1", 0),
        row("own-b:3#0", 0),
        row("own-b:3#1", 0),
        row("x#0", 1),
        row("x#1", 0),
    ]
    assert contrast_partners(rows) == {0: 2, 2: 0}
    translated = [replace(one, language="ar") for one in (rows[0], rows[2], rows[1])]
    assert contrast_partners([*rows, *translated]) == {0: 2, 2: 0, 7: 8, 8: 7}


def test_focal_loss_weighs_by_how_much_is_missed() -> None:
    loss = focal(torch.tensor([[0.0, 2.0]]), torch.tensor([[1.0, 1.0]]))
    p = 1 / (1 + math.exp(-2))
    assert loss[0].tolist() == pytest.approx([0.25 * math.log(2), (1 - p) ** 2 * -math.log(p)], rel=1e-5)


def test_pair_loss_is_the_loss_of_the_difference_where_the_sides_differ() -> None:
    logits = torch.tensor([[1.0, 9.0], [5.0, 5.0], [-2.0, -9.0]])
    wanted = torch.tensor([[0.0, 1.0], [1.0, 1.0], [1.0, 1.0]])
    partners = {7: 4, 4: 7}
    found = pair_loss(logits, wanted, [4, 9, 7], partners, binary_cross_entropy)
    assert float(found) == pytest.approx(math.log(1 + math.exp(3)) / 3, rel=1e-5)  # 7 should exceed 4 and is 3 below
    assert float(pair_loss(logits, wanted, [4, 9, 8], partners, focal)) == 0.0  # the partner is in another batch

"""Batches of similar length, padded to their own longest row, with the sides of contrast pairs side by side."""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence

import torch
from tokenizers import Tokenizer
from torch import Tensor

from training.rows import OWN_PREFIX, TrainingRow

_MEGABATCH = 64  # batches that are sorted by length together: enough to waste little padding, few enough to stay random


def encode(tokenizer: Tokenizer, texts: Sequence[str], max_tokens: int) -> list[list[int]]:
    """Token ids of prepared texts, each cut to `max_tokens` with its closing token kept."""
    tokenizer.no_padding()
    tokenizer.enable_truncation(max_tokens)
    return [encoding.ids for encoding in tokenizer.encode_batch(list(texts))]


def pad(rows: Sequence[list[int]], pad_id: int) -> tuple[Tensor, Tensor]:
    """Ids and mask `[N, T]` of `N` rows, `T` the longest of them."""
    longest = max(map(len, rows))
    ids = torch.full((len(rows), longest), pad_id, dtype=torch.long)
    mask = torch.zeros((len(rows), longest), dtype=torch.long)
    for index, row in enumerate(rows):
        ids[index, : len(row)] = torch.tensor(row)
        mask[index, : len(row)] = 1
    return ids, mask


def batches(
    lengths: Sequence[int], batch_size: int, *, seed: int, partners: Mapping[int, int] | None = None
) -> Iterator[list[int]]:
    """Indices of every row once, in shuffled batches of similar length; partners stand side by side."""
    partners = partners or {}
    generator = random.Random(seed)
    units = [
        [index, partners[index]] if index in partners else [index]
        for index in range(len(lengths))
        if index < partners.get(index, len(lengths))
    ]
    generator.shuffle(units)
    order = [index for unit in units for index in unit]
    longest = {index: max(lengths[one] for one in unit) for unit in units for index in unit}
    place = {index: at for at, index in enumerate(order)}
    first = {index: min(place[one] for one in unit) for unit in units for index in unit}
    grouped: list[list[int]] = []
    for start in range(0, len(order), batch_size * _MEGABATCH):
        block = sorted(order[start : start + batch_size * _MEGABATCH], key=lambda index: (longest[index], first[index]))
        grouped.extend(block[at : at + batch_size] for at in range(0, len(block), batch_size))
    generator.shuffle(grouped)
    yield from grouped


def contrast_partners(rows: Sequence[TrainingRow]) -> dict[int, int]:
    """For each row of a contrast pair the other.

    A pair is a document of the own corpus with exactly two rows in a language, labelled differently.
    """
    documents: dict[tuple[str, str], list[int]] = defaultdict(list)
    for index, row in enumerate(rows):
        if row.id.startswith(OWN_PREFIX):
            documents[row.document, row.language].append(index)
    return {
        one: other
        for found in documents.values()
        if len(found) == 2 and rows[found[0]].targets != rows[found[1]].targets
        for one, other in (found, found[::-1])
    }

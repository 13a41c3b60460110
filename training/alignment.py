"""Finds translations between two languages in files that hold them in any order.

Passages are compared by the base encoder's mean-pooled vectors. A pair is kept where each side is the other's best candidate
by the ratio margin: the cosine over the mean cosine to the four nearest neighbours of both sides (Artetxe and Schwenk 2019,
"Margin-based Parallel Corpus Mining with Multilingual Sentence Embeddings", ratio margin, intersection of both directions).
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.neighbors import NearestNeighbors
from tokenizers import Tokenizer
from tqdm import tqdm

from models.errors import ExampleFormatError, InputError, told_value
from models.jsonl import read_rows
from models.text import prepare_text
from models.translations import LANGUAGES, text_fields
from training.attention import CPU_ATTENTION
from training.base import BaseEncoder
from training.batching import encode, pad
from training.encoder import mean_pool
from training.finetune import bfloat16_is_faster
from training.standoff import distinct_names

NEIGHBOURS = 4
_E5_PREFIX = "query: "  # with which encoders named e5 were trained for texts that are compared with their like
_BATCH_SIZE = 32

FloatArray = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Candidate:
    """A row that may have a translation; `labels` are those of its field `label` or `labels`, None where it has neither."""

    id: str
    text: str
    labels: frozenset[str] | None


@dataclass(frozen=True, slots=True)
class Aligned:
    """Two rows taken for translations of each other; `margin` is above 1 where they are closer than what is next to them."""

    en: Candidate
    ar: Candidate
    margin: float


def read_candidates(paths: Sequence[Path]) -> dict[str, list[Candidate]]:
    """The passages of the files by language, each prepared text once; a row without an id is named by file and line.

    Raises ExampleFormatError naming file and line where a row breaks the format or its id is another passage's in its language,
    InputError where a language has no passage.
    """
    found: dict[str, dict[str, Candidate]] = {language: {} for language in LANGUAGES}
    ids: dict[str, set[str]] = {language: set() for language in LANGUAGES}
    names = distinct_names(paths)
    for path in paths:
        for line, row in read_rows(path):
            where = f"{path}:{line}"
            language, text = text_fields(row, where, ("lang", "text"))
            if language not in found:
                raise ExampleFormatError(f"{where}: expected lang to be {' or '.join(LANGUAGES)}, got {told_value(language)}")
            prepared = prepare_text(text).text
            if not prepared or prepared in found[language]:
                continue
            name = str(row.get("id") or f"{names[path]}:{line}")
            if name in ids[language]:
                raise ExampleFormatError(f"{where}: expected an id of its own, another passage in {language} has it")
            ids[language].add(name)
            found[language][prepared] = Candidate(name, text, _labels(row))
    for language, texts in found.items():
        if not texts:
            raise InputError(f"expected passages with lang {' and '.join(LANGUAGES)}, found none in {language}")
    return {language: list(texts.values()) for language, texts in found.items()}


def align(
    candidates: dict[str, list[Candidate]],
    base: BaseEncoder,
    *,
    max_tokens: int = 256,
    show_progress: bool = True,
) -> list[Aligned]:
    """The pairs of best candidates, the surest first."""
    sides = [candidates[language] for language in LANGUAGES]
    vectors = [embed(base, [one.text for one in side], max_tokens=max_tokens, show_progress=show_progress) for side in sides]
    pairs = sorted(mutual_best(*vectors), key=lambda pair: -pair[2])
    return [Aligned(sides[0][first], sides[1][second], margin) for first, second, margin in pairs]


def mutual_best(first: FloatArray, second: FloatArray) -> list[tuple[int, int, float]]:
    """Indices and margin of the rows of `first` `[N, H]` and `second` `[M, H]`, of unit length, that are each other's best."""
    near = [_nearest(first, second), _nearest(second, first)]
    around = [cosines.mean(axis=1) for _, cosines in near]
    best: list[dict[int, tuple[int, float]]] = []
    for (places, cosines), own, other in zip(near, around, around[::-1], strict=True):
        margins = 2 * cosines / (own[:, None] + other[places])
        chosen = margins.argmax(axis=1)
        best.append({row: (int(places[row, at]), float(margins[row, at])) for row, at in enumerate(chosen)})
    return [(row, other, margin) for row, (other, margin) in best[0].items() if best[1][other][0] == row]


@torch.no_grad()
def embed(base: BaseEncoder, texts: Sequence[str], *, max_tokens: int, show_progress: bool = True) -> FloatArray:
    """Mean-pooled vectors `[N, H]` of unit length; each text is prepared, and read as far as `max_tokens`."""
    tokenizer = Tokenizer.from_str(json.dumps(base.tokenizer_json))
    prefix = _E5_PREFIX if "e5" in base.name.lower() else ""
    encoded = encode(tokenizer, [prefix + prepare_text(text).text for text in texts], max_tokens)
    order = sorted(range(len(texts)), key=lambda index: len(encoded[index]))
    base.model.set_attn_implementation(CPU_ATTENTION)
    base.model.train(False)
    vectors = np.zeros((len(texts), int(base.model.config.hidden_size)), dtype=np.float32)
    use_bfloat16 = bfloat16_is_faster()
    with tqdm(total=len(texts), desc="embedding", unit=" passages", disable=not show_progress, dynamic_ncols=True) as bar:
        for start in range(0, len(order), _BATCH_SIZE):
            batch = order[start : start + _BATCH_SIZE]
            ids, mask = pad([encoded[index] for index in batch], int(base.model.config.pad_token_id))
            with torch.autocast("cpu", dtype=torch.bfloat16, enabled=use_bfloat16):
                hidden = base.model(input_ids=ids, attention_mask=mask).last_hidden_state
            vectors[batch] = torch.nn.functional.normalize(mean_pool(hidden, mask), dim=-1).numpy()
            bar.update(len(batch))
    return vectors


def _labels(row: dict[str, Any]) -> frozenset[str] | None:
    value = row.get("label", row.get("labels"))
    if value is None:
        return None
    return frozenset(map(str, value)) if isinstance(value, list) else frozenset([str(value)])


def _nearest(rows: FloatArray, others: FloatArray) -> tuple[NDArray[np.intp], FloatArray]:
    """For each row the places of its nearest among the others and their cosines, `[N, k]`."""
    index = NearestNeighbors(n_neighbors=min(NEIGHBOURS, len(others)), metric="cosine", algorithm="brute").fit(others)
    distances, places = index.kneighbors(rows)
    return places, (1 - distances).astype(np.float32)

"""Trimming a Unigram vocabulary to Arabic and English, tokenizer and embedding together.

A Unigram tokenizer chooses, among the ways to cut a text into pieces of its vocabulary, the one with the best score.
A piece with a character that a text does not have can never be part of a cut of that text. So all pieces whose
characters are in scope are kept, and all others dropped: every text of in-scope characters is cut exactly as before.
In scope is what `prepare_text` lets through unchanged and what is ASCII, of the Arabic script, or no letter at all.
`prove_identical` checks the claim on real texts, and the lowest score is kept because the tokenizer derives the price
of an unknown character from it.
"""

from __future__ import annotations

import copy
import json
import unicodedata
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from tokenizers import Tokenizer

from models.errors import RasidError
from models.text import prepare_text

_WORD_START = "\u2581"


class VocabularyError(RasidError):
    """A vocabulary cannot be trimmed, or trimming changed how an in-scope text is cut."""

    code = "vocabulary_error"


@dataclass(frozen=True, slots=True)
class TrimmedVocabulary:
    """A tokenizer cut down to its in-scope pieces; `kept_ids[new_id]` is the id before."""

    tokenizer_json: dict[str, Any]
    kept_ids: list[int]

    def tokenizer(self) -> Tokenizer:
        """The trimmed tokenizer, ready to encode."""
        return Tokenizer.from_str(json.dumps(self.tokenizer_json))


def in_scope(char: str) -> bool:
    """Whether a character can occur in prepared Arabic or English text."""
    if char == " ":
        return True
    if prepare_text(char).text != char:
        return False
    return char.isascii() or not char.isalpha() or unicodedata.name(char, "").startswith("ARABIC")


def trim_vocabulary(tokenizer_json: dict[str, Any]) -> TrimmedVocabulary:
    """Drop every piece that no in-scope text can use.

    Raises VocabularyError where the tokenizer is not of the Unigram type.
    """
    model = tokenizer_json["model"]
    if model["type"] != "Unigram":
        raise VocabularyError(f"expected a Unigram tokenizer, got {model['type']}; use it untrimmed")
    vocabulary: list[list[Any]] = model["vocab"]
    special = {token["content"] for token in tokenizer_json["added_tokens"]}
    scope: dict[str, bool] = {}
    lowest = min(range(len(vocabulary)), key=lambda index: float(vocabulary[index][1]))
    kept: list[int] = []
    for index, (piece, _score) in enumerate(vocabulary):
        keep = piece in special or index == lowest
        if not keep:
            for char in piece.replace(_WORD_START, ""):
                if char not in scope:
                    scope[char] = in_scope(char)
                if not scope[char]:
                    break
            else:
                keep = True
        if keep:
            kept.append(index)
    new_id = {old: new for new, old in enumerate(kept)}
    trimmed = copy.deepcopy({key: value for key, value in tokenizer_json.items() if key != "model"})
    trimmed["model"] = {**model, "vocab": [vocabulary[index] for index in kept], "unk_id": new_id[model["unk_id"]]}
    for token in trimmed["added_tokens"]:
        token["id"] = new_id[token["id"]]
    for token in (trimmed.get("post_processor") or {}).get("special_tokens", {}).values():
        token["ids"] = [new_id[index] for index in token["ids"]]
    return TrimmedVocabulary(trimmed, kept)


def prove_identical(original: Tokenizer, trimmed: TrimmedVocabulary, texts: Iterable[str]) -> tuple[int, int]:
    """Cut prepared texts with both tokenizers and compare.

    Returns the number of texts in scope (identical, or this raises VocabularyError) and out of scope (not compared).
    """
    small = trimmed.tokenizer()
    same = outside = 0
    scope: dict[str, bool] = {}
    for batch in _batches([prepare_text(text).text for text in texts], 1_000):
        for before, after, text in zip(original.encode_batch(batch), small.encode_batch(batch), batch, strict=True):
            if not all(scope[c] if c in scope else scope.setdefault(c, in_scope(c)) for c in text):
                outside += 1
                continue
            if [trimmed.kept_ids[index] for index in after.ids] != before.ids:
                raise VocabularyError(
                    f"a text of {len(text)} in-scope characters is cut into {len(after.ids)} pieces by the trimmed "
                    f"tokenizer and {len(before.ids)} by the original"
                )
            same += 1
    return same, outside


def _batches(items: Sequence[str], size: int) -> Iterable[list[str]]:
    for start in range(0, len(items), size):
        yield list(items[start : start + size])

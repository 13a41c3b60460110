from __future__ import annotations

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer

from models.text import prepare_text
from tests.conftest import LETTERS, tiny_tokenizer_json
from training.vocabulary import TrimmedVocabulary, VocabularyError, in_scope, prove_identical, trim_vocabulary

ORIGINAL = tiny_tokenizer_json()
TRIMMED = trim_vocabulary(ORIGINAL)
FULL, SMALL = Tokenizer.from_str(json.dumps(ORIGINAL)), TRIMMED.tokenizer()


def test_pieces_of_other_scripts_go_and_the_lowest_score_stays() -> None:
    kept = {piece for piece, _ in TRIMMED.tokenizer_json["model"]["vocab"]}
    assert "▁القرية" in kept
    assert "ж" not in kept
    assert "▁שלום" not in kept
    assert "中" in kept  # the price of an unknown character hangs on the lowest score


@given(st.text(alphabet=st.sampled_from(LETTERS + " 😀"), max_size=60))
@settings(max_examples=400)
def test_in_scope_text_is_cut_as_before(text: str) -> None:
    prepared = prepare_text(text).text
    before, after = FULL.encode(prepared), SMALL.encode(prepared)
    assert [TRIMMED.kept_ids[i] for i in after.ids] == before.ids
    assert before.offsets == after.offsets


def test_the_proof_counts_texts_and_notices_a_missing_piece() -> None:
    assert prove_identical(FULL, TRIMMED, ["the village", "القرية", "שלום"]) == (2, 1)
    vocabulary = [entry for entry in TRIMMED.tokenizer_json["model"]["vocab"] if entry[0] != "▁village"]
    broken = TrimmedVocabulary(
        {**TRIMMED.tokenizer_json, "model": {**TRIMMED.tokenizer_json["model"], "vocab": vocabulary}},
        [i for i in TRIMMED.kept_ids if ORIGINAL["model"]["vocab"][i][0] != "▁village"],
    )
    with pytest.raises(VocabularyError, match="in-scope characters"):
        prove_identical(FULL, broken, ["the village"])


def test_only_unigram_can_be_trimmed() -> None:
    with pytest.raises(VocabularyError, match="expected a Unigram tokenizer, got WordPiece"):
        trim_vocabulary({"model": {"type": "WordPiece"}, "added_tokens": []})


@pytest.mark.parametrize(("char", "inside"), [("a", True), ("ب", True), ("😀", True), (" ", True), ("é", False), ("ж", False)])
def test_scope(char: str, inside: bool) -> None:
    assert in_scope(char) is inside

from __future__ import annotations

import unicodedata

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from models.text import prepare_text, replace_surrogates

ANY_TEXT = st.text(alphabet=st.characters(codec=None), max_size=80)  # lone surrogates included
ARABIC = st.text(alphabet=st.characters(min_codepoint=0x0600, max_codepoint=0x06FF), max_size=60)


@pytest.mark.parametrize(
    ("original", "prepared"),
    [
        ("قَالَ الوَزِيرُ", "قال الوزير"),
        ("الـــوزيـــر", "الوزير"),
        ("ﻻ ﺗﺮﺍﺟﻊ", "لا تراجع"),
        ("١٢٣ ۴۵۶", "123 456"),
        ("١٢٫٥٪", "12.5%"),
        ("ا\u0654هل", "أهل"),
        ("zero\u200bwidth\u200f\u202b mark", "zerowidth mark"),
        ("a\x00b\tc\r\nd", "a b c d"),
        ("  many   spaces\u00a0here ", "many spaces here"),
        ("“Erdoğan’s” «plan»", '"Erdogan\'s" "plan"'),
        ("ﬁne ½", "fine 1⁄2"),
        ("half \ud800 pair", "half pair"),
        ("هٰذا", "هذا"),
        ("أإآى ةه", "أإآى ةه"),
        ("\u200f\u200e\ufeff", ""),
        ("", ""),
    ],
)
def test_typography_is_folded_and_letters_are_kept(original: str, prepared: str) -> None:
    assert prepare_text(original).text == prepared


@given(st.one_of(ANY_TEXT, ARABIC))
@settings(max_examples=400)
def test_preparing_twice_changes_nothing(text: str) -> None:
    once = prepare_text(text).text
    assert prepare_text(once).text == once


@given(st.one_of(ANY_TEXT, ARABIC))
@settings(max_examples=400)
def test_offsets_lie_in_the_original_and_never_decrease(text: str) -> None:
    prepared = prepare_text(text)
    assert len(prepared.starts) == len(prepared.ends) == len(prepared.text)
    assert all(0 <= s < e <= len(text) for s, e in zip(prepared.starts, prepared.ends, strict=True))
    assert list(prepared.starts) == sorted(prepared.starts)
    assert list(prepared.ends) == sorted(prepared.ends)


@given(ANY_TEXT)
@settings(max_examples=300)
def test_a_letter_that_is_kept_points_at_itself(text: str) -> None:
    prepared = prepare_text(text)
    for char, start in zip(prepared.text, prepared.starts, strict=True):
        if char.isascii() and char.isalpha():
            folded = unicodedata.normalize("NFKD", text[start])
            assert char in folded or not text[start].isascii()


def test_a_span_covers_the_marks_that_follow_its_last_letter() -> None:
    text = "قالَ الوزير"
    prepared = prepare_text(text)
    start, end = prepared.original_span(0, 3)
    assert text[start:end] == "قالَ"


@pytest.mark.parametrize(("start", "end"), [(0, 0), (2, 1), (0, 99), (-1, 2)])
def test_an_impossible_span_is_refused(start: int, end: int) -> None:
    with pytest.raises(IndexError, match="prepared text of 4"):
        prepare_text("text").original_span(start, end)


def test_lone_surrogates_are_replaced_in_place() -> None:
    assert replace_surrogates("a\ud800b😀") == "a\ufffdb😀"

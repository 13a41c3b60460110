"""Segmenting an article into passages: sentences with exact offsets into the text as sent.

Sentence boundaries come from sentencex (rules and abbreviations for Arabic and English, among others). On top of it,
what it cuts too short is joined again: initials and one-letter Arabic titles ("د. سمير"), and pieces without a letter.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

import sentencex

# A sentence cannot end in a one-letter Arabic abbreviation (doctor, engineer, professor, number ...).
_ARABIC_TITLE = re.compile(r"(?:^|[\s(«\"])[دمأاصسقتعو]\.\s*$")


@dataclass(frozen=True, slots=True)
class Passage:
    """A stretch of a text: code point offsets, end exclusive, white space at the ends left out."""

    start: int
    end: int


def split_passages(text: str, language: str) -> list[Passage]:
    """The sentences of a text, in order and without overlap. Every letter and digit is in exactly one of them.

    `language` is `ar` or `en`; anything else is segmented by the English rules. A text of white space has none.
    """
    spans: list[tuple[int, int, bool]] = []
    for boundary in sentencex.get_sentence_boundaries("ar" if language == "ar" else "en", text):
        start, end = boundary["start_index"], boundary["end_index"]
        spans.append((start, end, bool(boundary["is_paragraph_break"])))
    merged: list[list[int]] = []
    may_join = False
    for start, end, is_break in spans:
        piece = text[start:end]
        if is_break or not piece.strip():
            may_join = False
            continue
        wordless = not any(char.isalnum() for char in piece)
        title_before = bool(merged) and _ARABIC_TITLE.search(text[merged[-1][0] : merged[-1][1]]) is not None
        if merged and may_join and (wordless or title_before):
            merged[-1][1] = end
        else:
            merged.append([start, end])
        may_join = True
    return [_trim(text, start, end) for start, end in merged]


def _trim(text: str, start: int, end: int) -> Passage:
    while start < end and text[start].isspace():
        start += 1
    while end > start and text[end - 1].isspace():
        end -= 1
    return Passage(start, end)

"""Text preparation: what the tokenizer sees, and where each of its characters came from.

`prepare_text` is the only door from a user's text to the model, in serving and in training alike. It removes what
carries no meaning for the labels (typography, invisible characters, Arabic vowel marks, tatweel, presentation forms,
digit scripts, accents on Latin letters) and keeps for every character the place in the original text it came from,
so that evidence can be pointed at exactly. Letter variants that Arabic writers do distinguish (alef and hamza,
teh marbuta, alef maqsura) are left alone.

Preparing a prepared text changes nothing.
"""

from __future__ import annotations

import re
import unicodedata
from array import array
from dataclasses import dataclass

_TATWEEL = "\u0640"
_ARABIC_HAMZA_MARKS = frozenset("\u0653\u0654\u0655")
# Characters that NFKC leaves alone but that are only another way of writing the one on the right.
_REPLACEMENTS = {
    "\u066a": "%",
    "\u066b": ".",
    "\u066c": ",",
    "\u06d4": ".",
    "\u2018": "'",
    "\u2019": "'",
    "\u201a": "'",
    "\u201b": "'",
    "\u02bc": "'",
    "\u201c": '"',
    "\u201d": '"',
    "\u201e": '"',
    "\u201f": '"',
    "\u00ab": '"',
    "\u00bb": '"',
    "\u2010": "-",
    "\u2011": "-",
    "\u2012": "-",
    "\u2013": "-",
    "\u2212": "-",
    # Latin letters that carry a stroke instead of a combining mark.
    "\u0131": "i",
    "\u00f8": "o",
    "\u00d8": "O",
    "\u0142": "l",
    "\u0141": "L",
    "\u0111": "d",
    "\u0110": "D",
    "\u00df": "ss",
    "\u00e6": "ae",
    "\u00c6": "AE",
    "\u0153": "oe",
    "\u0152": "OE",
}
_SPACE = " "
_SURROGATE = re.compile("[\ud800-\udfff]")


@dataclass(frozen=True, slots=True)
class PreparedText:
    """A prepared text and the way back to the original.

    `starts[i]` and `ends[i]` are the code point offsets in the original text of the first character, and one past the
    last, that prepared character `i` stands for. Both have the length of `text` and never decrease.
    """

    text: str
    starts: array[int]
    ends: array[int]

    def original_span(self, start: int, end: int) -> tuple[int, int]:
        """Offsets in the original text of the prepared characters `start` to `end` (exclusive).

        Raises IndexError where the span is empty or lies outside the prepared text.
        """
        if not 0 <= start < end <= len(self.text):
            raise IndexError(f"span {start}:{end} of a prepared text of {len(self.text)} characters")
        return self.starts[start], self.ends[end - 1]


def replace_surrogates(text: str) -> str:
    """The text with U+FFFD for each half of a surrogate pair: those are no characters, and no encoder takes them.

    JSON escapes and undecodable command line arguments can carry them. Offsets stay as they are.
    """
    return _SURROGATE.sub("\ufffd", text)


def _fold(char: str) -> str:
    """What one character becomes, without regard to its neighbours; a combining mark comes back as itself."""
    if char in _REPLACEMENTS:
        return _REPLACEMENTS[char]
    category = unicodedata.category(char)
    if category in ("Cc", "Zs", "Zl", "Zp", "Cs") or char == "\ufffd":
        return _SPACE
    if category in ("Cf", "Me") or char == _TATWEEL:
        return ""
    if category == "Mn":
        return char if char in _ARABIC_HAMZA_MARKS else ""
    if category == "Nd":
        return str(unicodedata.decimal(char))
    folded: list[str] = []
    for part in unicodedata.normalize("NFKC", char):
        if part == char:
            folded.append(_strip_latin_accent(part))
        else:  # a compatibility form may unfold into anything above: presentation forms, spaces, marks
            folded.append(_fold(part))
    return "".join(folded)


def _strip_latin_accent(char: str) -> str:
    if char < "\u00c0" or char > "\u1eff":
        return char
    base = unicodedata.normalize("NFKD", char)[0]
    return base if base < "\u0080" and base.isalpha() else char


class _FoldTable(dict[str, str]):
    """Remembers what each character becomes; the texts of two languages use a few hundred of them."""

    limit = 65_536

    def __missing__(self, char: str) -> str:
        folded = _fold(char)
        if len(self) < self.limit:
            self[char] = folded
        return folded


_FOLDED = _FoldTable()


def prepare_text(text: str) -> PreparedText:
    """Prepare a text for the tokenizer, keeping the way back to every original character.

    Applies NFKC; drops tatweel, vowel and other combining marks, zero-width and bidirectional controls; turns digits
    of every script into 0-9, typographic quotes and hyphens into plain ones, accented Latin letters into their base;
    folds control characters, lone surrogates, replacement characters and runs of white space into one space; strips
    the ends. The result may be empty. Any `str` is accepted; none raises.
    """
    table = _FOLDED
    chars: list[str] = []
    starts = array("i")
    ends = array("i")
    for index, char in enumerate(text):
        folded = table[char]
        if not folded:
            if chars and chars[-1] != _SPACE and ends[-1] == index:
                ends[-1] = index + 1  # a mark or a control belongs to the character it follows
            continue
        for out in folded:
            if out == _SPACE:
                if not chars or chars[-1] == _SPACE:
                    continue
            elif out in _ARABIC_HAMZA_MARKS:
                composed = unicodedata.normalize("NFC", chars[-1] + out) if chars else out
                if len(composed) == 1 and chars:
                    chars[-1] = composed
                    ends[-1] = index + 1
                continue
            chars.append(out)
            starts.append(index)
            ends.append(index + 1)
    if chars and chars[-1] == _SPACE:
        chars.pop()
        starts.pop()
        ends.pop()
    return PreparedText("".join(chars), starts, ends)

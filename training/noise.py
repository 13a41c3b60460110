"""Noise on training texts that changes no label: other communities' names, spelling habits, casing, missing punctuation.

Swapped names are counterfactual augmentation (Lu et al. 2018, "Gender Bias in Neural Natural Language Processing"): violence
against Druze villagers is what violence against Hindu villagers is, so the name must not decide. The spelling habits are
those of people who type Arabic fast: hamza left out, teh marbuta written as heh, alef maqsura as yeh.
"""

from __future__ import annotations

import json
import random
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import pairwise
from pathlib import Path

from training.rows import TrainingRow

_FOLDER = Path(__file__).parent
_WITHOUT_HAMZA = str.maketrans("أإآ", "ااا")
_FINAL_HEH = re.compile(r"ة\b")
_FINAL_YEH = re.compile(r"ى\b")
_PUNCTUATION = re.compile(r"[^\w\s]")
# Words that make a community's name part of something else.
_NOT_A_COMMUNITY = {
    "en": re.compile(r"Muslim Brother|settler|\bChristian [A-Z]"),
    "ar": re.compile(r"[إا]خوان المسلم|مستوطن"),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Noise:
    """The share of texts on which each kind of noise falls, in every epoch anew."""

    swapped_names: float = 0.5
    spelling: float = 0.2
    lower_case: float = 0.08
    upper_case: float = 0.03
    no_punctuation: float = 0.05

    def disturb(self, rows: Sequence[TrainingRow], *, seed: int) -> list[str]:
        """The texts of `N` rows with noise drawn from `seed`: the same seed gives the same texts."""
        generator = random.Random(seed)
        return [self._one(row.text, row.language, generator) for row in rows]

    def _one(self, text: str, language: str, generator: random.Random) -> str:
        swap, spell, case, strip = (generator.random() for _ in range(4))
        if swap < self.swapped_names:
            text = swap_communities(text, language, generator)
        if language == "ar" and spell < self.spelling:
            text = _misspell(text, generator)
        if language == "en" and case < self.lower_case + self.upper_case:
            text = text.lower() if case < self.lower_case else text.upper()
        if strip < self.no_punctuation:
            text = " ".join(_PUNCTUATION.sub(" ", text).split()) or text
        return text


def swap_communities(text: str, language: str, generator: random.Random) -> str:
    """The text with every community it names replaced by another, the same one in each of its forms ("Alawites", "Alawite").

    A text comes back as it is where two names stand side by side ("Sunni Muslims"), where a name is part of something else
    ("Muslim Brotherhood"), or where no other community is left that has the forms.
    """
    if language not in _NOT_A_COMMUNITY or _NOT_A_COMMUNITY[language].search(text):
        return text
    pattern, named, communities = _names(language)
    found = list(pattern.finditer(text))
    if any(text[a.end() : b.start()].strip() == "" for a, b in pairwise(found)):
        return text
    needed: dict[str, dict[str, str]] = {}
    for match in found:
        community, form = named[match["name"]]
        needed.setdefault(community, {})[form] = ""
    taken: set[str] = set()
    for community, words in needed.items():
        fitting = [
            other
            for other, forms in communities.items()
            if other != community and other not in taken and all(forms.get(form) for form in words)
        ]
        if not fitting:
            return text
        chosen = generator.choice(fitting)
        taken.add(chosen)
        for form in words:
            words[form] = generator.choice(communities[chosen][form])
    pieces, at = [], 0
    for match in found:
        community, form = named[match["name"]]
        pieces += [text[at : match.start("name")], needed[community][form]]
        at = match.end()
    swapped = "".join(pieces) + text[at:]
    if language == "ar":
        return swapped
    put = [word for words in needed.values() for word in words.values()]
    return re.sub(r"\b([Aa])n?(?= (?:" + _any(put) + r")\b)", _article, swapped)


def _article(match: re.Match[str]) -> str:
    following = match.string[match.end() + 1]
    return match[1] + ("n" if following in "AEIOU" else "")


def _any(words: Iterable[str]) -> str:
    return "|".join(map(re.escape, words)) or r"(?!)"


def _misspell(text: str, generator: random.Random) -> str:
    hamza, heh, yeh = (generator.random() < 0.6 for _ in range(3))
    if hamza:
        text = text.translate(_WITHOUT_HAMZA)
    if heh:
        text = _FINAL_HEH.sub("ه", text)
    return _FINAL_YEH.sub("ي", text) if yeh else text


@cache
def _names(language: str) -> tuple[re.Pattern[str], dict[str, tuple[str, str]], dict[str, dict[str, list[str]]]]:
    """A pattern whose group `name` is a community's name; community and form of each name; the words to put, by both."""
    listed = json.loads((_FOLDER / "communities.json").read_text(encoding="utf-8"))[language]
    named = {
        name: (community, form)
        for community, forms in listed.items()
        for form, words in forms.items()
        for name in words["find"]
    }
    communities = {community: {form: words["put"] for form, words in forms.items()} for community, forms in listed.items()}
    names = "|".join(sorted(map(re.escape, named), key=len, reverse=True))
    before = r"(?<!\w)[وف]?(?:[بك]?ال|لل)" if language == "ar" else r"(?<![\w-])"
    return re.compile(rf"{before}(?P<name>{names})(?![\w-])"), named, communities

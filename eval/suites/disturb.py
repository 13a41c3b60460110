"""Disturbances of a text's surface that leave its meaning alone, each a function of the text and a random generator."""

from __future__ import annotations

import random
import re
from collections.abc import Callable
from itertools import pairwise

Disturbance = Callable[[str, random.Random], str]

_MARKS = "\u064e\u064f\u0650\u0651\u0652"
_ARABIC = re.compile(r"[\u0621-\u064a]")
_JOINS_ON = "بتثجحخسشصضطظعغفقكلمنهيئ"  # letters that join the next one, after which a tatweel can stand
_HAMZA = str.maketrans({"أ": "ا", "إ": "ا", "آ": "ا", "ؤ": "و", "ئ": "ي", "ء": None})
_KEYBOARDS = {
    "en": ("qwertyuiop", "asdfghjkl", "zxcvbnm"),
    "ar": ("ضصثقفغعهخحجد", "شسيبلاتنمكط", "ئءؤرىةوزظ"),
}
_OCR = {
    "en": {"rn": "m", "m": "rn", "l": "1", "o": "0", "e": "c", "h": "b", "cl": "d", "S": "5", "i": "l"},
    "ar": {"ب": "ت", "ت": "ب", "ج": "ح", "خ": "ح", "ذ": "د", "ز": "ر", "ش": "س", "ض": "ص", "غ": "ع", "ق": "ف", "ن": "ب"},
}
_EMOJI = ("😢", "🙏", "‼️", "🚨", "💔", "👇", "🔴", "📢")
_WORD = re.compile(r"[^\W\d_]+")


def diacritics(text: str, generator: random.Random) -> str:
    """Vowel marks after half of the letters, as in a text made for reading aloud."""
    return "".join(c + generator.choice(_MARKS) if _ARABIC.match(c) and generator.random() < 0.5 else c for c in text)


def tatweel(text: str, generator: random.Random) -> str:
    """Letters drawn out, as in headlines and banners."""
    return re.sub(
        f"[{_JOINS_ON}](?=[\u0621-\u064a])", lambda m: m[0] + "ـ" * generator.randint(1, 3) * (generator.random() < 0.2), text
    )


def alef_variants(text: str, generator: random.Random) -> str:
    """Alef forms at the beginning of words mixed up."""
    return re.sub(r"(?<!\w)[اأإ]", lambda _m: generator.choice("اأإ"), text)


def missing_hamza(text: str, _generator: random.Random) -> str:
    """No hamza anywhere."""
    return text.translate(_HAMZA)


def final_ya(text: str, _generator: random.Random) -> str:
    """Final yeh without dots and alef maqsura with them, as Egyptian and Levantine keyboards have it."""
    return re.sub(r"[يى](?!\w)", lambda m: "ى" if m[0] == "ي" else "ي", text)


def teh_marbuta(text: str, _generator: random.Random) -> str:
    """Final teh marbuta written as heh."""
    return re.sub(r"ة(?!\w)", "ه", text)


def typos(text: str, generator: random.Random) -> str:
    """One slip in every eighth word of four letters or more: a letter dropped, doubled, swapped or a key beside it."""
    rows = _KEYBOARDS["ar" if _ARABIC.search(text) else "en"]
    beside = {key: other for row in rows for pair in pairwise(row) for key, other in (pair, pair[::-1])}

    def slip(match: re.Match[str]) -> str:
        word = match[0]
        if len(word) < 4 or generator.random() > 1 / 8:
            return word
        at = generator.randrange(1, len(word) - 1)
        changed = (
            word[at + 1] + word[at],
            word[at + 1],
            word[at] * 2 + word[at + 1],
            beside.get(word[at], word[at]) + word[at + 1],
        )
        return word[:at] + generator.choice(changed) + word[at + 2 :]

    return _WORD.sub(slip, text)


def ocr_noise(text: str, generator: random.Random) -> str:
    """Look-alike letters for one letter in forty, and now and then a space lost or a line broken inside a word."""
    confusions = _OCR["ar" if _ARABIC.search(text) else "en"]
    pattern = re.compile("|".join(sorted(map(re.escape, confusions), key=len, reverse=True)))
    text = pattern.sub(lambda m: confusions[m[0]] if generator.random() < 1 / 40 else m[0], text)
    text = re.sub(r" ", lambda _m: "" if generator.random() < 1 / 60 else " ", text)
    return re.sub(r"(?<=\w{3})(?=\w{3})", lambda _m: "-\n" if generator.random() < 1 / 120 else "", text)


def no_punctuation(text: str, _generator: random.Random) -> str:
    """All punctuation taken out."""
    return " ".join(re.sub(r"[^\w\s%]|_", " ", text).split())


def emoji(text: str, generator: random.Random) -> str:
    """A post's emoji at the beginning, between sentences and at the end."""
    text = re.sub(r"(?<=[.!؟?]) ", lambda _m: f" {generator.choice(_EMOJI)} ", text)
    return f"{generator.choice(_EMOJI)} {text} {generator.choice(_EMOJI) * 2}"


def hashtags(text: str, generator: random.Random) -> str:
    """Every fifth longer word a hashtag, sometimes joined with the next."""

    def tag(match: re.Match[str]) -> str:
        if len(match[0].split()[0]) < 5 or generator.random() > 0.2:
            return match[0]
        return "#" + "_".join(match[0].split())

    return re.sub(r"[^\W\d_]+(?: [^\W\d_]+)?", tag, text)


def quoted_headline(text: str, _generator: random.Random) -> str:
    """The text as a headline in quotation marks, its full stop gone."""
    return f"“{text.rstrip('.。 ')}”"


def all_caps(text: str, _generator: random.Random) -> str:
    """Capitals only."""
    return text.upper()


def lower_case(text: str, _generator: random.Random) -> str:
    """No capitals."""
    return text.lower()


_BOTH: dict[str, Disturbance] = {
    "typos": typos,
    "ocr_noise": ocr_noise,
    "no_punctuation": no_punctuation,
    "emoji": emoji,
    "hashtags": hashtags,
    "quoted_headline": quoted_headline,
}
DISTURBANCES: dict[str, dict[str, Disturbance]] = {
    "ar": {
        "diacritics": diacritics,
        "tatweel": tatweel,
        "alef_variants": alef_variants,
        "missing_hamza": missing_hamza,
        "final_ya": final_ya,
        "teh_marbuta": teh_marbuta,
        **_BOTH,
    },
    "en": {"all_caps": all_caps, "lower_case": lower_case, **_BOTH},
}

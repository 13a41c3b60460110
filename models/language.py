"""Which language a text is in, as far as Rasid needs to know: Arabic, English, or another.

The script decides first: a text mostly in Arabic letters is Arabic unless the language identifier hears Persian, Urdu
or another neighbour *and* the text has letters that Arabic does not; a text mostly in Latin letters is English unless the
identifier is sure of another language. Dialects, names and mixed text would mislead a plain identifier, so it may only
overrule the script with evidence. Source of the identifier: py3langid (Lui and Baldwin's langid.py).
"""

from __future__ import annotations

import unicodedata
from dataclasses import dataclass
from functools import cache, lru_cache
from typing import Literal

from py3langid.langid import MODEL_FILE, LanguageIdentifier

Language = Literal["ar", "en", "und"]

NO_LETTERS = "no_letters"
UNSUPPORTED_LANGUAGE = "unsupported_language"
MIXED_LANGUAGE = "mixed_language"

# Letters of Persian, Urdu, Kurdish, Pashto, Uyghur and Sindhi that no Arabic word has (Arabic writers do use pe, che,
# gaf and veh in foreign names, so those alone prove nothing).
_FOREIGN_ARABIC_LETTERS = frozenset("یکژټډړږښڼېۍګہےںٹڈھۃەێۆۇڵڕۋېڭ")
_MIXED_SHARE = 0.3
_IDENTIFIER_MIN_LETTERS = 24
_IDENTIFIER_CHARS = 400


@dataclass(frozen=True, slots=True)
class DetectedLanguage:
    """The language a text is treated as (`und` where it is neither Arabic nor English) and flags for the answer."""

    language: Language
    flags: tuple[str, ...] = ()


@lru_cache(maxsize=65_536)
def _script(char: str) -> str:
    if not char.isalpha():
        return ""
    name = unicodedata.name(char, "OTHER")
    return "arabic" if name.startswith("ARABIC") else "latin" if name.startswith("LATIN") else "other"


@cache
def _identifier() -> LanguageIdentifier:
    return LanguageIdentifier.from_model_file(MODEL_FILE, norm_probs=True)


def detect_language(text: str) -> DetectedLanguage:
    """Say which language a text is in. Any `str` is accepted; none raises.

    The flags tell what an analyst should know: `no_letters` (numbers or emoji only), `unsupported_language` (neither
    Arabic nor English) and `mixed_language` (both, each with at least three tenths of the letters).
    """
    counts = {"arabic": 0, "latin": 0, "other": 0}
    foreign = 0
    for char in text:
        if script := _script(char):
            counts[script] += 1
            foreign += char in _FOREIGN_ARABIC_LETTERS
    letters = sum(counts.values())
    if letters == 0:
        return DetectedLanguage("und", (NO_LETTERS,))
    arabic, latin = counts["arabic"] / letters, counts["latin"] / letters
    if 1 - arabic - latin > max(arabic, latin):
        return DetectedLanguage("und", (UNSUPPORTED_LANGUAGE,))
    mixed = (MIXED_LANGUAGE,) if min(arabic, latin) >= _MIXED_SHARE else ()
    if arabic >= latin:
        # Arabic typed on a Persian keyboard has some of these letters too, but the identifier hears Arabic.
        if foreign >= 2 and foreign >= 0.02 * counts["arabic"] and _identify(text, "arabic") != "ar":
            return DetectedLanguage("und", (UNSUPPORTED_LANGUAGE,))
        return DetectedLanguage("ar", mixed)
    if not mixed and counts["latin"] >= _IDENTIFIER_MIN_LETTERS and _identify(text, "latin") != "en":
        return DetectedLanguage("und", (UNSUPPORTED_LANGUAGE,))
    return DetectedLanguage("en", mixed)


def _identify(text: str, script: str) -> str:
    """What the identifier hears; the script's own language unless it is sure of another."""
    own = "ar" if script == "arabic" else "en"
    heard, confidence = _identifier().classify(text[:_IDENTIFIER_CHARS].lower())
    sure = 0.5 if script == "arabic" else 0.9
    return heard if float(confidence) >= sure else own

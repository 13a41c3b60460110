"""What the contenders classify: texts of set lengths, made from real sentences.

A text that has the wanted length is taken as it is; a shorter one is joined with others of its language, and what is too long
is cut after a word. Lengths are tokens of the bundle's tokenizer, its opening and closing token counted, and they vary within a
cell as they do in life: texts of one length would flatter an engine that batches equal lengths.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from eval.suites.pairs import SIDES, read_pairs
from models.bundle import Bundle
from models.errors import InputError
from models.example import read_examples
from models.language import detect_language
from models.text import prepare_text


@dataclass(frozen=True, slots=True)
class Length:
    """A range of lengths in tokens, both ends included, and how many texts of it a measurement has."""

    name: str
    low: int
    high: int
    texts: int


@dataclass(frozen=True, slots=True)
class Plan:
    """What a run measures: every length in every batch size, `rounds` times; `starts` is how often a start-up is timed."""

    lengths: tuple[Length, ...]
    batches: tuple[int, ...]
    rounds: int
    starts: int


FULL = Plan(
    lengths=(Length("10", 8, 12, 96), Length("20-60", 20, 60, 64), Length("100", 85, 115, 64), Length("250", 232, 256, 32)),
    batches=(1, 8, 32),
    rounds=5,
    starts=3,
)
QUICK = Plan(
    lengths=(Length("10", 8, 12, 64), Length("20-60", 20, 60, 32), Length("100", 85, 115, 32)),
    batches=(1, 32),
    rounds=3,
    starts=1,
)


@dataclass(frozen=True, slots=True)
class Source:
    """A text to make others from, and its language."""

    text: str
    language: str


@dataclass(frozen=True, slots=True)
class SizedText:
    """A text and its length in tokens."""

    text: str
    tokens: int


def read_sources(bundle: Bundle, data: Path | None = None) -> list[Source]:
    """The texts of the project's minimal pairs, or those of a labelled file (its labels are not used).

    Raises InputError where none of them has anything visible.
    """
    if data is None:
        found = [Source(pair[side]["text"], pair["lang"]) for pair in read_pairs() for side in SIDES]
    else:
        found = [
            Source(example.text, example.lang or detect_language(example.text).language)
            for example in read_examples(data, bundle.taxonomy)
        ]
    visible = [source for source in found if prepare_text(source.text).text]
    if not visible:
        raise InputError(f"expected texts with visible characters in {data}, found none among {len(found)}")
    return visible


def token_counter(bundle: Bundle) -> Callable[[str], int]:
    """Counts a text's tokens as the classifier will."""
    tokenizer = bundle.tokenizer()
    return lambda text: len(tokenizer.encode(prepare_text(text).text).ids)


def make_texts(
    sources: Sequence[Source], length: Length, count: int, *, tokens_of: Callable[[str], int], seed: int = 1
) -> list[SizedText]:
    """`count` texts of a length, languages as they are mixed in the sources; sources are used again where there are few.

    A text may fall short of the length by the tokens of its last word.
    """
    generator = random.Random(f"{seed} {length.name}")
    order = generator.sample(sources, len(sources))
    by_language: dict[str, list[str]] = {}
    for source in order:
        by_language.setdefault(source.language, []).append(source.text)
    places = dict.fromkeys(by_language, 0)
    texts = []
    for index in range(count):
        pool = by_language[order[index % len(order)].language]
        language = order[index % len(order)].language

        def following(pool: list[str] = pool, language: str = language) -> str:
            places[language] += 1
            return pool[(places[language] - 1) % len(pool)]

        texts.append(_fit(following, length, generator.randint(length.low, length.high), tokens_of))
    return texts


def _fit(following: Callable[[], str], length: Length, target: int, tokens_of: Callable[[str], int]) -> SizedText:
    text = following()
    tokens = tokens_of(text)
    if length.low <= tokens <= length.high:
        return SizedText(text, tokens)
    while tokens < target:
        text = f"{text} {following()}"
        tokens = tokens_of(text)
    words = text.split()
    low, high = 1, len(words)
    while low < high:  # the largest number of words that does not go beyond the target
        middle = (low + high + 1) // 2
        low, high = (middle, high) if tokens_of(" ".join(words[:middle])) <= target else (low, middle - 1)
    cut = " ".join(words[:low])
    return SizedText(cut, tokens_of(cut))

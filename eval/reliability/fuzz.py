"""Any string at all: text preparation, language and passages, checked for what must always hold.

Texts are mutations of real ones in both scripts and strings of random code points from all of Unicode, lone surrogates
included. What must hold: nothing raises; preparation changes nothing the second time; offsets are ordered and inside the text;
every letter and digit is in exactly one passage.
"""

from __future__ import annotations

import multiprocessing
import os
import random
import time
from collections.abc import Callable, Sequence

from eval.reliability.finding import Finding
from models.language import detect_language
from models.passages import split_passages
from models.text import prepare_text, replace_surrogates

_RANGES = (
    (0x20, 0x7E),
    (0x600, 0x6FF),
    (0x750, 0x77F),
    (0xFB50, 0xFDFF),
    (0xFE70, 0xFEFF),
    (0xA0, 0x24F),
    (0x300, 0x36F),
    (0x2000, 0x206F),
    (0x1F300, 0x1FAFF),
    (0xD800, 0xDFFF),
    (0x0, 0x1F),
    (0x0, 0x10FFFF),
)
_PASSAGES_EVERY = 4  # the segmenter is slower than the rest together
_CHUNK = 2_000


def fuzz(
    seeds: Sequence[str],
    *,
    minutes: float,
    inputs: int,
    processes: int,
    progress: Callable[[int], object] = lambda _done: None,
) -> Finding:
    """Go on until both the minutes and the inputs are reached. The seeds are texts to mutate."""
    until = time.monotonic() + 60 * minutes
    began = time.monotonic()
    done, failures = 0, 0
    kinds: dict[str, int] = {}
    context = multiprocessing.get_context("spawn")
    with context.Pool(processes, initializer=_prepare, initargs=(list(seeds),)) as pool:
        base = int.from_bytes(os.urandom(6), "little")
        number = 0
        while done < inputs or time.monotonic() < until:
            batch = [base + number + step for step in range(processes * 4)]
            number += len(batch)
            for found in pool.imap_unordered(_chunk, batch):
                done += _CHUNK
                for kind in found:
                    failures += 1
                    kinds[kind] = kinds.get(kind, 0) + 1
            progress(done)
    figures: dict[str, float] = {"inputs": done, "minutes": (time.monotonic() - began) / 60, "failures": failures, **kinds}
    return Finding("fuzzed texts", figures, {"nothing raised and everything held": failures == 0})


def mutate(seeds: Sequence[str], generator: random.Random) -> str:
    """One input: random code points, or a seed with pieces changed, repeated, dropped or taken from another."""
    if generator.random() < 0.3:
        low, high = generator.choice(_RANGES)
        return "".join(chr(generator.randint(low, high)) for _ in range(generator.randint(0, 40)))
    text = list(generator.choice(seeds))
    for _ in range(generator.randint(1, 6)):
        at = generator.randint(0, len(text))
        kind = generator.randrange(5)
        if kind == 0:
            low, high = generator.choice(_RANGES)
            text[at:at] = [chr(generator.randint(low, high)) for _ in range(generator.randint(1, 4))]
        elif kind == 1:
            del text[at : at + generator.randint(1, 8)]
        elif kind == 2:
            text[at:at] = text[at : at + generator.randint(1, 4)] * generator.randint(1, 8)
        elif kind == 3:
            other = generator.choice(seeds)
            start = generator.randint(0, len(other))
            text[at:at] = list(other[start : start + generator.randint(1, 30)])
        else:
            text[at : at + 6] = [char.upper() if generator.random() < 0.5 else char + "\u0301" for char in text[at : at + 6]]
    return "".join(text)


def check(text: str, *, passages: bool) -> None:
    """Raise AssertionError where something that must hold does not."""
    prepared = prepare_text(text)
    _hold(len(prepared.text) == len(prepared.starts) == len(prepared.ends), "as many offsets as characters")
    _hold(prepare_text(prepared.text).text == prepared.text, "preparing twice changes nothing")
    last = 0
    for start, end in zip(prepared.starts, prepared.ends, strict=True):
        _hold(last <= start < end <= len(text), "offsets are ordered and inside the text")
        last = start
    prepared.text.encode("utf-8")
    language = detect_language(text).language
    if passages:
        mended = replace_surrogates(text)
        covered = 0
        for passage in split_passages(mended, language):
            _hold(covered <= passage.start < passage.end <= len(mended), "passages are ordered and inside the text")
            _hold(not any(map(str.isalnum, mended[covered : passage.start])), "no letter between passages")
            covered = passage.end
        _hold(not any(map(str.isalnum, mended[covered:])), "no letter after the last passage")


def _hold(condition: bool, what: str) -> None:
    if not condition:
        raise AssertionError(what)


_SEEDS: list[str] = []


def _prepare(seeds: list[str]) -> None:
    _SEEDS[:] = seeds


def _chunk(seed: int) -> list[str]:
    """The failures among `_CHUNK` inputs, by kind; each is reproduced by its seed and number."""
    generator = random.Random(seed)
    found = []
    for number in range(_CHUNK):
        text = mutate(_SEEDS, generator)
        try:
            check(text, passages=number % _PASSAGES_EVERY == 0)
        except Exception as error:  # whatever it is, it is what is looked for
            found.append(f"{type(error).__name__}: {error} (seed {seed}, input {number})"[:200])
    return found

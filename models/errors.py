"""Everything Rasid raises on purpose, in one tree.

RasidError
├── InputError                 what came in cannot be used; the caller can mend it
│   ├── EmptyTextError
│   ├── TextTooLongError
│   └── ExampleFormatError     a labelled file breaks the format: names file and line
├── TaxonomyError              a taxonomy contradicts itself or another one
├── BundleError                a bundle cannot be trusted
│   ├── BundleNotFoundError
│   ├── BundleCorruptError     a file is missing, altered or not of this format
│   └── BundleUnsealedError    a candidate that was never released
└── EngineError                the inference session failed

Messages say what was expected, what came and what to do. They never contain the text of a user.
"""

from __future__ import annotations

from collections.abc import Iterable

_MOST_WORDS = 3


class RasidError(Exception):
    """Base of all errors that Rasid raises on purpose. `code` is stable and machine-readable."""

    code = "rasid_error"


class InputError(RasidError):
    """What came in cannot be used; the caller can mend it."""

    code = "invalid_input"


class EmptyTextError(InputError):
    """A text has no characters left after preparation."""

    code = "empty_text"


class TextTooLongError(InputError):
    """A text is longer than the limit."""

    code = "text_too_long"


class ExampleFormatError(InputError):
    """A file of labelled examples breaks the format."""

    code = "invalid_examples"


class TaxonomyError(RasidError):
    """A taxonomy contradicts itself, or two things that must share one do not."""

    code = "taxonomy_error"


class BundleError(RasidError):
    """A bundle cannot be trusted."""

    code = "bundle_error"


class BundleNotFoundError(BundleError):
    """There is no bundle where one was expected."""

    code = "bundle_not_found"


class BundleCorruptError(BundleError):
    """A file of the bundle is missing, altered or not of this format."""

    code = "bundle_corrupt"


class BundleUnsealedError(BundleError):
    """The bundle is a candidate that was never released."""

    code = "bundle_unsealed"


class EngineError(RasidError):
    """The inference session failed."""

    code = "engine_error"


def told_failure(error: RasidError | OSError) -> tuple[str, int]:
    """What a command says of an expected failure in one line, and its exit code: 2 where the input cannot be used, else 1."""
    if isinstance(error, RasidError):
        return str(error), 2 if isinstance(error, InputError) else 1
    if error.strerror:
        return f"{error.strerror}: {error.filename or 'the machine'}", 1
    return " ".join(str(error).split()) or type(error).__name__, 1


def told_value(value: str) -> str:
    """A value as a message may tell it: itself where it is as short as a name, else only its length, for it may be a text."""
    return repr(value) if _is_short(value, 40) else f"a value of {len(value)} characters"


def told_names(names: Iterable[object]) -> str:
    """Names of columns or fields as a message may tell them: without a header they are texts, so long ones are only counted."""
    given = [str(name) for name in names]
    short = [name for name in given if _is_short(name, 30)]
    if not given:
        return "none"
    told = [", ".join(short)] if short else []
    if len(short) < len(given):
        told.append(f"{len(given) - len(short)} that look like no names (is there a header?)")
    return " and ".join(told)


def _is_short(value: str, most_characters: int) -> bool:
    return len(value) <= most_characters and 0 < len(value.split()) <= _MOST_WORDS

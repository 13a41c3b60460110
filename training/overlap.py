"""What evaluation files hold must not come back in training under another name: newswire repeats itself."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from models.errors import ExampleFormatError
from models.example import labelled_files, read_examples
from models.jsonl import read_rows
from models.taxonomy import Taxonomy
from models.text import prepare_text

SHARED_WORDS = 10  # in a row: what two passages share by copying, and hardly ever by chance
_WORD = re.compile(r"\w+")


@dataclass(frozen=True, slots=True)
class EvaluationTexts:
    """The prepared texts of evaluation files, the documents they are of, and their runs of SHARED_WORDS words, as hashes."""

    texts: frozenset[str]
    documents: frozenset[str]
    runs: frozenset[int]

    def overlap(self, text: str, document: str) -> bool:
        """Whether a prepared text is one of these, shares a run of words with one, or is of one of their documents."""
        return text in self.texts or document in self.documents or not self.runs.isdisjoint(_runs(text))


def read_evaluation_texts(paths: Sequence[Path], taxonomy: Taxonomy) -> EvaluationTexts:
    """Read evaluation files: labelled JSONL or CSV, or articles as JSONL with `id` and `sentences`; folders stand for theirs.

    Raises ExampleFormatError where a file breaks its format.
    """
    texts: set[str] = set()
    documents: set[str] = set()
    for path in labelled_files(paths):
        for text, document in _articles(path) if _has_articles(path) else _passages(path, taxonomy):
            texts.add(prepare_text(text).text)
            documents.update([document] if document else [])
    return EvaluationTexts(frozenset(texts), frozenset(documents), frozenset(run for text in texts for run in _runs(text)))


def _passages(path: Path, taxonomy: Taxonomy) -> list[tuple[str, str]]:
    return [(one.text, one.document if one.document != one.id else "") for one in read_examples(path, taxonomy)]


def _articles(path: Path) -> list[tuple[str, str]]:
    found = []
    for line, row in read_rows(path):
        try:
            found.append((" ".join(sentence["text"] for sentence in row["sentences"]), str(row["id"])))
        except (KeyError, TypeError):
            raise ExampleFormatError(f"{path}:{line}: expected an article with id and sentences, each with text") from None
    return found


def _has_articles(path: Path) -> bool:
    if path.suffix.lower() == ".csv":
        return False
    return any("sentences" in row and "text" not in row for _line, row in islice(read_rows(path), 1))


def _runs(text: str) -> set[int]:
    words = _WORD.findall(text.lower())
    return {hash(tuple(words[at : at + SHARED_WORDS])) for at in range(len(words) - SHARED_WORDS + 1)}

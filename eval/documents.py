"""Articles: are their labels right, are the sentences that carry them found, and do the labels rest on those sentences?

An article is a JSON line `{"id", "lang", "source", "title", "sentences": [{"text", "labels", "unsure"}]}`; it carries a label
where one of its sentences does. The classifier gets the sentences as one text, as a user would send them, and cuts it by
itself; what it points at is laid over the sentences again.

Faithfulness is measured by deletion (DeYoung et al. 2020, "ERASER": comprehensiveness): without its evidence the probability
of a label must fall, and further than without as many other sentences. Where an article has fewer others, there is nothing to
compare with.
"""

from __future__ import annotations

import json
import random
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from eval.metrics import BoolArray, bootstrap_interval, macro_f1
from eval.scoring import Progress, Scored, no_progress, score, thresholds_of
from models.classifier import Classifier, TextItem
from models.errors import ExampleFormatError, TaxonomyError
from models.example import LabelledExample
from models.prediction import Prediction
from models.taxonomy import Taxonomy

CONTROL_DRAWS = 8
_MEANT = 0.5  # a sentence is pointed at where the evidence covers this much of it


@dataclass(frozen=True, slots=True)
class Article:
    """A labelled article: its sentences in order, each an example with the id `<article>#<place>`."""

    id: str
    lang: str
    source: str
    sentences: tuple[LabelledExample, ...]

    @property
    def labels(self) -> frozenset[str]:
        """The labels that one of the sentences carries."""
        return frozenset().union(*(sentence.labels for sentence in self.sentences))

    def text(self, without: frozenset[int] = frozenset()) -> str:
        """The sentences as one text, those at the given places left out."""
        return " ".join(s.text.strip() for place, s in enumerate(self.sentences) if place not in without)

    def spans(self) -> list[tuple[int, int]]:
        """Start and end of each sentence in the whole text."""
        found, at = [], 0
        for sentence in self.sentences:
            length = len(sentence.text.strip())
            found.append((at, at + length))
            at += length + 1
        return found


@dataclass(frozen=True, slots=True)
class Figure:
    """An F1 (or another share) with its 95 % bootstrap interval over articles; `support` positives stand behind it."""

    value: float
    interval: tuple[float, float]
    support: int


@dataclass(frozen=True, slots=True)
class Faithfulness:
    """How far a label's probability falls without its evidence, and without as many other sentences, on average.

    `evidence_more` is the share of the `cases` (an article and a label decided yes) in which the evidence costs more.
    Not compared but counted apart: `emptied` cases, in which the article has fewer other sentences than the evidence, and
    `unplaced` ones, whose evidence covers no sentence for the most part.
    """

    cases: int
    emptied: int
    unplaced: int
    drop_without_evidence: float
    drop_without_others: float
    evidence_more: float
    label_lost: float


@dataclass(frozen=True, slots=True)
class ScoredArticles:
    """`A` labelled articles and what a model says of them: whole, in evidence, and of their `sentences` judged alone.

    `wanted` and `decided` `[A, L]` are the labels of the articles; `carried` and `pointed` hold for each article which of its
    `S` sentences carry a label and which the evidence covers for the most part, `[S, L]`.
    """

    articles: tuple[Article, ...]
    answers: tuple[Prediction, ...]
    wanted: BoolArray
    decided: BoolArray
    carried: tuple[BoolArray, ...]
    pointed: tuple[BoolArray, ...]
    sentences: Scored

    @property
    def article_of_sentence(self) -> NDArray[np.str_]:
        """The article's id for each of the scored `sentences`; an article's id may hold a `#` itself."""
        return np.array([example.id.rpartition("#")[0] for example in self.sentences.examples], dtype=np.str_)


@dataclass(frozen=True, slots=True)
class DocumentReport:
    """All figures on a file of articles. Keys of the tables: labels and `macro`."""

    data: str
    articles: int
    sentences: int
    document_f1: dict[str, Figure]
    sentence_f1: dict[str, Figure]
    evidence_f1: dict[str, Figure]
    by_language: dict[str, dict[str, float]]
    faithfulness: Faithfulness


def read_articles(path: Path, taxonomy: Taxonomy) -> list[Article]:
    """Read labelled articles from a JSONL file.

    Raises ExampleFormatError naming file and line where the file is missing, empty, breaks the format, names a label that
    the taxonomy does not have or uses an id twice.
    """
    if not path.is_file():
        raise ExampleFormatError(f"{path}: expected a file of labelled articles, found none")
    found: list[Article] = []
    lines_by_id: dict[str, int] = {}
    for number, line in enumerate(path.read_bytes().splitlines(), 1):  # of bytes, for text ends a line at U+2028 too
        if not line.strip():
            continue
        article = _article(line, f"{path}:{number}", taxonomy)
        earlier = lines_by_id.setdefault(article.id, number)
        if earlier != number:
            raise ExampleFormatError(f"{path}:{number}: id {article.id!r} was used in line {earlier} already")
        found.append(article)
    if not found:
        raise ExampleFormatError(f"{path}: expected at least one labelled article, the file has none")
    return found


def _article(line: bytes, where: str, taxonomy: Taxonomy) -> Article:
    try:
        row: dict[str, Any] = json.loads(line.decode("utf-8-sig"))
        sentences = row["sentences"]
        identity, lang = str(row["id"]), str(row.get("lang") or "")
        examples = tuple(
            LabelledExample(
                id=f"{identity}#{place}",
                text=sentence["text"],
                labels=frozenset(sentence["labels"]),
                lang=lang,
                source=str(row.get("source") or ""),
                unsure=bool(sentence.get("unsure")),
            )
            for place, sentence in enumerate(sentences)
        )
        blank = not examples or not all(example.text.strip() for example in examples)
    except UnicodeDecodeError as error:
        raise ExampleFormatError(f"{where}: expected UTF-8, byte {error.start} of the line is not; convert the file") from None
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ExampleFormatError(
            f"{where}: expected an article with id and sentences, each with text and labels; {type(error).__name__}: {error}; "
            "labelled passages are given with --data"
        ) from None
    if blank:
        raise ExampleFormatError(f"{where}: expected sentences that are not empty")
    try:
        taxonomy.check_labels(frozenset().union(*(example.labels for example in examples)))
    except TaxonomyError as error:
        raise ExampleFormatError(f"{where}: {error}") from None
    return Article(identity, lang, str(row.get("source") or ""), examples)


def evaluate_documents(
    classifier: Classifier, data: Path, *, seed: int = 1, progress: Progress = no_progress
) -> DocumentReport:
    """Score articles whole and sentence by sentence. Raises ExampleFormatError where the file breaks the format."""
    scored = score_articles(classifier, read_articles(data, classifier.bundle.taxonomy))
    labels, articles, sentences = classifier.labels, scored.articles, scored.sentences
    wanted, decided, carried, pointed = scored.wanted, scored.decided, scored.carried, scored.pointed
    of_sentence = scored.article_of_sentence
    rows_of = [np.flatnonzero(of_sentence == article.id) for article in articles]
    faithfulness = _faithfulness(classifier, scored, seed=seed, progress=progress)

    def over_articles(targets: Sequence[BoolArray], outcomes: Sequence[BoolArray]) -> dict[str, Figure]:
        return _figures(targets, outcomes, labels, seed)

    languages = np.array([article.lang or answer.language for article, answer in zip(articles, scored.answers, strict=True)])
    by_language = {}
    for language in sorted(set(languages.tolist())):
        inside = np.flatnonzero(languages == language)
        rows = np.concatenate([rows_of[index] for index in inside])
        by_language[language] = {
            "articles": float(len(inside)),
            "document_f1": _macro_of_present(wanted[inside], decided[inside]),
            "sentence_f1": _macro_of_present(sentences.wanted[rows], sentences.decided[rows]),
            "evidence_f1": _macro_of_present(
                np.concatenate([carried[index] for index in inside]), np.concatenate([pointed[index] for index in inside])
            ),
        }
    return DocumentReport(
        data=data.name,
        articles=len(articles),
        sentences=len(sentences),
        document_f1=over_articles([row[None] for row in wanted], [row[None] for row in decided]),
        sentence_f1=over_articles([sentences.wanted[rows] for rows in rows_of], [sentences.decided[rows] for rows in rows_of]),
        evidence_f1=over_articles(carried, pointed),
        by_language=by_language,
        faithfulness=faithfulness,
    )


def score_articles(classifier: Classifier, articles: Sequence[Article], *, progress: Progress = no_progress) -> ScoredArticles:
    """Judge articles whole, with their evidence, and each of their sentences alone."""
    labels = classifier.labels
    sentences = score(classifier, [s for article in articles for s in article.sentences], progress=progress)
    answers = []
    for article in articles:
        answers.append(_answer(classifier, article.id, article.text()))
        progress(1)
    probabilities = np.array([[answer.labels[label].probability for label in labels] for answer in answers])
    return ScoredArticles(
        articles=tuple(articles),
        answers=tuple(answers),
        wanted=np.array([[label in article.labels for label in labels] for article in articles]),
        decided=probabilities >= thresholds_of(classifier, [answer.language for answer in answers], "document"),
        carried=tuple(_carried(article, labels) for article in articles),
        pointed=tuple(_pointed(article, answer, labels) for article, answer in zip(articles, answers, strict=True)),
        sentences=sentences,
    )


def _answer(classifier: Classifier, identity: str, text: str) -> Prediction:
    [answer] = classifier.classify([TextItem(identity, text)], granularity="document", evidence=True)
    if not isinstance(answer, Prediction):
        raise ExampleFormatError(f"article {identity!r}: {answer.error.detail}")
    return answer


def _carried(article: Article, labels: Sequence[str]) -> BoolArray:
    return np.array([[label in sentence.labels for label in labels] for sentence in article.sentences])


def _pointed(article: Article, answer: Prediction, labels: Sequence[str]) -> BoolArray:
    """Which sentences `[S]` the evidence of each label `[L]` covers for the most part."""
    covered = np.zeros((len(article.sentences), len(labels)))
    for place, (start, end) in enumerate(article.spans()):
        for evidence in answer.evidence:
            overlap = max(0, min(end, evidence.end) - max(start, evidence.start))
            covered[place, labels.index(evidence.label)] += overlap / (end - start)
    return covered >= _MEANT


def _figures(wanted: Sequence[BoolArray], decided: Sequence[BoolArray], labels: Sequence[str], seed: int) -> dict[str, Figure]:
    """F1 by label and their mean over blocks of rows, one block an article; articles are resampled, not rows."""
    hits = np.array([(w & d).sum(axis=0) for w, d in zip(wanted, decided, strict=True)])
    totals = np.array([w.sum(axis=0) + d.sum(axis=0) for w, d in zip(wanted, decided, strict=True)])
    support = np.array([w.sum(axis=0) for w in wanted]).sum(axis=0)
    present = support > 0

    def f1(blocks: Any) -> Any:
        by_label = 2 * hits[blocks].sum(axis=0) / np.maximum(totals[blocks].sum(axis=0), 1)
        return np.append(by_label, by_label[present].mean() if present.any() else 0.0)

    low, high = bootstrap_interval(f1, len(wanted), seed=seed)
    values = f1(np.arange(len(wanted)))
    names = (*labels, "macro")
    supports = (*support, support.sum())
    return {name: Figure(float(values[i]), (float(low[i]), float(high[i])), int(supports[i])) for i, name in enumerate(names)}


def _macro_of_present(wanted: BoolArray, decided: BoolArray) -> float:
    """Macro F1 over the labels that occur."""
    present = wanted.any(axis=0)
    return macro_f1(wanted[:, present], decided[:, present]) if present.any() else 0.0


def _faithfulness(classifier: Classifier, scored: ScoredArticles, *, seed: int, progress: Progress) -> Faithfulness:
    generator = random.Random(seed)
    with_evidence, with_others, lost, emptied, unplaced = [], [], [], 0, 0
    for article, answer, yes, pointed in zip(scored.articles, scored.answers, scored.decided, scored.pointed, strict=True):
        for column in np.flatnonzero(yes):
            label = classifier.labels[column]
            evidence = frozenset(np.flatnonzero(pointed[:, column]).tolist())
            others = [place for place in range(len(article.sentences)) if place not in evidence]
            if not evidence:
                unplaced += 1
                continue
            if len(others) < len(evidence):
                emptied += 1
                continue
            removed = [evidence, *(frozenset(generator.sample(others, len(evidence))) for _ in range(CONTROL_DRAWS))]
            before = answer.labels[label].probability
            after = [_answer(classifier, article.id, article.text(gone)).labels[label] for gone in removed]
            with_evidence.append(before - after[0].probability)
            with_others.append(before - float(np.mean([entry.probability for entry in after[1:]])))
            lost.append(after[0].decision != "yes")
        progress(1)
    if not with_evidence:
        return Faithfulness(0, emptied, unplaced, 0.0, 0.0, 0.0, 0.0)
    return Faithfulness(
        cases=len(with_evidence),
        emptied=emptied,
        unplaced=unplaced,
        drop_without_evidence=float(np.mean(with_evidence)),
        drop_without_others=float(np.mean(with_others)),
        evidence_more=float(np.mean(np.array(with_evidence) > np.array(with_others))),
        label_lost=float(np.mean(lost)),
    )

"""The gate: may a candidate take the place of the released bundle?

Both are measured on the same labelled texts, articles and suites in one run. A check fails where the candidate is worse by
more than the margin and the loss is beyond chance. There are two kinds:

- headline: each label, each language, each suite, the decisions outside the review band; of articles the labels of the whole,
  the evidence, and the sentences judged alone. Chance: one-sided 5 %.
- detail: each label in each language and in articles, each cell of a suite. Many looks find a loss by chance alone, so chance
  is 5 % for all of them together (Bonferroni).

Chance is found by a paired bootstrap. What depends on each other is drawn together: texts of one source document, sentences of
one article, items of a suite that were made from one text.

A bundle without a comparable predecessor (`first`) must beat, on every label, the better of the two constant answers on the
labelled texts; articles and suites are not measured.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from eval.compare import check_comparable, f1_differences
from eval.documents import Article, ScoredArticles, read_articles, score_articles
from eval.metrics import BoolArray, FloatArray, bootstrap_samples, group_sums, macro_f1, mean_at, precision_recall_f1
from eval.report import rounded_numbers
from eval.run import SUITES, Stage, silent, slice_masks
from eval.scoring import Scored, score
from eval.suites import SuiteResult, check_taxonomy
from models.classifier import Classifier
from models.errors import InputError
from models.example import LabelledExample, digest_examples, read_examples

MARGIN = 0.02
CHANCE = 0.05
MIN_SUPPORT = 10  # independent positives a label needs in a slice to be judged there
_SAMPLES = 4_000

Kind = Literal["headline", "detail"]
Verdict = Literal["passed", "worse", "too few"]


@dataclass(frozen=True, slots=True)
class Check:
    """One comparison: figures of both models (higher is better), and how probable such a loss is if there is none.

    `items` counts what is independent behind the figures: the source documents or articles with a label, the texts that a
    suite's items were made from.
    """

    kind: Kind
    name: str
    items: int
    released: float
    candidate: float
    chance: float
    verdict: Verdict = "passed"

    @property
    def loss(self) -> float:
        """By how much the candidate is worse; negative where it is better."""
        return self.released - self.candidate


@dataclass(frozen=True, slots=True)
class GateResult:
    """What `gate.json` holds. Hashes are model hashes; `against` is None for a first bundle.

    `documents` and its digest are None and `suites` is false where no check used them.
    """

    candidate: str
    against: str | None
    data: str
    data_digest: str
    documents: str | None
    documents_digest: str | None
    margin: float
    suites: bool
    checks: tuple[Check, ...]

    @property
    def passed(self) -> bool:
        """Whether no check failed and at least one was judged."""
        verdicts = {check.verdict for check in self.checks}
        return "worse" not in verdicts and "passed" in verdicts

    def as_json(self) -> dict[str, Any]:
        """The content of `gate.json`."""
        content: dict[str, Any] = rounded_numbers({**asdict(self), "passed": self.passed})
        return content


def gate(
    candidate: Classifier,
    released: Classifier | None,
    data: Path,
    *,
    documents: Path | None = None,
    suites: bool = True,
    margin: float = MARGIN,
    stage: Stage = silent,
) -> GateResult:
    """Judge a candidate against the released bundle, or as a first one (`released` None) on the labelled texts alone.

    Raises InputError where the two are not of one taxonomy or the file cannot judge them, ExampleFormatError where a file
    breaks the format.
    """
    if released is None:
        documents, suites = None, False
    else:
        check_comparable(candidate.bundle, released.bundle)
    if suites:
        check_taxonomy(candidate.bundle.taxonomy)
    examples = read_examples(data, candidate.bundle.taxonomy)
    if not any(example.labels for example in examples):
        raise InputError(f"{data}: none of the {len(examples)} texts carries a label; a gate needs labelled texts")
    articles = read_articles(documents, candidate.bundle.taxonomy) if documents else []
    new = _measure("candidate", candidate, examples, articles, suites, stage)
    if released is None:
        checks = list(_first_checks(new.texts, margin))
    else:
        old = _measure("released", released, examples, articles, suites, stage)
        checks = [*_text_checks(old.texts, new.texts), *_suite_checks(old.suites, new.suites)]
        if old.articles and new.articles:
            checks.extend(_article_checks(old.articles, new.articles))
        checks = judge(checks, margin)
    return GateResult(
        candidate=candidate.bundle.manifest.model_hash,
        against=released.bundle.manifest.model_hash if released else None,
        data=data.name,
        data_digest=digest_examples(examples),
        documents=documents.name if documents else None,
        documents_digest=digest_examples(s for article in articles for s in article.sentences) if documents else None,
        margin=margin,
        suites=suites,
        checks=tuple(checks),
    )


def judge(checks: list[Check], margin: float) -> list[Check]:
    """Give every check that has enough items its verdict."""
    details = sum(check.kind == "detail" and check.verdict != "too few" for check in checks)
    judged = []
    for check in checks:
        chance = CHANCE if check.kind == "headline" else CHANCE / max(1, details)
        failed = check.verdict != "too few" and check.loss > margin and check.chance <= chance
        judged.append(replace(check, verdict="worse") if failed else check)
    return judged


@dataclass(frozen=True, slots=True)
class _Measured:
    texts: Scored
    articles: ScoredArticles | None
    suites: tuple[SuiteResult, ...]


def _measure(
    name: str,
    classifier: Classifier,
    examples: list[LabelledExample],
    articles: list[Article],
    suites: bool,
    stage: Stage,
) -> _Measured:
    with stage(f"{name}: texts") as progress:
        texts = score(classifier, examples, progress=progress)
    scored_articles = None
    if articles:
        with stage(f"{name}: articles") as progress:
            scored_articles = score_articles(classifier, articles, progress=progress)
    results = []
    for run in SUITES if suites else ():
        with stage(f"{name}: {run.__name__.removeprefix('run_')}") as progress:
            results.append(run(classifier, progress=progress))
    return _Measured(texts, scored_articles, tuple(results))


def _text_checks(old: Scored, new: Scored) -> Iterator[Check]:
    for name, rows in slice_masks(old).items():
        a, b = old.part(rows), new.part(rows)
        kind: Kind = "headline" if name == "all" else "detail"
        yield from _label_checks(kind, f"{name}:", a.labels, _documents_of(a), a.wanted, a.decided, b.decided)
        if name != "all":
            yield _f1_check("headline", f"{name}: macro F1", _documents_of(a), a.wanted, a.decided, b.decided)
    documents = _documents_of(old)
    yield _mean_check("headline", "decided and right", documents, _settled(old, right=True), _settled(new, right=True))
    wrong = _settled(old, right=False), _settled(new, right=False)
    yield _mean_check("headline", "not decided wrongly", documents, 1 - wrong[0], 1 - wrong[1])


def _article_checks(old: ScoredArticles, new: ScoredArticles) -> Iterator[Check]:
    articles = np.array([article.id for article in old.articles])
    carried, pointed, pointed_now = (np.concatenate(found) for found in (old.carried, old.pointed, new.pointed))
    a, b = old.sentences, new.sentences
    for what, groups, wanted, before, after in (
        ("article", articles, old.wanted, old.decided, new.decided),
        ("evidence", np.repeat(articles, [len(rows) for rows in old.carried]), carried, pointed, pointed_now),
        ("sentence", old.article_of_sentence, a.wanted, a.decided, b.decided),
    ):
        yield _f1_check("headline", f"articles: {what} macro F1", groups, wanted, before, after)
        yield from _label_checks("detail", f"articles: {what}", a.labels, groups, wanted, before, after)


def _documents_of(scored: Scored) -> NDArray[np.str_]:
    return np.array([example.document for example in scored.examples], dtype=np.str_)


def _settled(scored: Scored, *, right: bool) -> FloatArray:
    """For each text the share of labels decided outside the review band, rightly or wrongly."""
    return np.asarray((~scored.review & ((scored.decided == scored.wanted) == right)).mean(axis=1))


def _suite_checks(old: tuple[SuiteResult, ...], new: tuple[SuiteResult, ...]) -> Iterator[Check]:
    for before, after in zip(old, new, strict=True):
        every = [np.concatenate([suite.cells[cell] for cell in before.cells]) for suite in (before, after)]
        groups = np.concatenate([before.groups[cell] for cell in before.cells])
        yield _mean_check("headline", before.name, groups, every[0], every[1])
        for cell in before.cells:
            name, made_from = f"{before.name}: {cell}", np.array(before.groups[cell])
            yield _mean_check("detail", name, made_from, before.cells[cell], after.cells[cell])


def _label_checks(
    kind: Kind,
    prefix: str,
    labels: Sequence[str],
    groups: NDArray[np.str_],
    wanted: BoolArray,
    old: BoolArray,
    new: BoolArray,
) -> Iterator[Check]:
    for column, label in enumerate(labels):
        yield _f1_check(kind, f"{prefix} {label}", groups, wanted[:, [column]], old[:, [column]], new[:, [column]])


def _f1_check(kind: Kind, name: str, groups: NDArray[np.str_], wanted: BoolArray, old: BoolArray, new: BoolArray) -> Check:
    """The F1 of one label `[N, 1]`, or its mean over labels `[N, L]`."""
    items = len(np.unique(groups[wanted.any(axis=1)]))
    check = Check(kind, name, items, macro_f1(wanted, old), macro_f1(wanted, new), chance=1.0)
    return _with_chance(check, lambda: f1_differences(wanted, old, new, groups, samples=_SAMPLES))


def _mean_check(kind: Kind, name: str, groups: NDArray[np.str_], old: FloatArray, new: FloatArray) -> Check:
    check = Check(kind, name, len(np.unique(groups)), float(old.mean()), float(new.mean()), chance=1.0)

    def differences() -> FloatArray:
        by_group = group_sums(new - old, groups)
        return bootstrap_samples(partial(mean_at, by_group), len(by_group), samples=_SAMPLES)

    return _with_chance(check, differences)


def _with_chance(check: Check, differences: Callable[[], FloatArray]) -> Check:
    """The check with its chance out of bootstrap samples of the difference, which are drawn where there is a loss."""
    if check.items < MIN_SUPPORT:
        return replace(check, verdict="too few")
    if check.loss <= 0:
        return check
    return replace(check, chance=float((differences() >= 0).mean()))


def _first_checks(scored: Scored, margin: float) -> Iterator[Check]:
    for column, label in enumerate(scored.labels):
        wanted = scored.wanted[:, column]
        constant = precision_recall_f1(wanted, np.ones_like(wanted))[2]
        own = precision_recall_f1(wanted, scored.decided[:, column])[2]
        support = int(wanted.sum())
        verdict: Verdict = "too few" if support < MIN_SUPPORT else "passed" if own > constant + margin else "worse"
        yield Check("headline", f"all: {label} against a constant answer", support, constant, own, chance=0.0, verdict=verdict)

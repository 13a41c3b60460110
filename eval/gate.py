"""The gate: may a candidate take the place of the released bundle?

Both are measured on the same labelled texts, articles and suites in one run. A check fails where the candidate is worse by
more than the margin and the loss is beyond chance. There are two kinds:

- headline: each label, each language, each suite, the decisions outside the review band. Chance: one-sided 5 %.
- detail: each label in each language, each cell of a suite. Many looks find a loss by chance alone, so chance is 5 % for all
  of them together (Bonferroni).

A bundle without a comparable predecessor (`first`) must beat, on every label, the better of the two constant answers.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np

from eval.compare import check_comparable, f1_differences
from eval.documents import read_articles
from eval.metrics import FloatArray, bootstrap_samples, macro_f1, mean_at, precision_recall_f1
from eval.report import rounded_numbers
from eval.run import SUITES, Stage, silent, slice_masks
from eval.scoring import Scored, score
from eval.suites import SuiteResult, check_taxonomy
from models.classifier import Classifier
from models.errors import InputError
from models.example import LabelledExample, digest_examples, read_examples

MARGIN = 0.02
CHANCE = 0.05
MIN_SUPPORT = 10  # positives a label needs in a slice to be judged there
_SAMPLES = 4_000

Verdict = Literal["passed", "worse", "too few"]


@dataclass(frozen=True, slots=True)
class Check:
    """One comparison: figures of both models (higher is better), and how probable such a loss is if there is none."""

    kind: Literal["headline", "detail"]
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
    """What `gate.json` holds. Hashes are model hashes; `against` is None for a first bundle."""

    candidate: str
    against: str | None
    data: str
    data_digest: str
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
    """Judge a candidate against the released bundle, or as a first one (`released` None).

    Raises InputError where the two are not of one taxonomy or the file cannot judge them, ExampleFormatError where a file
    breaks the format.
    """
    if released is not None:
        check_comparable(candidate.bundle, released.bundle)
    if suites:
        check_taxonomy(candidate.bundle.taxonomy)
    examples = read_examples(data, candidate.bundle.taxonomy)
    if not any(example.labels for example in examples):
        raise InputError(f"{data}: none of the {len(examples)} texts carries a label; a gate needs labelled texts")
    sentences = [s for a in read_articles(documents, candidate.bundle.taxonomy) for s in a.sentences] if documents else []
    new = _measure("candidate", candidate, examples, sentences, suites, stage)
    if released is None:
        checks = list(_first_checks(new.texts, margin))
    else:
        old = _measure("released", released, examples, sentences, suites, stage)
        checks = judge([*_text_checks(old, new), *_suite_checks(old.suites, new.suites)], margin)
    return GateResult(
        candidate=candidate.bundle.manifest.model_hash,
        against=released.bundle.manifest.model_hash if released else None,
        data=data.name,
        data_digest=digest_examples(examples),
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
    sentences: Scored | None
    suites: tuple[SuiteResult, ...]


def _measure(
    name: str,
    classifier: Classifier,
    examples: list[LabelledExample],
    sentences: list[LabelledExample],
    suites: bool,
    stage: Stage,
) -> _Measured:
    with stage(f"{name}: texts") as progress:
        texts = score(classifier, examples, progress=progress)
        of_articles = score(classifier, sentences, progress=progress) if sentences else None
    results = []
    for run in SUITES if suites else ():
        with stage(f"{name}: {run.__name__.removeprefix('run_')}") as progress:
            results.append(run(classifier, progress=progress))
    return _Measured(texts, of_articles, tuple(results))


def _text_checks(old: _Measured, new: _Measured) -> Iterator[Check]:
    for name, rows in slice_masks(old.texts).items():
        a, b = old.texts.part(rows), new.texts.part(rows)
        for column, label in enumerate(a.labels):
            yield _f1_check("headline" if name == "all" else "detail", f"{name}: {label}", a, b, column)
        if name != "all":
            yield _f1_check("headline", f"{name}: macro F1", a, b, None)
    if old.sentences is not None and new.sentences is not None:
        yield _f1_check("headline", "articles: sentence macro F1", old.sentences, new.sentences, None)
        for column, label in enumerate(old.sentences.labels):
            yield _f1_check("detail", f"articles: {label}", old.sentences, new.sentences, column)
    yield _mean_check("headline", "decided and right", _settled(old.texts, right=True), _settled(new.texts, right=True))
    yield _mean_check(
        "headline", "not decided wrongly", 1 - _settled(old.texts, right=False), 1 - _settled(new.texts, right=False)
    )


def _settled(scored: Scored, *, right: bool) -> FloatArray:
    """For each text the share of labels decided outside the review band, rightly or wrongly."""
    return np.asarray((~scored.review & ((scored.decided == scored.wanted) == right)).mean(axis=1))


def _suite_checks(old: tuple[SuiteResult, ...], new: tuple[SuiteResult, ...]) -> Iterator[Check]:
    for before, after in zip(old, new, strict=True):
        every = [np.concatenate(list(suite.cells.values())) for suite in (before, after)]
        yield _mean_check("headline", before.name, every[0], every[1])
        for cell in before.cells:
            yield _mean_check("detail", f"{before.name}: {cell}", before.cells[cell], after.cells[cell])


def _f1_check(kind: Literal["headline", "detail"], name: str, a: Scored, b: Scored, column: int | None) -> Check:
    if column is None:
        support = int(a.wanted.any(axis=1).sum())
        figures = macro_f1(a.wanted, a.decided), macro_f1(b.wanted, b.decided)
    else:
        support = int(a.wanted[:, column].sum())
        pair = (precision_recall_f1(x.wanted[:, column], x.decided[:, column])[2] for x in (a, b))
        figures = next(pair), next(pair)
    if support < MIN_SUPPORT:
        return Check(kind, name, support, *figures, chance=1.0, verdict="too few")
    if figures[1] >= figures[0]:
        return Check(kind, name, support, *figures, chance=1.0)
    drawn = f1_differences(a, b, column, samples=_SAMPLES)
    return Check(kind, name, support, *figures, chance=float((drawn >= 0).mean()))


def _mean_check(kind: Literal["headline", "detail"], name: str, old: FloatArray, new: FloatArray) -> Check:
    figures = float(old.mean()), float(new.mean())
    if len(old) < MIN_SUPPORT:
        return Check(kind, name, len(old), *figures, chance=1.0, verdict="too few")
    if figures[1] >= figures[0]:
        return Check(kind, name, len(old), *figures, chance=1.0)
    drawn = bootstrap_samples(partial(mean_at, new - old), len(old), samples=_SAMPLES)
    return Check(kind, name, len(old), *figures, chance=float((drawn >= 0).mean()))


def _first_checks(scored: Scored, margin: float) -> Iterator[Check]:
    for column, label in enumerate(scored.labels):
        wanted = scored.wanted[:, column]
        constant = precision_recall_f1(wanted, np.ones_like(wanted))[2]
        own = precision_recall_f1(wanted, scored.decided[:, column])[2]
        support = int(wanted.sum())
        verdict: Verdict = "too few" if support < MIN_SUPPORT else "passed" if own > constant + margin else "worse"
        yield Check("headline", f"all: {label} against a constant answer", support, constant, own, chance=0.0, verdict=verdict)

"""Evaluating a bundle: a labelled file, articles, suites and baselines, through the same classifier that serves."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from eval.baselines import Baseline, run_baselines
from eval.breakdown import MIN_SUPPORT, confusion, groups, threshold_costs
from eval.documents import evaluate_documents
from eval.metrics import Average, BoolArray, averages, label_metrics, precision_recall_f1
from eval.report import Contender, Report, Slice
from eval.scoring import Progress, Scored, no_progress, score
from eval.suites import SuiteResult, check_taxonomy
from eval.suites.dialects import run_dialects
from eval.suites.fairness import run_fairness
from eval.suites.pairs import run_pairs
from eval.suites.robustness import run_robustness
from models.classifier import Classifier
from models.errors import InputError
from models.example import LabelledExample, digest_examples, labelled_files, read_examples
from models.text import prepare_text

SUITES = (run_pairs, run_robustness, run_dialects, run_fairness)
Stage = Callable[[str], AbstractContextManager[Progress]]


def silent(_name: str) -> AbstractContextManager[Progress]:
    """A stage that shows nothing."""
    return nullcontext(no_progress)


@dataclass(frozen=True, slots=True)
class Evaluation:
    """A report, and the scored texts that its page draws its curves from."""

    report: Report
    scored: Scored


def evaluate(
    classifier: Classifier,
    data: Path,
    *,
    documents: Path | None = None,
    train: Sequence[Path] = (),
    base_encoder: Path | None = None,
    suites: bool = False,
    stage: Stage = silent,
    seed: int = 1,
) -> Evaluation:
    """Score every text of a labelled file as a passage and compare with its labels, over all texts and per language.

    `documents` adds labelled articles, `suites` the project's own, `train` the baselines that are trained on those files, and
    `base_encoder` (see `eval.baselines`) the frozen encoder among them. The language of a row decides its slice: the one
    the row states, or the detected one. Raises ExampleFormatError where a file breaks the format, InputError where no text
    could be scored or the suites ask for labels that the bundle does not have.
    """
    if suites:
        check_taxonomy(classifier.bundle.taxonomy)
    examples = read_examples(data, classifier.bundle.taxonomy)
    train_rows = [row for path in labelled_files(train) for row in read_examples(path, classifier.bundle.taxonomy)]
    with stage(data.name) as progress:
        started = time.monotonic()
        scored = score(classifier, examples, progress=progress)
        seconds = time.monotonic() - started
    if not len(scored):
        raise InputError(f"{data}: none of the {len(examples)} texts could be scored")
    article_report = None
    if documents is not None:
        with stage(documents.name) as progress:
            article_report = evaluate_documents(classifier, documents, seed=seed, progress=progress)
    results: list[SuiteResult] = []
    for run in SUITES if suites else ():
        with stage(run.__name__.removeprefix("run_")) as progress:
            results.append(run(classifier, progress=progress))
    with stage("baselines") as progress:
        baselines = run_baselines(
            scored.examples, train_rows, scored.labels, base_encoder=base_encoder, progress=lambda _name: progress(1)
        )
    manifest = classifier.bundle.manifest
    name = f"{manifest.name} {manifest.version}"
    report = Report(
        bundle=name,
        model_hash=manifest.model_hash,
        data=data.name,
        data_digest=digest_examples(examples),
        rejected=len(examples) - len(scored),
        seconds=seconds,
        notices=tuple(_notices(scored, train_rows, examples)),
        slices=tuple(slices(scored, seed=seed)),
        contenders=tuple(_contender(one, scored, seed) for one in (Baseline(name, scored.decided), *baselines)),
        groups=tuple(groups(scored, seed=seed)),
        confusion=confusion(scored),
        thresholds=tuple(threshold_costs(scored)),
        documents=article_report,
        suites=tuple(results),
    )
    return Evaluation(report, scored)


def slice_masks(scored: Scored) -> dict[str, BoolArray]:
    """The rows `[N]` of `all` and of each language."""
    masks = {"all": np.ones(len(scored), dtype=np.bool_)}
    for language in sorted(set(scored.languages.tolist())):
        masks[language] = scored.languages == language
    return masks


def slices(scored: Scored, *, seed: int = 1) -> Iterator[Slice]:
    """The metrics over all texts and per language."""
    for name, rows in slice_masks(scored).items():
        part = scored.part(rows)
        labels = {
            label: label_metrics(part.wanted[:, i], part.decided[:, i], part.probabilities[:, i], part.review[:, i], seed=seed)
            for i, label in enumerate(part.labels)
        }
        yield Slice(name, len(part), labels, averages(part.wanted, part.decided, seed=seed))


def _contender(one: Baseline, scored: Scored, seed: int) -> Contender:
    macro: dict[str, Average] = {}
    for name, rows in slice_masks(scored).items():
        macro[name] = averages(scored.wanted[rows], one.decided[rows], seed=seed)["macro"]
    f1 = {label: precision_recall_f1(scored.wanted[:, i], one.decided[:, i])[2] for i, label in enumerate(scored.labels)}
    return Contender(one.name, macro, f1)


def _notices(scored: Scored, train: Sequence[LabelledExample], examples: Sequence[LabelledExample]) -> Iterator[str]:
    """What a reader must know before believing a figure."""
    if len(examples) > len(scored):
        yield f"{len(examples) - len(scored)} texts have nothing visible in them and were left out"
    if not scored.wanted.any():
        yield f"none of the {len(scored)} texts carries a label: only false alarms can be judged. Is the file labelled?"
    else:
        for column, label in enumerate(scored.labels):
            support = int(scored.wanted[:, column].sum())
            if support in (0, len(scored)):
                yield f"{'every' if support else 'no'} text carries {label}: its average precision and curves are undefined"
            elif support < MIN_SUPPORT:
                yield f"{label} has {support} positive texts: its figures are hardly more than chance"
    languages = sorted(set(scored.languages.tolist()))
    if len(languages) == 1:
        yield f"all texts are in {languages[0]!r}: nothing is known of other languages"
    texts = [prepare_text(example.text).text for example in scored.examples]
    if again := len(texts) - len(set(texts)):
        labels_of: dict[str, set[frozenset[str]]] = {}
        for text, example in zip(texts, scored.examples, strict=True):
            labels_of.setdefault(text, set()).add(example.labels)
        torn = sum(len(found) > 1 for found in labels_of.values())
        yield f"{again} texts repeat an earlier one" + (f", {torn} of them with other labels" if torn else "")
    if train:
        seen = {prepare_text(example.text).text for example in train}
        if known := sum(text in seen for text in texts):
            yield f"{known} texts are in the training files given with --train: figures on them prove nothing"
    doubted = Counter(example.unsure for example in scored.examples)[True]
    if doubted:
        yield f"the reader was unsure of {doubted} of the {len(scored)} texts; the slices show them apart"

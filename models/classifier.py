"""The classifier: the one way from a text to its labels, for requests, batch scoring and evaluation alike.

classifier = Classifier.load()
[answer] = classifier.classify(["The governor said ..."], granularity="document", evidence=True)
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import numpy as np
from numpy.typing import NDArray

from models.bundle import Bundle, load_bundle, released_bundle_path
from models.decision import UNDETERMINED
from models.engine import Engine, EngineName, open_engine
from models.errors import EmptyTextError
from models.language import DetectedLanguage, detect_language
from models.passages import split_passages
from models.prediction import Answer, Evidence, Granularity, LabelPrediction, Prediction, Problem, Rejection
from models.text import prepare_text


@dataclass(frozen=True, slots=True)
class TextItem:
    """One text to classify and the id its answer will carry."""

    id: str
    text: str


@dataclass(frozen=True, slots=True)
class _Unit:
    """A stretch of a text that the model sees as one: token ids and offsets in the original text."""

    ids: list[int]
    start: int
    end: int


@dataclass(frozen=True, slots=True)
class _Plan:
    """What must be computed for one text: units that decide its labels, units that may be its evidence."""

    item: TextItem
    language: DetectedLanguage
    deciding: list[_Unit]
    evidence: list[_Unit]
    truncated: bool


@dataclass(frozen=True, slots=True)
class Encoded:
    """Texts made ready for the engine: `rows` of token ids, and how their logits become answers."""

    rows: list[list[int]]
    plans: tuple[_Plan | Rejection, ...]
    granularity: Granularity
    evidence: bool


class Classifier:
    """Prepares, tokenises, infers, calibrates and decides. Safe to share between threads.

    A text's answer depends on the text alone: not on its neighbours, their order or their number.
    """

    def __init__(self, bundle: Bundle, engine: Engine) -> None:
        """Put a verified bundle and an engine for its model together."""
        self.bundle = bundle
        self.labels = bundle.taxonomy.label_ids
        self.engine = engine
        self._tokenizer = bundle.tokenizer()
        self._max_tokens = bundle.manifest.max_tokens

    @classmethod
    def load(
        cls,
        path: Path | None = None,
        *,
        threads: int | None = None,
        require_seal: bool = True,
        engine: EngineName = "onnxruntime",
    ) -> Self:
        """Verify and open a bundle, by default the one Rasid ships. Raises BundleError or EngineError."""
        bundle = load_bundle(path or released_bundle_path(), require_seal=require_seal)
        return cls(bundle, open_engine(engine, bundle.model_path, threads=threads))

    def classify(
        self, texts: Sequence[str | TextItem], *, granularity: Granularity = "passage", evidence: bool = False
    ) -> list[Answer]:
        """Answer `N` texts with `N` predictions or rejections, in their order.

        `passage` judges each text as one piece and cuts it at the model's length (`truncated` tells). `document`
        judges every sentence of the text, however long it is, and a label holds where it holds for one of them.
        With `evidence` each label that is not `no` comes with the sentences that carry it, neighbours joined, the most
        probable first.
        A text with nothing but white space and invisible characters is rejected. Raises EngineError where inference
        fails.
        """
        work = self.encode(texts, granularity=granularity, evidence=evidence)
        return self.decide(work, self.engine.logits(work.rows))

    def encode(
        self, texts: Sequence[str | TextItem], *, granularity: Granularity = "passage", evidence: bool = False
    ) -> Encoded:
        """The first half of `classify`: what the engine must compute for `N` texts. Needs no engine."""
        items = [item if isinstance(item, TextItem) else TextItem(str(n), item) for n, item in enumerate(texts)]
        plans = tuple(self._plan(item, granularity, evidence) for item in items)
        rows = [unit.ids for plan in plans if isinstance(plan, _Plan) for unit in plan.deciding + plan.evidence]
        return Encoded(rows, plans, granularity, evidence)

    def decide(self, work: Encoded, logits: NDArray[np.float32]) -> list[Answer]:
        """The second half of `classify`: the answers, from the logits `[R, L]` of the `R` rows of `work`."""
        answers: list[Answer] = []
        at = 0
        for plan in work.plans:
            if isinstance(plan, Rejection):
                answers.append(plan)
                continue
            count = len(plan.deciding) + len(plan.evidence)
            languages = [plan.language.language] * count
            probabilities = self.bundle.decision.probabilities(logits[at : at + count], languages, self.labels)
            answers.append(self._answer(plan, probabilities, granularity=work.granularity, evidence=work.evidence))
            at += count
        return answers

    def logits(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Uncalibrated logits `[N, L]` of `N` texts, each judged as one passage.

        Raises EmptyTextError where a text has nothing to judge.
        """
        rows = []
        for index, text in enumerate(texts):
            units = self._encode(text, 0, len(text))
            if not units:
                raise EmptyTextError(f"text {index} has no characters left after preparation")
            rows.append(units[0].ids)
        return self.engine.logits(rows)

    def _plan(self, item: TextItem, granularity: Granularity, evidence: bool) -> _Plan | Rejection:
        language = detect_language(item.text)
        sentences: list[_Unit] = []
        if granularity == "document" or evidence:
            for passage in split_passages(item.text, language.language):
                sentences.extend(self._encode(item.text, passage.start, passage.end))
        if granularity == "document":
            if not sentences:
                return _reject_empty(item)
            return _Plan(item, language, sentences, [], truncated=False)
        whole = self._encode(item.text, 0, len(item.text))
        if not whole:
            return _reject_empty(item)
        return _Plan(item, language, whole[:1], sentences if evidence else [], truncated=len(whole) > 1)

    def _encode(self, text: str, start: int, end: int) -> list[_Unit]:
        """The units of a stretch of text: one, or as many windows as its tokens need; none where nothing is left."""
        prepared = prepare_text(text[start:end])
        if not prepared.text:
            return []
        encoding = self._tokenizer.encode(prepared.text)
        room = self._max_tokens - 2
        if len(encoding.ids) <= self._max_tokens:
            return [_Unit(encoding.ids, start, end)]
        opening, inner, closing = encoding.ids[0], encoding.ids[1:-1], encoding.ids[-1]
        offsets = encoding.offsets[1:-1]
        units = []
        for at in range(0, len(inner), room):
            ids = inner[at : at + room]
            spans = [span for span in offsets[at : at + room] if span[0] < span[1]]
            first, last = prepared.original_span(spans[0][0], spans[-1][1])
            units.append(_Unit([opening, *ids, closing], start + first, start + last))
        return units

    def _answer(
        self, plan: _Plan, probabilities: NDArray[np.float64], *, granularity: Granularity, evidence: bool
    ) -> Prediction:
        language = plan.language.language
        deciding = probabilities[: len(plan.deciding)]
        candidates = plan.deciding if granularity == "document" else plan.evidence
        support = deciding if granularity == "document" else probabilities[len(plan.deciding) :]
        labels: dict[str, LabelPrediction] = {}
        found: list[Evidence] = []
        for column, label in enumerate(self.labels):
            highest = float(deciding[:, column].max())
            decision = self.bundle.decision.decide(highest, language, label, granularity)
            labels[label] = LabelPrediction(probability=highest, decision=decision)
            if evidence and decision != "no" and candidates:
                found.extend(self._evidence(plan, label, candidates, support[:, column]))
        return Prediction(
            id=plan.item.id,
            language=language,
            flags=list(plan.language.flags),
            labels=labels,
            evidence=found,
            truncated=plan.truncated,
        )

    def _evidence(self, plan: _Plan, label: str, units: list[_Unit], support: NDArray[np.float64]) -> list[Evidence]:
        """The units that carry a label by themselves, or the strongest where the label rests on them together.

        Units that follow each other are one piece of evidence, as probable as the most probable of them.
        """
        rule = self.bundle.decision.rules[plan.language.language][label]
        carrying = [i for i in range(len(units)) if rule.carries(float(support[i]))]
        if not carrying or plan.language.language == UNDETERMINED:
            carrying = [int(np.argmax(support))]
        runs: list[list[int]] = []
        for i in carrying:
            if runs and runs[-1][-1] == i - 1:
                runs[-1].append(i)
            else:
                runs.append([i])
        found = [
            Evidence(
                label=label,
                start=units[run[0]].start,
                end=units[run[-1]].end,
                text=plan.item.text[units[run[0]].start : units[run[-1]].end],
                probability=float(support[run].max()),
            )
            for run in runs
        ]
        return sorted(found, key=lambda evidence: -evidence.probability)


def _reject_empty(item: TextItem) -> Rejection:
    detail = f"expected a text with at least one visible character, got {len(item.text)} characters and none visible"
    return Rejection(id=item.id, error=Problem(code=EmptyTextError.code, detail=detail))

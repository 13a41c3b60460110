"""The decision rule: from a model's logits to calibrated probabilities and to yes, no or review.

Per language and label, a logit is calibrated by Platt scaling, `p = 1 / (1 + exp(-(slope * logit + intercept)))` (Platt
1999), compared with a threshold, and sent to review where it falls between `review_low` and `review_high`. All numbers come
from validation data. Texts in no supported language (`und`) get probabilities by a rule fitted on all languages, and
every label of theirs is left to review: nothing is known of the model's precision there.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Self

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, model_validator

from models.errors import TaxonomyError
from models.prediction import Decision, Granularity
from models.taxonomy import Taxonomy

UNDETERMINED = "und"


class LabelRule(BaseModel):
    """How one label is decided in one language. `review_low <= threshold <= review_high`, all in [0, 1].

    `evidence_threshold` is for a sentence of an article, `document_threshold` for the article by its most probable
    sentence; without them `threshold` serves.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    slope: float = Field(gt=0)
    intercept: float
    threshold: float = Field(ge=0, le=1)
    review_low: float = Field(ge=0, le=1)
    review_high: float = Field(ge=0, le=1)
    evidence_threshold: float | None = Field(default=None, ge=0, le=1)
    document_threshold: float | None = Field(default=None, ge=0, le=1)

    @model_validator(mode="after")
    def _band_holds_threshold(self) -> Self:
        if not self.review_low <= self.threshold <= self.review_high:
            raise ValueError("expected review_low <= threshold <= review_high")
        return self

    def threshold_of(self, granularity: Granularity) -> float:
        """The threshold for passages or for articles."""
        if granularity == "document" and self.document_threshold is not None:
            return self.document_threshold
        return self.threshold

    def decide(self, probability: float, granularity: Granularity = "passage") -> Decision:
        """Yes, no, or review inside the band (its upper end decides yes, its lower end review).

        For an article the band reaches as far as is needed to hold the threshold.
        """
        threshold = self.threshold_of(granularity)
        if min(self.review_low, threshold) <= probability < max(self.review_high, threshold):
            return "review"
        return "yes" if probability >= threshold else "no"

    def carries(self, probability: float) -> bool:
        """Whether a sentence of this probability counts as evidence of the label."""
        return probability >= (self.threshold if self.evidence_threshold is None else self.evidence_threshold)


class DecisionRule(BaseModel):
    """The rules of all labels for each language of a taxonomy, and for `und`."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    rules: dict[str, dict[str, LabelRule]]

    def check(self, taxonomy: Taxonomy) -> None:
        """Raise TaxonomyError unless there is exactly one rule for each language and label, and for `und`."""
        expected = {*taxonomy.languages, UNDETERMINED}
        if set(self.rules) != expected:
            raise TaxonomyError(f"expected decision rules for {sorted(expected)}, got {sorted(self.rules)}")
        for language, rules in self.rules.items():
            if set(rules) != set(taxonomy.label_ids):
                raise TaxonomyError(f"expected rules for {list(taxonomy.label_ids)} in {language}, got {list(rules)}")

    def probabilities(
        self, logits: NDArray[np.float32], languages: Sequence[str], labels: Sequence[str]
    ) -> NDArray[np.float64]:
        """Calibrated probabilities `[N, L]` of logits `[N, L]`, rounded to the 4 decimals that are reported."""
        slopes = np.array([[self.rules[language][label].slope for label in labels] for language in languages])
        intercepts = np.array([[self.rules[language][label].intercept for label in labels] for language in languages])
        scores = slopes * logits.astype(np.float64) + intercepts
        rounded: NDArray[np.float64] = np.round(1.0 / (1.0 + np.exp(-scores)), 4)
        return rounded

    def decide(self, probability: float, language: str, label: str, granularity: Granularity = "passage") -> Decision:
        """The decision for one reported probability of a passage, or of an article's most probable sentence."""
        if language == UNDETERMINED:
            return "review"
        return self.rules[language][label].decide(probability, granularity)

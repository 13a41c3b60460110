"""Agreement of two independent annotations of the same passages, by label and language.

Raw agreement, Cohen's kappa (Cohen 1960), Krippendorff's alpha for nominal data (Krippendorff 2011, "Computing Krippendorff's
Alpha-Reliability") and the F1 of one side taken as the truth of the other, which is the same both ways. For rare labels look at
F1: raw agreement is high by the absences alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.metrics import cohen_kappa_score

from models.errors import InputError
from models.taxonomy import Taxonomy
from training.pairing import Sides, pair
from training.readings import Reading

BoolArray = NDArray[np.bool_]
ALL = "all"
_SAMPLES = 2_000


@dataclass(frozen=True, slots=True)
class LabelAgreement:
    """One label in one language (`all` for both together), over the passages in common.

    `first` and `second` count the passages that carry the label on each side. `kappa` and `alpha` (in [-1, 1]) are None where
    both sides give one answer throughout, `f1` (in [0, 1]) and its 95 % bootstrap interval where nobody gives the label.
    """

    language: str
    label: str
    rows: int
    first: int
    second: int
    raw: float
    kappa: float | None
    alpha: float | None
    f1: float | None
    f1_interval: tuple[float, float] | None


@dataclass(frozen=True, slots=True)
class Difference:
    """A passage that the two sides label differently."""

    first: Reading
    second: Reading

    def as_row(self, taxonomy: Taxonomy) -> dict[str, Any]:
        """The passage by id and hash, with the labels of both sides and without its text."""
        sides = {"first": self.first, "second": self.second}
        labels = {name: [label for label in taxonomy.label_ids if label in side.labels] for name, side in sides.items()}
        unsure = [name for name, side in sides.items() if side.unsure]
        other = {} if self.second.id == self.first.id else {"second_id": self.second.id}
        return {"id": self.first.id, **other, "lang": self.first.lang, "sha256": self.first.sha256, **labels, "unsure": unsure}


@dataclass(frozen=True, slots=True)
class Agreement:
    """What two sides have in common and how far they agree.

    `by_id` and `other_text` as in `training.pairing.Pairs`; the passages missing from a side are counted by `only_first` and
    `only_second`. `identical` passages have the same labels on both sides.
    """

    first: str
    second: str
    common: int
    by_id: int
    other_text: int
    only_first: int
    only_second: int
    identical: int
    unsure_first: int
    unsure_second: int
    labels: tuple[LabelAgreement, ...]
    differences: tuple[Difference, ...]

    def as_json(self, taxonomy: Taxonomy) -> dict[str, Any]:
        """All of it for `json.dumps`."""
        plain = asdict(replace(self, differences=()))
        return {**plain, "differences": [difference.as_row(taxonomy) for difference in self.differences]}


def measure_agreement(sides: Sides, taxonomy: Taxonomy, *, seed: int = 1) -> Agreement:
    """Compare two sides on the passages they have in common. Raises InputError where there are none."""
    found = pair(sides.first, sides.second)
    pairs = sorted(found.pairs, key=lambda both: (both[0].id, both[0].lang))
    if not pairs:
        counts = " and ".join(
            f"{len(side)} of {name} (such as {side[0].id!r})" if side else f"none of {name}"
            for name, side in zip(sides.names, (sides.first, sides.second), strict=True)
        )
        same = f"; {found.other_text} have an id in common, but another text" if found.other_text else ""
        raise InputError(f"expected passages in common, got {counts}: no text and no id is on both sides{same}")
    return Agreement(
        first=sides.names[0],
        second=sides.names[1],
        common=len(pairs),
        by_id=found.by_id,
        other_text=found.other_text,
        only_first=len(sides.first) - len(pairs),
        only_second=len(sides.second) - len(pairs),
        identical=sum(first.labels == second.labels for first, second in pairs),
        unsure_first=sum(first.unsure for first, _ in pairs),
        unsure_second=sum(second.unsure for _, second in pairs),
        labels=tuple(_by_label(pairs, taxonomy, seed)),
        differences=tuple(Difference(first, second) for first, second in pairs if first.labels != second.labels),
    )


def label_agreement(first: BoolArray, second: BoolArray, *, language: str, label: str, seed: int = 1) -> LabelAgreement:
    """The figures of one label, whose presence on `N` passages two sides say, `[N]` each; `N` at least 1."""
    both, one, other = int((first & second).sum()), int((first & ~second).sum()), int((~first & second).sum())
    varied = bool((first | second).any() and not (first & second).all())
    any_label = both + one + other > 0
    return LabelAgreement(
        language=language,
        label=label,
        rows=len(first),
        first=both + one,
        second=both + other,
        raw=float((first == second).mean()),
        kappa=float(cohen_kappa_score(first, second)) if varied else None,
        alpha=krippendorff_alpha(first, second),
        f1=2 * both / (2 * both + one + other) if any_label else None,
        f1_interval=_f1_interval(both, one + other, len(first), seed) if any_label else None,
    )


def krippendorff_alpha(first: BoolArray, second: BoolArray) -> float | None:
    """Krippendorff's alpha of two sides `[N]`, nominal, nothing missing: 1 minus observed over expected disagreement.

    None where there is but one value, which leaves nothing to expect.
    """
    values = 2 * len(first)
    present = int(first.sum()) + int(second.sum())
    expected = 2 * present * (values - present) / (values * (values - 1))
    if expected == 0:
        return None
    return float(1 - (first != second).mean() / expected)


def _f1_interval(both: int, different: int, rows: int, seed: int) -> tuple[float, float]:
    """The middle 95 % of F1 over resampled rows (Efron's percentile bootstrap), drawn as counts, which comes to the same.

    Samples without the label have no F1 and are left out.
    """
    cells = np.array([both, different, rows - both - different]) / rows
    drawn = np.random.default_rng(seed).multinomial(rows, cells, size=_SAMPLES)
    drawn = drawn[drawn[:, :2].any(axis=1)]
    low, high = np.percentile(2 * drawn[:, 0] / (2 * drawn[:, 0] + drawn[:, 1]), [2.5, 97.5])
    return float(low), float(high)


def _by_label(pairs: Sequence[tuple[Reading, Reading]], taxonomy: Taxonomy, seed: int) -> list[LabelAgreement]:
    languages = sorted({first.lang for first, _ in pairs})
    groups = [(language, [both for both in pairs if both[0].lang == language]) for language in languages]
    if len(languages) > 1:
        groups.insert(0, (ALL, list(pairs)))
    found = []
    for language, group in groups:
        for label in taxonomy.label_ids:
            sides = [np.array([label in both[side].labels for both in group]) for side in (0, 1)]
            found.append(label_agreement(sides[0], sides[1], language=language, label=label, seed=seed))
    return found

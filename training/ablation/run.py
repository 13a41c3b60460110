"""Runs variants of the recipe and compares them on rows that no run has seen."""

from __future__ import annotations

import hashlib
import json
import logging
import random
import shutil
import statistics
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import islice
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.metrics import f1_score
from tokenizers import Tokenizer
from transformers import PreTrainedModel

from models.decision import DecisionRule
from models.errors import InputError
from models.jsonl import read_rows as read_jsonl
from models.taxonomy import Taxonomy, load_taxonomy
from models.text import prepare_text
from models.translations import LANGUAGES, read_translations
from training.ablation.consistency import Consistency, Pair, digest_pairs, usable_pairs
from training.ablation.pretrain import pretrain
from training.ablation.variants import BASELINE, VARIANTS, Variant, soft
from training.base import load_base
from training.batching import contrast_partners
from training.encoder import keep_vocabulary_rows
from training.finetune import FineTuneSettings, average_precision, bfloat16_is_faster, fine_tune, hash_rows, predict_logits
from training.losses import class_weighted
from training.measure import decided, decided_f1, rule_of, unseen_rows
from training.pipeline import judged_rows, read_rows, vocabulary_of
from training.rows import TrainingRow, targets

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """One fine-tuning, measured: means over labels in [0, 1], on the test file and on the validation rows of real text.

    `recipe` names the base, the rows of all parts and the settings; `sample` is how many rows were asked for, `rows` how many
    the variant trained on. `pairs_right` is the share of contrast pairs of the own corpus, among the validation rows, of which
    both sides are decided right on every label that differs. `agreement` is that between the languages on translations to
    measure on, where some were given: the share of the sides that get a label whose other side gets it too, 0 where none does.
    """

    variant: str
    seed: int
    recipe: str
    sample: int
    rows: int
    epochs: int
    average_precision: float
    macro_f1: float
    validation_average_precision: float
    validation_macro_f1: float
    pairs_right: float
    agreement: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Scale:
    """How large each fine-tuning is."""

    rows: int = 6_000
    epochs: int = 2
    pretraining_texts: int = 20_000


def ablate(
    work: Path,
    data: Path,
    out: Path,
    *,
    variants: Sequence[str],
    seeds: Sequence[int],
    base: str,
    scale: Scale = Scale(),
    pool: Sequence[Path] = (),
    translations: Sequence[Path] = (),
    measured_translations: Sequence[Path] = (),
    show_progress: bool = True,
) -> list[Outcome]:
    """Fine-tune every variant with every seed on rows of the fitted run `work` and measure it on `data`.

    Adds a line to `out` after each; what is in it already, by the same base, rows and settings, is not run again. Raises
    InputError where a variant is unknown, the run is missing, passages of `data` or of `measured_translations`, on which the
    agreement between the languages is measured, are among its rows, or pseudo-labels, the pool or translations are needed and
    not given.
    """
    unknown = sorted(set(variants) - set(VARIANTS))
    if unknown:
        raise InputError(f"no variant {', '.join(unknown)}; there are {', '.join(VARIANTS)}")
    for needed in ("train.parquet", "validation.parquet", "taxonomy.json"):
        if not (work / needed).is_file():
            raise InputError(f"expected {needed} in {work}; run rasid-train fit first")
    if not pool and any(VARIANTS[name].pretrained for name in variants):
        raise InputError("a variant needs unlabelled passages to pre-train on: give --pool")
    if not translations and any(VARIANTS[name].consistency for name in variants):
        raise InputError("a variant needs passages in both languages: give --translations")
    bench = _Bench(work, data, base, translations, measured_translations)
    if not any(soft(row) for row in bench.train) and any(VARIANTS[name].needs_pseudo for name in variants):
        raise InputError(f"a variant needs pseudo-labels, {work} has none; fit it with --pseudo")
    done = {(one.variant, one.seed, one.recipe): one for one in _read(out)}
    wanted = [(name, seed, bench.recipe(VARIANTS[name], scale)) for seed in seeds for name in variants]
    for name, seed, recipe in wanted:
        if (name, seed, recipe) in done:
            continue
        variant = VARIANTS[name]
        start = bench.pretrained(work, pool, scale, show_progress) if variant.pretrained else bench.start
        folder = out.with_name(f"{out.name}.{name}-{seed}")
        outcome = bench.run(name, variant, seed, scale, start, folder, show_progress)
        out.parent.mkdir(parents=True, exist_ok=True)
        with out.open("a", encoding="utf-8") as handle:
            handle.write(json.dumps(asdict(outcome)) + "\n")
        shutil.rmtree(folder)
        logger.info("%s", json.dumps(asdict(outcome)))
        done[name, seed, recipe] = outcome
    return [done[one] for one in wanted]


@dataclass(frozen=True, slots=True, kw_only=True)
class Summary:
    """A variant over its seeds: mean and standard deviation (0 for one seed) of a figure, and the mean's difference."""

    variant: str
    what: str
    seeds: int
    figures: dict[str, tuple[float, float]]
    difference: dict[str, float | None]


FIGURES = ("average_precision", "macro_f1", "validation_average_precision", "validation_macro_f1", "pairs_right", "agreement")


def summarise(outcomes: Sequence[Outcome]) -> list[Summary]:
    """One summary a variant, in the order they came; differences are to the baseline, None where it was not run.

    Figures that an outcome lacks are left out for all.
    """
    by_variant: dict[str, list[Outcome]] = defaultdict(list)
    for outcome in outcomes:
        by_variant[outcome.variant].append(outcome)
    measured = [figure for figure in FIGURES if all(getattr(one, figure) is not None for one in outcomes)]
    means = {
        name: {figure: statistics.mean(getattr(one, figure) for one in found) for figure in measured}
        for name, found in by_variant.items()
    }
    return [
        Summary(
            variant=name,
            what=VARIANTS[name].what,
            seeds=len(found),
            figures={
                figure: (
                    means[name][figure],
                    statistics.stdev(getattr(one, figure) for one in found) if len(found) > 1 else 0.0,
                )
                for figure in measured
            },
            difference={
                figure: means[name][figure] - means[BASELINE][figure] if BASELINE in means else None for figure in measured
            },
        )
        for name, found in by_variant.items()
    ]


class _Bench:
    """What all variants share: the rows, the tokenizer and the base encoder's weights."""

    def __init__(
        self, work: Path, data: Path, base: str, translations: Sequence[Path], measured_translations: Sequence[Path]
    ) -> None:
        self.taxonomy: Taxonomy = load_taxonomy(work / "taxonomy.json")
        self.train = read_rows(work / "train.parquet")
        self.validation = read_rows(work / "validation.parquet")
        self.test = unseen_rows(data, self.taxonomy, self.train, work)
        measured = read_translations(measured_translations) if measured_translations else []
        self.measured_pairs = usable_pairs(measured, ())
        seen = len(measured) - len(usable_pairs(measured, {row.text for row in self.train}))
        if seen:
            raise InputError(
                f"expected translations to measure on that were not trained on, {seen} of {len(measured)} have a side "
                f"among the training rows of {work}"
            )
        self.kept_apart = {row.text for row in (*self.validation, *self.test)}.union(*self.measured_pairs)
        found = read_translations(translations) if translations else []
        self.pairs = usable_pairs(found, self.kept_apart)
        if found and not self.pairs:
            raise InputError(f"expected translations to train on, all {len(found)} are for validation or to measure on")
        if found:
            logger.info("%d of %d translations are neither for validation nor to measure on", len(self.pairs), len(found))
        self.base = base
        encoder = load_base(base)
        vocabulary = vocabulary_of(encoder.tokenizer_json, [row.text for row in self.train])
        keep_vocabulary_rows(encoder.model, vocabulary.kept_ids)
        self.tokenizer: Tokenizer = vocabulary.tokenizer()
        self.encoder: PreTrainedModel = encoder.model
        self.start = {name: value.clone() for name, value in encoder.model.state_dict().items()}

    def recipe(self, variant: Variant, scale: Scale) -> str:
        """A digest of all that an outcome depends on beside the variant's name, the seed and the code."""
        settings = replace(FineTuneSettings(epochs=scale.epochs), **variant.settings)
        rows = [hash_rows(part) for part in (self.train, self.validation, self.test)]
        if variant.consistency:
            rows.append(f"{variant.consistency} {digest_pairs(self.pairs)}")
        if self.measured_pairs:
            rows.append(f"measured {digest_pairs(self.measured_pairs)}")
        return hashlib.sha256(repr((self.base, asdict(settings), asdict(scale), rows)).encode()).hexdigest()[:16]

    def pretrained(self, work: Path, pool: Sequence[Path], scale: Scale, show_progress: bool) -> dict[str, torch.Tensor]:
        texts = list(islice((text for text in _shuffled(pool) if text not in self.kept_apart), scale.pretraining_texts))
        digest = hashlib.sha256(repr((self.base, texts)).encode("utf-8", "surrogatepass")).hexdigest()[:16]
        path = work / f"pretrained-{digest}.pt"
        if not path.is_file():
            self.encoder.load_state_dict(self.start)
            loss = pretrain(self.encoder, self.tokenizer, texts, show_progress=show_progress)
            logger.info("pre-trained on %d passages, loss %.3f at the end", len(texts), loss)
            partial = path.with_suffix(".part")
            torch.save(self.encoder.state_dict(), partial)
            partial.replace(path)
        found: dict[str, torch.Tensor] = torch.load(path, weights_only=True)
        return found

    def run(
        self,
        name: str,
        variant: Variant,
        seed: int,
        scale: Scale,
        start: dict[str, torch.Tensor],
        folder: Path,
        show_progress: bool,
    ) -> Outcome:
        self.encoder.load_state_dict(start)
        torch.manual_seed(seed)
        settings = replace(FineTuneSettings(epochs=scale.epochs, seed=seed), **variant.settings)
        model = variant.network(self.encoder, len(self.taxonomy.label_ids), dropout=settings.dropout)
        judged = judged_rows(self.validation)
        rows = variant.rows(self.train, scale.rows)
        loss = class_weighted(variant.loss, torch.from_numpy(targets(rows))) if variant.class_weights else variant.loss
        consistency = (
            Consistency(
                model,
                self.tokenizer,
                self.pairs,
                weight=variant.consistency,
                max_tokens=settings.max_tokens,
                seed=seed,
            )
            if variant.consistency
            else None
        )
        fine_tune(
            model,
            self.tokenizer,
            rows,
            judged,
            settings,
            checkpoint_directory=folder,
            noise=variant.noise,
            loss=loss,
            auxiliary_loss=consistency,
            show_progress=show_progress,
        )

        def logits(asked: Sequence[TrainingRow]) -> NDArray[np.float32]:
            return predict_logits(
                model,
                self.tokenizer,
                [row.text for row in asked],
                max_tokens=settings.max_tokens,
                bfloat16=bfloat16_is_faster(),
            )

        on_validation, on_test = logits(judged), logits(self.test)
        rule = rule_of(on_validation, judged, self.taxonomy, unsure_weight=FineTuneSettings().unsure_weight)
        agreement = (
            agreement_of(self.measured_pairs, logits(rows_of(self.measured_pairs)), rule, self.taxonomy)
            if self.measured_pairs
            else None
        )
        pairs = own_pairs(self.validation)
        sides = [row for pair in pairs for row in pair]
        return Outcome(
            variant=name,
            seed=seed,
            recipe=self.recipe(variant, scale),
            sample=scale.rows,
            rows=len(rows),
            epochs=scale.epochs,
            average_precision=round(average_precision(on_test, targets(self.test)), 4),
            macro_f1=round(decided_f1(on_test, self.test, rule, self.taxonomy), 4),
            validation_average_precision=round(average_precision(on_validation, targets(judged)), 4),
            validation_macro_f1=round(decided_f1(on_validation, judged, rule, self.taxonomy), 4),
            pairs_right=pairs_right(pairs, logits(sides), rule, self.taxonomy) if pairs else 0.0,
            agreement=agreement,
        )


def own_pairs(rows: Sequence[TrainingRow]) -> list[tuple[TrainingRow, TrainingRow]]:
    """The contrast pairs of the own corpus among the rows."""
    return [(rows[one], rows[other]) for one, other in contrast_partners(rows).items() if one < other]


def pairs_right(
    pairs: Sequence[tuple[TrainingRow, TrainingRow]], logits: NDArray[np.float32], rule: DecisionRule, taxonomy: Taxonomy
) -> float:
    """The share of pairs of which both sides are decided right on every label that differs; logits are `[2 * N, L]`."""
    rows = [row for pair in pairs for row in pair]
    wanted = targets(rows) > 0.5
    right = decided(logits, rows, rule, taxonomy) == wanted
    differs = wanted[0::2] != wanted[1::2]
    return float(((right[0::2] & right[1::2]) | ~differs).all(axis=1).mean())


def rows_of(pairs: Sequence[Pair]) -> list[TrainingRow]:
    """Both sides of each pair as rows without labels, English first."""
    return [
        TrainingRow(f"{at}#{language}", str(at), "", language, text, (), False)
        for at, pair in enumerate(pairs)
        for language, text in zip(LANGUAGES, pair, strict=True)
    ]


def agreement_of(pairs: Sequence[Pair], logits: NDArray[np.float32], rule: DecisionRule, taxonomy: Taxonomy) -> float:
    """Of the sides that get a label, the share whose other side gets it too; logits `[2 * N, L]` are those of `rows_of`."""
    found = decided(logits, rows_of(pairs), rule, taxonomy)
    return round(float(f1_score(found[0::2].ravel(), found[1::2].ravel(), zero_division=0.0)), 4)


def _shuffled(pool: Sequence[Path]) -> Iterator[str]:
    """The prepared passages of all files, in an order that is always the same."""
    texts = [str(row.get("text", "")) for path in pool for _, row in read_jsonl(path)]
    random.Random(1).shuffle(texts)
    return filter(None, (prepare_text(text).text for text in texts))


def _read(out: Path) -> list[Outcome]:
    return [Outcome(**row) for _, row in read_jsonl(out) if "recipe" in row] if out.is_file() else []

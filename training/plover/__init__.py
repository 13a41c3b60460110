"""A published yardstick: the binary PLOVER tasks on which ConfliBERT and ConfliBERT-Arabic were measured.

Parallel United Nations sentences, balanced, labelled for material conflict (`matconf`) and material cooperation (`matcoop`).
The protocol is that of Osorio et al. 2024 ("The Devil is in the Details"): one language at a time, a stratified random split
of 70/15/15 for each seed, F1 of the positive class on the last part. Our encoder is fine-tuned by the ordinary training
code with the two-line taxonomies beside this file; the middle part chooses the epoch, the threshold stays one half.

    rasid-train plover --data FOLDER --work runs/plover
"""

from __future__ import annotations

import copy
import hashlib
import json
import logging
import shutil
import statistics
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import torch
from sklearn.metrics import f1_score
from sklearn.model_selection import train_test_split

from models.errors import ExampleFormatError, InputError
from models.example import LabelledExample
from models.jsonl import read_rows
from models.taxonomy import Taxonomy, load_taxonomy
from training.base import load_base
from training.encoder import PassageEncoder, keep_vocabulary_rows
from training.finetune import FineTuneSettings, fine_tune, hash_rows, predict_logits
from training.losses import binary_cross_entropy
from training.rows import TrainingRow, targets, training_row
from training.vocabulary import trim_vocabulary

logger = logging.getLogger(__name__)

TASKS = ("matconf", "matcoop")
LANGUAGES = ("en", "ar")
# Best published variant on each task (ConfliBERT in English, ConfliBERT-Arabic in Arabic): mean F1 of ten seeds, last epoch.
PUBLISHED = {("matconf", "en"): 0.890, ("matconf", "ar"): 0.872, ("matcoop", "en"): 0.842, ("matcoop", "ar"): 0.820}
# Few rows: three epochs, and an average over about one where the ordinary setting spans several. Not tuned on test parts.
SETTINGS = FineTuneSettings(epochs=3, average_decay=0.99, epoch_by="macro_f1")


@dataclass(frozen=True, slots=True)
class Run:
    """One fine-tuning: F1 of the positive class on the test part, and what it was measured on."""

    task: str
    language: str
    seed: int
    f1: float
    epochs: int
    train: int
    test: int


@dataclass(frozen=True, slots=True)
class Comparison:
    """Our mean and standard deviation over the seeds beside the published mean."""

    task: str
    language: str
    seeds: int
    mean_f1: float
    deviation: float
    published_f1: float


def run_plover(
    folder: Path,
    work: Path,
    *,
    base: str,
    seeds: Sequence[int],
    settings: FineTuneSettings = SETTINGS,
    show_progress: bool = True,
) -> list[Comparison]:
    """Fine-tune once for each task, language and seed, and compare.

    Finished runs are kept in `work/runs.jsonl` and not done again; one that was stopped goes on from its checkpoint. Raises
    ExampleFormatError where `<task>.<language>.jsonl` is missing from `folder` or breaks the format, InputError where `work`
    holds runs of another base, other settings or other rows.
    """
    taxonomies = {task: load_taxonomy(Path(__file__).with_name(f"{task}.json")) for task in TASKS}
    data = {(task, lang): read_task(folder / f"{task}.{lang}.jsonl", taxonomies[task]) for task in TASKS for lang in LANGUAGES}
    recipe = hashlib.sha256(repr((base, asdict(settings), [hash_rows(rows) for rows in data.values()])).encode()).hexdigest()
    work.mkdir(parents=True, exist_ok=True)
    runs = _finished(work / "runs.jsonl", recipe)
    encoder = load_base(base)
    vocabulary = trim_vocabulary(encoder.tokenizer_json)
    keep_vocabulary_rows(encoder.model, vocabulary.kept_ids)
    for seed in seeds:
        for (task, language), rows in data.items():
            if (task, language, seed) in runs:
                continue
            torch.manual_seed(seed)
            model = PassageEncoder(copy.deepcopy(encoder.model), 1, dropout=settings.dropout)
            train, validation, test = split(rows, seed)
            checkpoints = work / f"{task}-{language}-{seed}"
            history = fine_tune(
                model,
                vocabulary.tokenizer(),
                train,
                validation,
                replace(settings, seed=seed),
                checkpoint_directory=checkpoints,
                loss=binary_cross_entropy,
                show_progress=show_progress,
            )
            texts = [row.text for row in test]
            logits = predict_logits(model, vocabulary.tokenizer(), texts, max_tokens=settings.max_tokens)
            f1 = float(f1_score(targets(test)[:, 0], logits[:, 0] > 0))
            run = runs[task, language, seed] = Run(task, language, seed, f1, len(history), len(train), len(test))
            with (work / "runs.jsonl").open("a", encoding="utf-8") as log:
                log.write(json.dumps({"recipe": recipe, **asdict(run)}) + "\n")
            logger.info("%s %s seed %d: F1 %.4f", task, language, seed, f1)
            shutil.rmtree(checkpoints)
    return [_compare(task, language, [runs[task, language, seed].f1 for seed in seeds]) for task, language in data]


def read_task(path: Path, taxonomy: Taxonomy) -> list[TrainingRow]:
    """The rows of one task file: JSON lines with `id`, `lang`, `text` and `label`, 0 or 1. Raises ExampleFormatError."""
    rows = []
    for number, entry in read_rows(path):
        try:
            labels = frozenset(taxonomy.label_ids) if {0: False, 1: True}[entry["label"]] else frozenset()
            example = LabelledExample(id=str(entry["id"]), text=entry["text"], labels=labels, lang=entry["lang"])
        except (KeyError, TypeError) as error:
            raise ExampleFormatError(
                f"{path}:{number}: expected a JSON object with id, lang, text and label 0 or 1 ({type(error).__name__})"
            ) from None
        rows.append(training_row(example, taxonomy))
    return rows


def split(rows: Sequence[TrainingRow], seed: int) -> tuple[list[TrainingRow], list[TrainingRow], list[TrainingRow]]:
    """Train, validation and test part: a random 70/15/15 split with the share of positives kept."""
    train, rest = train_test_split(list(rows), test_size=0.3, stratify=[row.targets for row in rows], random_state=seed)
    validation, test = train_test_split(rest, test_size=0.5, stratify=[row.targets for row in rest], random_state=seed)
    return train, validation, test


def _compare(task: str, language: str, f1s: Sequence[float]) -> Comparison:
    deviation = statistics.stdev(f1s) if len(f1s) > 1 else 0.0
    return Comparison(task, language, len(f1s), statistics.mean(f1s), deviation, PUBLISHED[task, language])


def _finished(log: Path, recipe: str) -> dict[tuple[str, str, int], Run]:
    runs: dict[tuple[str, str, int], Run] = {}
    if log.is_file():
        for line in log.read_text(encoding="utf-8").splitlines():
            entry = json.loads(line)
            if entry.pop("recipe") != recipe:
                raise InputError(f"{log} holds runs of another base, other settings or other rows; choose another work folder")
            run = Run(**entry)
            runs[run.task, run.language, run.seed] = run
    return runs

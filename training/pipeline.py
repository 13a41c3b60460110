"""From labelled files to a candidate bundle, in stages that leave their results in one work folder.

`fit` trains and writes the network and its papers; `export` quantises it and writes the ONNX file; `calibrate_bundle` fits the
decision rule to the exported model's own logits, checks parity with PyTorch and writes the manifest, which makes the folder
`bundle` a candidate. Each stage can run alone on the folder of the one before.
"""

from __future__ import annotations

import json
import logging
import random
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from tokenizers import Tokenizer
from transformers import AutoConfig, AutoModel

from models.bundle import FORMAT_VERSION, MODEL_FILES, Manifest, hash_file, load_bundle, write_manifest
from models.decision import UNDETERMINED, DecisionRule
from models.engine import OnnxEngine
from models.errors import InputError
from models.example import read_examples
from models.reference import BINS, bin_of
from models.taxonomy import Taxonomy, load_taxonomy
from training.articles import read_article_sentences, with_article_thresholds
from training.base import load_base
from training.batching import encode
from training.calibrate import calibrate, check_bands
from training.encoder import PassageEncoder, keep_vocabulary_rows
from training.finetune import EpochResult, FineTuneSettings, fine_tune, predict_logits
from training.graph import build_graph, encoder_weights
from training.noise import Noise
from training.parity import Parity, compare_logits
from training.quantise import choose_ranges
from training.rows import OWN_PREFIX, Dataset, TrainingRow, load_dataset, targets, training_row
from training.soup import mean_weights, write_network
from training.tables import read_table, write_table
from training.vocabulary import TrimmedVocabulary, prove_identical, trim_vocabulary

logger = logging.getLogger(__name__)

# What the export may cost (share of decisions, and macro F1), checked on validation rows.
MAX_FLIPPED = 0.01
MAX_F1_LOSS = 0.005
MIN_POSITIVES = 50
_START_SEED = 1  # of the head's first weights
CALIBRATION_TEXTS = 600  # training rows from which `quantise` takes as many tokens as it needs


@dataclass(frozen=True, slots=True, kw_only=True)
class DataSettings:
    """Which labelled data a run uses; see `training.rows.load_dataset`."""

    paths: tuple[Path, ...]
    annotations: tuple[Path, ...] = ()
    collections: tuple[Path, ...] = ()
    corrections: tuple[Path, ...] = ()
    pseudo: tuple[Path, ...] = ()
    exclude: tuple[Path, ...] = ()
    validation_paths: tuple[Path, ...] = ()
    validation_share: float = 0.12


def prepare_data(data: DataSettings, taxonomy: Taxonomy, work: Path) -> Dataset:
    """Read and split the labelled data; keep the rows and the taxonomy in the work folder for the later stages."""
    dataset = load_dataset(
        data.paths,
        taxonomy,
        annotations=data.annotations,
        collections=data.collections,
        corrections=data.corrections,
        pseudo=data.pseudo,
        exclude=data.exclude,
        validation_share=data.validation_share,
        validation_paths=data.validation_paths,
    )
    work.mkdir(parents=True, exist_ok=True)
    (work / "network.json").unlink(missing_ok=True)  # of a network fitted on what was here before
    for part, rows in (("train", dataset.train), ("validation", dataset.validation)):
        write_table(work / f"{part}.parquet", [asdict(row) for row in rows])
    _write_json(work / "taxonomy.json", taxonomy.model_dump(mode="json"))
    summary = {
        "digests": dataset.digests,
        "train": len(dataset.train),
        "validation": len(dataset.validation),
        "dropped_duplicates": dataset.dropped_duplicates,
        "excluded": dataset.excluded,
    }
    _write_json(work / "dataset.json", summary)
    logger.info("%d training rows, %d validation rows", len(dataset.train), len(dataset.validation))
    return dataset


def fit(
    dataset: Dataset,
    taxonomy: Taxonomy,
    settings: FineTuneSettings,
    work: Path,
    *,
    base: str,
    seeds: Sequence[int] = (1,),
    noise: Noise | None = None,
    show_progress: bool = True,
) -> list[list[EpochResult]]:
    """Fine-tune once a seed, average the weights, and leave the network in the work folder.

    All runs start from the same weights, whatever the seed, and differ in order and dropout alone, so that their average is a
    good network too (Wortsman et al. 2022, "Model soups"). Goes on from checkpoints that are there.
    """
    encoder = load_base(base)
    torch.manual_seed(_START_SEED)
    model = PassageEncoder(encoder.model, len(taxonomy.label_ids), dropout=settings.dropout)
    vocabulary = vocabulary_of(encoder.tokenizer_json, [row.text for row in dataset.train])
    keep_vocabulary_rows(model.encoder, vocabulary.kept_ids)
    tokenizer = vocabulary.tokenizer()
    start = {name: value.clone() for name, value in model.state_dict().items()}
    histories, networks = [], []
    for seed in seeds:
        model.load_state_dict(start)
        history = fine_tune(
            model,
            tokenizer,
            dataset.train,
            judged_rows(dataset.validation),
            replace(settings, seed=seed),
            checkpoint_directory=work / "checkpoints" / f"seed-{seed}",
            noise=noise,
            show_progress=show_progress,
        )
        histories.append(history)
        networks.append({name: value.clone() for name, value in model.state_dict().items()})
    write_network(mean_weights(networks), work)
    model.encoder.config.to_json_file(work / "config.json")
    (work / "tokenizer.json").write_text(json.dumps(vocabulary.tokenizer_json, ensure_ascii=False), encoding="utf-8")
    network = {
        "base_model": encoder.name,
        "base_licence": encoder.licence,
        "base_source": encoder.source,
        "vocabulary": len(vocabulary.kept_ids),
        "settings": {key: value for key, value in asdict(settings).items() if key != "seed"},
        "noise": asdict(noise) if noise else None,
        "seeds": list(seeds),
        "history": [[asdict(result) for result in history] for history in histories],
    }
    _write_json(work / "network.json", network)
    return histories


def export(work: Path, *, show_progress: bool = True) -> Path:
    """Quantise the fitted network on a sample of its training rows, write `bundle/model.onnx` and return the folder.

    Raises InputError where the stage before is missing.
    """
    network, taxonomy = fitted(work)
    tokenizer = Tokenizer.from_file(str(work / "tokenizer.json"))
    model = load_network(work, len(taxonomy.label_ids))
    train = read_rows(work / "train.parquet")
    sample = random.Random(0).sample(train, min(len(train), CALIBRATION_TEXTS))
    ranges = choose_ranges(
        model,
        tokenizer,
        [row.text for row in sample],
        max_tokens=int(network["settings"]["max_tokens"]),
        show_progress=show_progress,
    )
    bundle = work / "bundle"
    bundle.mkdir(exist_ok=True)
    (bundle / "manifest.json").unlink(missing_ok=True)
    onnx.save(build_graph(encoder_weights(model), ranges), bundle / "model.onnx")
    for file in ("tokenizer.json", "taxonomy.json"):
        (bundle / file).write_bytes((work / file).read_bytes())
    return bundle


def calibrate_bundle(
    work: Path,
    *,
    name: str,
    version: str,
    articles: Sequence[Path] = (),
    collections: Sequence[Path] = (),
    exclude: Sequence[Path] = (),
) -> Path:
    """Calibrate the exported model on the validation rows, check parity, write the manifest; return the bundle.

    `articles` are standoff labels of articles' sentences, whose texts are in `collections`; the thresholds for articles come
    from them, but for articles that overlap with the evaluation files `exclude`. Raises InputError where a stage before is
    missing or where the export costs more than MAX_FLIPPED or MAX_F1_LOSS.
    """
    network, taxonomy = fitted(work)
    bundle = work / "bundle"
    if not (bundle / "model.onnx").is_file():
        raise InputError(f"expected model.onnx in {bundle}; run rasid-train export first")
    tokenizer = Tokenizer.from_file(str(work / "tokenizer.json"))
    max_tokens = int(network["settings"]["max_tokens"])
    validation = judged_rows(read_rows(work / "validation.parquet"))
    texts, wanted, languages = [row.text for row in validation], targets(validation), decision_languages(validation, taxonomy)
    engine = OnnxEngine(bundle / "model.onnx")
    exported = engine.logits(encode(tokenizer, texts, max_tokens))
    doubted = float(network["settings"]["unsure_weight"])
    weights = np.array([doubted if row.unsure else 1.0 for row in validation])
    rule = calibrate(exported, wanted, languages, taxonomy, weights=weights)
    dataset = json.loads((work / "dataset.json").read_text(encoding="utf-8"))
    if articles:
        trained = read_rows(work / "train.parquet")
        found = read_article_sentences(articles, collections, trained, taxonomy, exclude=exclude)
        logger.info(
            "%d sentences of articles; %d articles left out: trained on or in evaluation files", len(found.rows), found.left_out
        )
        logits = engine.logits(encode(tokenizer, [row.text for row in found.rows], max_tokens))
        rule = with_article_thresholds(rule, found.rows, logits, taxonomy, unsure_weight=doubted)
        dataset["digests"] |= found.digests
    bands = check_bands(rule, exported, wanted, languages, taxonomy)
    reference = predict_logits(load_network(work, len(taxonomy.label_ids)), tokenizer, texts, max_tokens=max_tokens)
    parity = compare_logits(reference, exported, wanted, languages, rule, taxonomy)
    logger.info("parity on %d validation rows: %s", parity.texts, json.dumps(asdict(parity)))
    check_parity(parity, len(taxonomy.label_ids))
    _write_json(bundle / "decision.json", rule.model_dump(mode="json"))
    manifest = Manifest(
        format_version=FORMAT_VERSION,
        name=name,
        version=version,
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        taxonomy=f"{taxonomy.name} {taxonomy.version}",
        base_model=network["base_model"],
        base_licence=network["base_licence"],
        max_tokens=max_tokens,
        data=dataset["digests"],
        training={
            **{key: network[key] for key in ("base_source", "vocabulary", "settings", "noise", "seeds", "history")},
            **({"averaged": network["averaged"]} if "averaged" in network else {}),
            **{key: dataset[key] for key in ("train", "validation", "dropped_duplicates", "excluded")},
            "parity": asdict(parity),
            "review_band": [asdict(band) for band in bands],
            "reference": _histograms(rule, exported, languages, taxonomy),
        },
        files={file: hash_file(bundle / file) for file in MODEL_FILES},
    )
    write_manifest(bundle, manifest)
    return bundle


def _histograms(
    rule: DecisionRule, logits: NDArray[np.float32], languages: Sequence[str], taxonomy: Taxonomy
) -> dict[str, dict[str, list[int]]]:
    """Counts of the probabilities of the validation rows by tenth, for each language and label: what input is compared with."""
    found = {language: {label: [0] * BINS for label in taxonomy.label_ids} for language in sorted(set(languages))}
    for row, language in zip(rule.probabilities(logits, languages, taxonomy.label_ids), languages, strict=True):
        for label, probability in zip(taxonomy.label_ids, row, strict=True):
            found[language][label][bin_of(float(probability))] += 1
    return found


def judged_rows(rows: Sequence[TrainingRow]) -> list[TrainingRow]:
    """The validation rows that the choice of the epoch, calibration, thresholds and review band come from.

    Without the own corpus where the others have MIN_POSITIVES of every label: half of it is contrast pairs, far harder and far
    richer in labels than text as it comes, and what fits them fits nothing else.
    """
    others = [row for row in rows if not row.id.startswith(OWN_PREFIX)]
    enough = bool(others) and int(targets(others).sum(axis=0).min()) >= MIN_POSITIVES
    kept = others if enough else list(rows)
    logger.info("%d of %d validation rows are judged by", len(kept), len(rows))
    return kept


def fitted(work: Path) -> tuple[dict[str, Any], Taxonomy]:
    """What the fit stage left: the network's papers and the taxonomy. Raises InputError where it did not end."""
    for needed in ("network.json", "model.pt", "train.parquet", "validation.parquet", "taxonomy.json"):
        if not (work / needed).is_file():
            raise InputError(f"expected {needed} in {work}; run rasid-train fit first")
    network: dict[str, Any] = json.loads((work / "network.json").read_text(encoding="utf-8"))
    return network, load_taxonomy(work / "taxonomy.json")


def measure_parity(work: Path, data: Path) -> Parity:
    """Compare the fitted network of a work folder with its candidate bundle on a labelled file.

    Raises InputError where the work folder has no network, BundleError where it has no bundle, ExampleFormatError where
    the file breaks the format.
    """
    if not (work / "model.pt").is_file():
        raise InputError(f"expected model.pt in {work}; run rasid-train fit first")
    bundle = load_bundle(work / "bundle", require_seal=False)
    taxonomy, tokenizer = bundle.taxonomy, Tokenizer.from_file(str(work / "tokenizer.json"))
    rows = [row for row in (training_row(example, taxonomy) for example in read_examples(data, taxonomy)) if row.text]
    texts, max_tokens = [row.text for row in rows], bundle.manifest.max_tokens
    reference = predict_logits(load_network(work, len(taxonomy.label_ids)), tokenizer, texts, max_tokens=max_tokens)
    exported = OnnxEngine(bundle.model_path).logits(encode(tokenizer, texts, max_tokens))
    return compare_logits(reference, exported, targets(rows), decision_languages(rows, taxonomy), bundle.decision, taxonomy)


def decision_languages(rows: Sequence[TrainingRow], taxonomy: Taxonomy) -> list[str]:
    """The language each row is decided in: its own, or `und` where the taxonomy does not have it."""
    return [row.language if row.language in taxonomy.languages else UNDETERMINED for row in rows]


def check_parity(parity: Parity, label_count: int) -> None:
    """Raise InputError where the export costs more than it may; one decision, a large share of few rows, is let pass."""
    if round(parity.flipped * parity.texts * label_count) <= 1:
        return
    loss = parity.macro_f1_reference - parity.macro_f1_exported
    if parity.flipped > MAX_FLIPPED or loss > MAX_F1_LOSS:
        raise InputError(
            f"the int8 model flips {parity.flipped:.2%} of decisions (at most {MAX_FLIPPED:.0%}) and loses "
            f"{loss:.4f} macro F1 (at most {MAX_F1_LOSS}); train longer or on more rows"
        )


def load_network(work: Path, label_count: int) -> PassageEncoder:
    """The fitted network of a work folder, ready to predict."""
    config = AutoConfig.from_pretrained(work / "config.json")
    encoder = AutoModel.from_config(  # type: ignore[no-untyped-call]
        config, add_pooling_layer=False, attn_implementation="eager"
    )
    model = PassageEncoder(encoder, label_count)
    model.load_state_dict(torch.load(work / "model.pt", weights_only=True))
    return model.eval()


def read_rows(path: Path) -> list[TrainingRow]:
    """The rows that `prepare_data` left in a Parquet file."""
    return [TrainingRow(**{**row, "targets": tuple(row["targets"])}) for row in read_table(path)]


def vocabulary_of(tokenizer_json: dict[str, Any], texts: Sequence[str]) -> TrimmedVocabulary:
    """The base's vocabulary trimmed to the languages, checked on `texts`; whole where it is not of the Unigram type."""
    if tokenizer_json["model"]["type"] != "Unigram":
        logger.warning("a %s tokenizer is used untrimmed", tokenizer_json["model"]["type"])
        return TrimmedVocabulary(tokenizer_json, list(range(len(tokenizer_json["model"]["vocab"]))))
    trimmed = trim_vocabulary(tokenizer_json)
    same, outside = prove_identical(Tokenizer.from_str(json.dumps(tokenizer_json)), trimmed, texts)
    logger.info("vocabulary trimmed to %d; %d texts cut as before, %d out of scope", len(trimmed.kept_ids), same, outside)
    return trimmed


def _write_json(path: Path, content: Any) -> None:
    path.write_text(json.dumps(content, ensure_ascii=False, indent=2) + "\n", encoding="utf-8")

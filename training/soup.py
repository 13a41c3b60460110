"""A soup: the average of the weights of networks that were fitted apart from the same start.

Networks of one base that differ in data, epochs or order tend to lie in one basin of the loss; the mean of their weights is
often better than each, at the cost of one (Wortsman et al. 2022, "Model soups: averaging weights of multiple fine-tuned models
improves accuracy without increasing inference time").
"""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor

from models.errors import InputError
from training.tables import read_table, write_table

logger = logging.getLogger(__name__)

# The same in all networks of one base and vocabulary, and must stay so to the last bit: it goes to the bundle in 4-bit blocks.
FROZEN = "encoder.embeddings.word_embeddings.weight"
_SAME_FILES = ("config.json", "tokenizer.json", "taxonomy.json")
_FITTED_FILES = ("network.json", "model.pt", "dataset.json", "train.parquet", "validation.parquet")


def mean_weights(networks: Sequence[Mapping[str, Tensor]]) -> dict[str, Tensor]:
    """The mean of state dictionaries with the same names and shapes; what is frozen or no float is that of the first."""
    first = networks[0]
    return {
        name: sum((network[name] for network in networks), torch.zeros_like(value)) / len(networks)
        if value.is_floating_point() and name != FROZEN
        else value
        for name, value in first.items()
    }


def write_network(weights: Mapping[str, Tensor], work: Path) -> None:
    """Write the weights of a network into a work folder; an exported model of other weights there is removed."""
    (work / "bundle" / "model.onnx").unlink(missing_ok=True)
    torch.save(dict(weights), work / "model.pt")


def average_networks(parts: Sequence[Path], work: Path) -> Path:
    """Average the fitted networks of work folders into the folder `work`, from which `export` and `calibrate` go on.

    Its training rows are those of all parts; its validation rows those of all parts of whose documents none was trained on.
    Where parts differ on a text's labels, the first counts. Raises InputError where a part was not fitted, or has another base,
    vocabulary or taxonomy than the first.
    """
    if len(parts) < 2:
        raise InputError(f"expected at least two work folders to average, got {len(parts)}")
    if work.resolve() in {part.resolve() for part in parts}:
        raise InputError(f"{work} is one of the folders to average; choose another --work")
    _check(parts)
    papers = [json.loads((part / "network.json").read_text(encoding="utf-8")) for part in parts]
    summaries = [json.loads((part / "dataset.json").read_text(encoding="utf-8")) for part in parts]
    train = _rows([part / "train.parquet" for part in parts])
    documents = {row["document"] for row in train.values()}
    validation = {
        text: row
        for text, row in _rows([part / "validation.parquet" for part in parts]).items()
        if row["document"] not in documents and text not in train
    }
    if not validation:
        raise InputError("expected validation rows that no part was trained on, got none; fit the parts with one split")
    weights = [torch.load(part / "model.pt", weights_only=True) for part in parts]
    if any(not torch.equal(other[FROZEN], weights[0][FROZEN]) for other in weights[1:]):
        raise InputError("the networks have different word embeddings; average networks that were fitted from one base")
    work.mkdir(parents=True, exist_ok=True)
    (work / "network.json").unlink(missing_ok=True)
    write_network(mean_weights(weights), work)
    for file in _SAME_FILES:
        (work / file).write_bytes((parts[0] / file).read_bytes())
    for name, rows in (("train", train), ("validation", validation)):
        write_table(work / f"{name}.parquet", list(rows.values()))
    told = {
        **papers[0],
        "seeds": [seed for paper in papers for seed in paper["seeds"]],
        "history": [run for paper in papers for run in paper["history"]],
        "averaged": [
            {
                "name": part.name,
                "train": summary["train"],
                **{key: paper.get(key) for key in ("settings", "noise", "seeds")},
                "data": sorted(summary["digests"]),
            }
            for part, paper, summary in zip(parts, papers, summaries, strict=True)
        ],
    }
    digests: dict[str, str] = {}
    for summary in reversed(summaries):
        digests |= summary["digests"]
    dataset = {
        "digests": digests,
        "train": len(train),
        "validation": len(validation),
        **{key: max(summary[key] for summary in summaries) for key in ("dropped_duplicates", "excluded")},
    }
    for file, content in (("network.json", told), ("dataset.json", dataset)):
        (work / file).write_text(json.dumps(content, ensure_ascii=False, indent=2) + "\n", encoding="utf-8")
    logger.info("%d networks averaged; %d training rows, %d validation rows", len(parts), len(train), len(validation))
    return work


def _rows(paths: Sequence[Path]) -> dict[str, dict[str, object]]:
    """The rows of Parquet files by their text, the first of each."""
    found: dict[str, dict[str, object]] = {}
    for path in paths:
        for row in read_table(path):
            found.setdefault(row["text"], row)
    return found


def _check(parts: Sequence[Path]) -> None:
    for part in parts:
        for file in (*_SAME_FILES, *_FITTED_FILES):
            if not (part / file).is_file():
                raise InputError(f"expected {file} in {part}; run rasid-train fit --work {part} first")
        for file in _SAME_FILES:
            if (part / file).read_bytes() != (parts[0] / file).read_bytes():
                raise InputError(
                    f"{part / file} differs from {parts[0] / file}; only networks of one base, vocabulary and taxonomy "
                    "can be averaged"
                )

"""The model card repeats what was measured on articles and by the suites."""

from __future__ import annotations

from typing import Any

from models.classifier import Classifier
from models.taxonomy import Taxonomy
from training.card import model_card

FIGURE = {"macro": {"value": 0.8123, "interval": [0.7, 0.9], "support": 9}}
SLICE = {"name": "all", "texts": 3, "labels": {}, "averages": {"macro": {"f1": 0.5, "interval": [0.4, 0.6]}}}


def test_articles_suites_bands_and_noise_are_told_where_they_were_measured(tiny: Classifier, taxonomy: Taxonomy) -> None:
    manifest = tiny.bundle.manifest
    report: dict[str, Any] = {"data": "dev.jsonl", "data_digest": "0" * 64, "slices": [SLICE]}
    bare = model_card(manifest, taxonomy, report, size_bytes=1)
    assert "evidence the probability" not in bare
    report["documents"] = {
        "data": "docs.jsonl",
        "articles": 7,
        "sentences": 70,
        "document_f1": FIGURE,
        "sentence_f1": FIGURE,
        "evidence_f1": FIGURE,
        "faithfulness": {"drop_without_evidence": 0.5, "drop_without_others": 0.01, "cases": 6},
    }
    report["suites"] = [
        {
            "name": "pairs",
            "title": "Minimal pairs",
            "measure": "share right",
            "cells": {"en": {"value": 0.9, "interval": [0.8, 1.0], "items": 60}},
        }
    ]
    band = {"language": "en", "label": "displacement", "rows": 100, "yes": 20, "yes_right": 19, "yes_bound": 0.82}
    noise = {"swapped_names": 0.5}
    training = {"review_band": [{**band, "no": 70, "no_right": 69}], "noise": noise}
    told = manifest.model_copy(update={"training": {**manifest.training, **training}})
    full = model_card(told, taxonomy, report, size_bytes=1)
    assert "| sentences given as evidence | 0.812 | 0.700-0.900 |" in full
    assert "falls by 0.500" in full
    assert "| en | 0.900 | 0.800-1.000 | 60 |" in full
    assert "| en | displacement | 19 of 20 | 0.820 | 69 of 70 | 10.0% |" in full
    assert "swapped_names 0.5" in full


def test_a_card_tells_the_networks_whose_weights_were_averaged(tiny: Classifier, taxonomy: Taxonomy) -> None:
    manifest = tiny.bundle.manifest
    report: dict[str, Any] = {"data": "dev.jsonl", "data_digest": "0" * 64, "slices": [SLICE]}
    part = {"train": 120, "settings": {"epochs": 2, "seed": 1}, "seeds": [1], "data": ["a.jsonl", "b.jsonl"]}
    averaged = [{**part, "name": "first", "noise": {"spelling": 0.2}}, {**part, "name": "second", "noise": None, "train": 80}]
    told = manifest.model_copy(update={"training": {**manifest.training, "averaged": averaged}})
    card = model_card(told, taxonomy, report, size_bytes=1)
    assert "- `first`: 120 passages of 2 files; seeds 1; epochs 2, noise spelling 0.2\n" in card
    assert "- `second`: 80 passages of 2 files; seeds 1; epochs 2\n" in card

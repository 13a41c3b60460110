"""Shared fixtures: a tiny but real bundle, built once per session, and the released one."""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from hypothesis import settings
from tokenizers import Tokenizer
from transformers import BertConfig, BertModel

from models.bundle import FORMAT_VERSION, MODEL_FILES, Manifest, hash_file, write_manifest
from models.classifier import Classifier
from models.decision import DecisionRule, LabelRule
from models.taxonomy import Taxonomy, load_taxonomy
from training.encoder import PassageEncoder
from training.graph import build_graph, encoder_weights
from training.quantise import choose_ranges

settings.register_profile("rasid", deadline=None)  # how long an example takes is the machine's affair
settings.load_profile("rasid")
LOOPBACK = "http://127.0.0.1"
LETTERS = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789.,;:!?'\"()-%ابتثجحخدذرزسشصضطظعغفقكلمنهويىةءآأإؤئ،؛؟"
WORDS = ["▁the", "▁village", "▁said", "▁fled", "▁في", "▁قال", "▁القرية", "ing", "▁الم"]
TEXTS = [
    "The governor said that forty families fled the village.",
    "قال المحافظ إن أربعين عائلة نزحت من القرية.",
    "Gunmen burned the homes of Druze families. The ministry denied it! Who will answer for it?",
    "أحرق مسلحون بيوت عائلات درزية، ونفت الوزارة ذلك. من يحاسبهم؟",
    "Rain.",
]


def tiny_tokenizer_json() -> dict:
    pieces = [["<s>", 0.0], ["<pad>", 0.0], ["</s>", 0.0], ["<unk>", 0.0], ["▁", -2.0]]
    pieces += [[word, -4.0 - i / 10] for i, word in enumerate(WORDS)]
    pieces += [[char, -6.0 - i / 100] for i, char in enumerate(LETTERS)]
    pieces += [["ж", -9.0], ["▁שלום", -9.5], ["中", -9.9]]
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [
            {
                "id": i,
                "content": c,
                "single_word": False,
                "lstrip": False,
                "rstrip": False,
                "normalized": False,
                "special": True,
            }
            for i, c in enumerate(["<s>", "<pad>", "</s>", "<unk>"])
        ],
        "normalizer": None,
        "pre_tokenizer": {"type": "Metaspace", "replacement": "▁", "prepend_scheme": "always", "split": True},
        "post_processor": {
            "type": "TemplateProcessing",
            "single": [
                {"SpecialToken": {"id": "<s>", "type_id": 0}},
                {"Sequence": {"id": "A", "type_id": 0}},
                {"SpecialToken": {"id": "</s>", "type_id": 0}},
            ],
            "pair": [{"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 1}}],
            "special_tokens": {
                "<s>": {"id": "<s>", "ids": [0], "tokens": ["<s>"]},
                "</s>": {"id": "</s>", "ids": [2], "tokens": ["</s>"]},
            },
        },
        "decoder": None,
        "model": {"type": "Unigram", "unk_id": 3, "vocab": pieces, "byte_fallback": False},
    }


def tiny_bert(vocabulary: int, *, layers: int = 2, hidden: int = 32) -> BertModel:
    torch.manual_seed(5)
    config = BertConfig(
        vocab_size=vocabulary,
        hidden_size=hidden,
        num_hidden_layers=layers,
        num_attention_heads=2,
        intermediate_size=2 * hidden,
        max_position_embeddings=64,
        pad_token_id=1,
        initializer_range=0.3,
    )
    return BertModel(config, add_pooling_layer=False).eval()


@pytest.fixture(scope="session", autouse=True)
def _state_of_its_own(tmp_path_factory: pytest.TempPathFactory) -> None:
    for name in [name for name in os.environ if name.startswith("RASID_") and name != "RASID_CONTRACT_EXAMPLES"]:
        del os.environ[name]  # of whoever runs the tests
    os.environ["RASID_JOBS"] = str(tmp_path_factory.mktemp("state") / "jobs")


@pytest.fixture(scope="session")
def taxonomy() -> Taxonomy:
    return load_taxonomy()


@pytest.fixture(scope="session")
def tiny_model() -> PassageEncoder:
    model = PassageEncoder(tiny_bert(len(tiny_tokenizer_json()["model"]["vocab"])), 4)
    with torch.no_grad():
        model.head.weight.normal_(std=2.0)
    return model.eval()


@pytest.fixture(scope="session")
def tiny_tokenizer() -> Tokenizer:
    return Tokenizer.from_str(json.dumps(tiny_tokenizer_json()))


@pytest.fixture(scope="session")
def tiny_bundle(tmp_path_factory: pytest.TempPathFactory, tiny_model, tiny_tokenizer, taxonomy) -> Path:
    """A candidate bundle with int8 products, made by the same code as a real one."""
    path = tmp_path_factory.mktemp("tiny") / "bundle"
    path.mkdir()
    ranges = choose_ranges(tiny_model, tiny_tokenizer, TEXTS, max_tokens=48, show_progress=False)
    onnx.save(build_graph(encoder_weights(tiny_model), ranges), path / "model.onnx")
    (path / "tokenizer.json").write_text(json.dumps(tiny_tokenizer_json(), ensure_ascii=False), encoding="utf-8")
    (path / "taxonomy.json").write_text(taxonomy.model_dump_json(), encoding="utf-8")
    rule = LabelRule(slope=1.0, intercept=0.0, threshold=0.5, review_low=0.4, review_high=0.6)
    rules = {language: dict.fromkeys(taxonomy.label_ids, rule) for language in (*taxonomy.languages, "und")}
    (path / "decision.json").write_text(DecisionRule(rules=rules).model_dump_json(), encoding="utf-8")
    write_manifest(
        path,
        Manifest(
            format_version=FORMAT_VERSION,
            name="tiny",
            version="0",
            created="2026-01-01T00:00:00+00:00",
            taxonomy=f"{taxonomy.name} {taxonomy.version}",
            base_model="random",
            base_licence="none",
            max_tokens=48,
            data={"ar-own.jsonl": "0" * 64},
            training={
                "base_source": "random",
                "vocabulary": 100,
                "settings": {"seed": 5},
                "seeds": [5],
                "history": [],
                "train": 1,
                "validation": 1,
                "dropped_duplicates": 0,
                "parity": {
                    "texts": 1,
                    "flipped": 0.0,
                    "macro_f1_reference": 0.5,
                    "macro_f1_exported": 0.5,
                    "largest_probability_difference": 0.0,
                },
            },
            files={name: hash_file(path / name) for name in MODEL_FILES},
        ),
    )
    return path


@pytest.fixture(scope="session")
def tiny(tiny_bundle: Path) -> Classifier:
    return Classifier.load(tiny_bundle, threads=1, require_seal=False)


@pytest.fixture(scope="session")
def released() -> Classifier:
    """The bundle that Rasid ships."""
    return Classifier.load(threads=2)


@pytest.fixture
def generator() -> np.random.Generator:
    return np.random.default_rng(3)

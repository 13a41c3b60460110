"""The project's own corpus and annotations keep their promises."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import pytest

from models.example import LabelledExample, read_examples
from models.language import detect_language
from models.taxonomy import load_taxonomy
from models.text import prepare_text

TRAINING = Path(__file__).parents[2] / "training"
FILES = sorted((TRAINING / "corpus").glob("*.jsonl"))
ANNOTATIONS = sorted((TRAINING / "annotations").glob("*.jsonl"))
TAXONOMY = load_taxonomy()
REGISTERS = [
    "news",
    "headline",
    "communique",
    "report",
    "post",
    "testimony",
    "speech",
    "court",
    "analysis",
    "encyclopaedic",
    "notice",
]
DIALECTS = ["msa", "levantine", "iraqi", "egyptian", "sudanese", "gulf", "yemeni", "maghrebi", "libyan"]


@pytest.fixture(scope="module")
def passages() -> list[LabelledExample]:
    return [example for path in FILES for example in read_examples(path, TAXONOMY)]


def of(passages: list[LabelledExample], language: str) -> list[LabelledExample]:
    return [passage for passage in passages if passage.lang == language]


@pytest.mark.parametrize("language", ["ar", "en"])
def test_each_language_has_enough_and_varied_passages(passages: list[LabelledExample], language: str) -> None:
    own = of(passages, language)
    assert len(own) >= 600
    assert sum(len(passage.labels) <= 1 for passage in own) >= len(own) / 2
    assert sum(not passage.labels for passage in own) >= len(own) / 5
    counts = Counter(label for passage in own for label in passage.labels)
    assert min(counts[label] for label in TAXONOMY.label_ids) >= 150
    lengths = sorted(len(passage.text.split()) for passage in own)
    assert lengths[len(own) // 20] <= 14
    assert lengths[-len(own) // 10] >= 55
    assert lengths[-1] <= 100


def test_every_passage_states_language_register_and_dialect(passages: list[LabelledExample]) -> None:
    for passage in passages:
        assert detect_language(passage.text).language == passage.lang, passage.id
        assert passage.extra["register"] in REGISTERS, passage.id
        assert passage.extra["dialect"] in (DIALECTS if passage.lang == "ar" else [""]), passage.id
        assert passage.id.startswith(f"own-{passage.lang}-"), passage.id


def test_arabic_is_heard_in_several_voices(passages: list[LabelledExample]) -> None:
    heard = Counter(passage.extra["dialect"] for passage in of(passages, "ar"))
    assert all(heard[dialect] >= 15 for dialect in ("levantine", "iraqi", "egyptian", "sudanese")), heard


def test_no_passage_repeats_another_but_for_minimal_pairs(passages: list[LabelledExample]) -> None:
    texts = Counter(prepare_text(passage.text).text.lower() for passage in passages)
    assert max(texts.values()) == 1
    first: dict[str, LabelledExample] = {}
    for passage in passages:
        words = prepare_text(passage.text).text.lower().split()
        for start in range(len(words) - 8):
            other = first.setdefault(" ".join(words[start : start + 9]), passage)
            assert other.document == passage.document, f"{other.id} and {passage.id} share nine words"


@pytest.mark.parametrize("path", ANNOTATIONS, ids=lambda path: path.name)
def test_annotations_hold_labels_and_no_text(path: Path) -> None:
    rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    for row in rows:
        assert set(row) == {"id", "lang", "sha256", "labels", "unsure", "chosen"}
        assert len(row["sha256"]) == 64
        TAXONOMY.check_labels(row["labels"])
    assert len({row["sha256"] for row in rows}) == len(rows)

"""The project's own corpus and annotations keep their promises."""

from __future__ import annotations

import json
import re
from collections import Counter
from pathlib import Path

import pytest
from sklearn.feature_extraction.text import TfidfVectorizer

from models.example import LabelledExample, read_examples
from models.language import detect_language
from models.taxonomy import load_taxonomy
from models.text import prepare_text

TRAINING = Path(__file__).parents[2] / "training"
FILES = sorted((TRAINING / "corpus").glob("*.jsonl"))
TRANSLATIONS = sorted((TRAINING / "corpus" / "translations").glob("*.jsonl"))
STANDOFF = sorted((TRAINING / "annotations").rglob("*.jsonl")) + sorted((TRAINING / "corpus" / "second").glob("*.jsonl"))
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
    "radio",
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
    assert len(own) >= 2_500
    assert sum(len(passage.labels) <= 1 for passage in own) >= len(own) / 2
    assert sum(not passage.labels for passage in own) >= len(own) / 5
    counts = Counter(label for passage in own for label in passage.labels)
    assert min(counts[label] for label in TAXONOMY.label_ids) >= 500
    lengths = sorted(len(passage.text.split()) for passage in own)
    assert lengths[len(own) // 20] <= 14
    assert lengths[-len(own) // 10] >= 48
    assert lengths[-1] <= 100


def test_every_passage_states_language_register_and_dialect(passages: list[LabelledExample]) -> None:
    for passage in passages:
        assert detect_language(passage.text).language in (passage.lang, "und"), passage.id  # Nigerian Pidgin is undetermined
        assert passage.extra["register"] in REGISTERS, passage.id
        assert passage.extra["dialect"] in (DIALECTS if passage.lang == "ar" else [""]), passage.id
        assert passage.id.startswith(f"own-{passage.lang}-"), passage.id


@pytest.mark.parametrize("language", ["ar", "en"])
def test_every_rule_of_the_codebook_has_its_cases(passages: list[LabelledExample], language: str) -> None:
    ruled = [passage for passage in of(passages, language) if passage.extra.get("rule")]
    counts = Counter(str(passage.extra["rule"]) for passage in ruled)
    assert len(counts) >= 32
    assert min(counts.values()) >= 25, counts
    for passage in ruled:  # a rule is named by its label and whether the case carries it: sv+motive, di-camp-name
        short, carries = str(passage.extra["rule"])[:2], str(passage.extra["rule"])[2]
        label = {"sv": "sectarian_violence", "di": "displacement", "os": "official_statement", "ac": "accountability_call"}[
            short
        ]
        assert (label in passage.labels) == (carries == "+"), passage.id


def test_arabic_is_heard_in_several_voices(passages: list[LabelledExample]) -> None:
    heard = Counter(passage.extra["dialect"] for passage in of(passages, "ar"))
    assert all(heard[dialect] >= 50 for dialect in DIALECTS), heard


def test_no_passage_repeats_another_but_for_minimal_pairs(passages: list[LabelledExample]) -> None:
    texts = Counter(prepare_text(passage.text).text.lower() for passage in passages)
    assert max(texts.values()) == 1
    first: dict[str, LabelledExample] = {}
    for passage in passages:
        words = prepare_text(passage.text).text.lower().split()
        for start in range(len(words) - 8):
            other = first.setdefault(" ".join(words[start : start + 9]), passage)
            assert other.document == passage.document, f"{other.id} and {passage.id} share nine words"


def test_no_passage_is_a_rewording_of_another(passages: list[LabelledExample]) -> None:
    texts = [prepare_text(passage.text).text.lower() for passage in passages]
    vectors = TfidfVectorizer(analyzer="char_wb", ngram_range=(4, 4), sublinear_tf=True).fit_transform(texts)
    alike = (vectors @ vectors.T).tocoo()
    for row, column, cosine in zip(alike.row, alike.col, alike.data, strict=True):
        if row < column and cosine > 0.6:  # pairs made on purpose share a document, and with it their side of the split
            one, other = passages[row], passages[column]
            assert one.document == other.document, f"{one.id} and {other.id} are {cosine:.0%} alike"


def test_all_standoff_files_are_looked_at() -> None:
    folders = {path.parent.name for path in STANDOFF}
    assert folders == {"annotations", "articles", "corrections", "second"}
    assert len(STANDOFF) > 60


@pytest.mark.parametrize("path", STANDOFF, ids=lambda path: f"{path.parent.parent.name}-{path.parent.name}-{path.name}")
def test_annotations_hold_labels_and_no_text(path: Path) -> None:
    rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    assert rows
    for row in rows:
        assert set(row) - {"chosen"} == {"id", "lang", "sha256", "labels", "unsure"}
        assert re.fullmatch("[0-9a-f]{64}", row["sha256"])
        assert len(row.get("chosen", "")) < 30
        TAXONOMY.check_labels(row["labels"])
    assert len({row["sha256"] for row in rows}) == len(rows)


def test_translations_are_of_the_corpus_and_in_the_other_language(passages: list[LabelledExample]) -> None:
    originals = {passage.id: passage for passage in passages}
    translations = [example for path in TRANSLATIONS for example in read_examples(path, TAXONOMY)]
    assert Counter(one.lang for one in translations) == {"ar": 2640, "en": 1440}
    assert len({one.id for one in translations}) == len(translations)
    for one in translations:
        original = originals[one.id]
        assert {one.lang, original.lang} == {"ar", "en"}, one.id
        assert one.labels == original.labels, one.id
        assert detect_language(one.text).language == one.lang, one.id

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from eval.baselines import Baseline, lexicon_decisions, majority_decisions, run_baselines
from models.errors import InputError
from models.example import LabelledExample
from models.taxonomy import Taxonomy

LABELS = ("sectarian_violence", "displacement", "official_statement", "accountability_call")


def example(index: int, text: str, *labels: str, lang: str = "en") -> LabelledExample:
    return LabelledExample(f"d{index}#0", text, frozenset(labels), lang)


def test_the_majority_is_taken_by_language_and_over_all_where_a_language_is_new() -> None:
    wanted = np.array([[True], [True], [True], [False], [False]])
    train = np.array(["en", "en", "en", "ar", "ar"])
    found = majority_decisions(wanted, train, np.array(["ar", "en", "fr"]))
    assert found[:, 0].tolist() == [False, True, True]


@pytest.mark.parametrize(
    ("text", "labels"),
    [
        ("Gunmen killed six worshippers at a church.", {"sectarian_violence"}),
        ("Gunmen killed six taxi drivers.", set()),
        ("Thousands were displaced by the shelling", {"displacement"}),
        ("The ministry announced a new road.", {"official_statement"}),
        ("Families demanded a trial for the officers", {"accountability_call"}),
        ("The worker quietly painted a wall.", set()),
        ("قتل مسلحون ستة من المصلين في الكنيسة", {"sectarian_violence"}),
        ("ونزحت مئات العائلات من القرية", {"displacement"}),
        ("وأعلنت الوزارة شق طريق جديد", {"official_statement"}),
        ("طالب الأهالي بالتحقيق في مقتل الشبان", {"accountability_call"}),
        ("انخفض سعر الطماطم في السوق", set()),
    ],
)
def test_the_lexicon_finds_what_an_analyst_would_search_for(text: str, labels: set[str]) -> None:
    [decided] = lexicon_decisions([text], LABELS)
    assert {label for label, yes in zip(LABELS, decided, strict=True) if yes} == labels


def test_the_lexicon_knows_the_taxonomy_s_labels(taxonomy: Taxonomy) -> None:
    assert taxonomy.label_ids == LABELS
    assert not lexicon_decisions([""], LABELS).any()


def test_trained_baselines_learn_what_can_be_learnt() -> None:
    words = ["fled", "said", "quiet", "rain"]
    train = [
        example(i, f"they {words[i % 4]} near the river number {i}", *(["displacement"] if i % 4 == 0 else []))
        for i in range(120)
    ]
    new = [example(200, "they fled near the bridge", "displacement"), example(201, "they said near the bridge")]
    found = {one.name: one for one in run_baselines(new, train, LABELS)}
    assert list(found) == ["majority", "keyword lexicon", "TF-IDF, logistic regression"]
    assert found["TF-IDF, logistic regression"].decided[:, 1].tolist() == [True, False]
    assert not found["TF-IDF, logistic regression"].decided[:, 0].any()  # never seen in training, never decided
    assert not found["majority"].decided.any()


def test_other_taxonomies_have_no_lexicon_and_no_training_no_trained_baseline() -> None:
    assert run_baselines([example(0, "a")], [], ("matconf",)) == []
    [only] = run_baselines([example(0, "a")], [], LABELS)
    assert isinstance(only, Baseline)
    assert only.name == "keyword lexicon"


def test_a_missing_base_encoder_is_told_with_the_command_that_makes_it(tmp_path: Path) -> None:
    rows = [example(i, f"word{i % 2} {i}", *(["displacement"] if i % 2 else [])) for i in range(12)]
    with pytest.raises(InputError, match="rasid-train reference"):
        run_baselines(rows, rows, LABELS, base_encoder=tmp_path)

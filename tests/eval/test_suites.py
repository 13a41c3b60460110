"""The suites: the texts are sound, and each suite tells a good model from a bad one."""

from __future__ import annotations

import json
import random
import re
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from eval.suites import FOLDER, check_taxonomy, read_items
from eval.suites.dialects import run_dialects
from eval.suites.disturb import DISTURBANCES
from eval.suites.fairness import filled, read_names, run_fairness
from eval.suites.pairs import SIDES, read_pairs, run_pairs
from eval.suites.robustness import disturbed_items, run_robustness
from models.classifier import Classifier
from models.errors import InputError
from models.example import LabelledExample
from models.prediction import LabelPrediction, Prediction
from models.taxonomy import Taxonomy, load_taxonomy
from models.text import prepare_text

LABELS = load_taxonomy().label_ids
CORPUS = Path(__file__).parents[2] / "training" / "corpus"
SUITES = (run_pairs, run_robustness, run_dialects, run_fairness)


def all_texts() -> list[tuple[str, str]]:
    """The id and text of everything that the suites ask, fairness slots filled with one member."""
    found = [(f"{pair['id']}/{side}", pair[side]["text"]) for pair in read_pairs() for side in SIDES]
    for name, fields in (("passages", ["text"]), ("variants", ["text", "variant"]), ("dialects", ["text", "standard"])):
        found += [(item["id"], item[field]) for item in read_items(f"{name}.jsonl") for field in fields]
    names = read_names()
    return found + [(i["id"], next(iter(filled(i, names[i["lang"]])[0].values()))) for i in read_items("fairness.jsonl")]


def words(text: str) -> list[str]:
    return re.findall(r"\w+", prepare_text(text).text.lower())


def test_every_label_has_fifty_pairs_or_more_in_each_language_and_four_or_more_of_each_rule() -> None:
    pairs = read_pairs()
    assert min(Counter((pair["lang"], pair["label"]) for pair in pairs).values()) >= 50
    assert len({(pair["lang"], pair["label"]) for pair in pairs}) == 8
    assert len({pair["id"] for pair in pairs}) == len(pairs)
    assert min(Counter((pair["label"], pair["rule"]) for pair in pairs).values()) >= 4


def test_the_sides_of_a_pair_differ_in_the_label_and_in_little_else() -> None:
    for pair in read_pairs():
        assert pair["label"] in pair["with"]["labels"], pair["id"]
        assert pair["label"] not in pair["without"]["labels"], pair["id"]
        sides = [Counter(words(pair[side]["text"])) for side in SIDES]
        shared = sum((sides[0] & sides[1]).values())
        assert shared >= 0.4 * max(sum(side.values()) for side in sides), pair["id"]


def test_all_labels_exist_and_no_label_is_missing_from_a_file(taxonomy: Taxonomy) -> None:
    for name in ("passages", "variants", "dialects", "fairness"):
        items = list(read_items(f"{name}.jsonl"))
        for item in items:
            taxonomy.check_labels(item["labels"])
        assert len({item["id"] for item in items}) == len(items)
        counts = Counter(label for item in items for label in item["labels"] or ["none"])
        assert min(counts[label] for label in (*LABELS, "none")) >= 10, (name, counts)


def test_no_text_stands_twice_nor_shares_nine_words_with_the_training_corpus() -> None:
    texts = all_texts()
    assert max(Counter(text for _, text in texts).values()) == 1
    corpus = [
        json.loads(line)
        for path in (*CORPUS.glob("*.jsonl"), *CORPUS.glob("translations/*.jsonl"))
        for line in path.read_text(encoding="utf-8").splitlines()
    ]
    assert len(corpus) > 1_000
    trained = set()
    for row in corpus:
        own = words(row["text"])
        trained.update(" ".join(own[i : i + 9]) for i in range(len(own) - 8))
    for identity, text in texts:
        own = words(text)
        shared = [" ".join(own[i : i + 9]) for i in range(len(own) - 8)]
        assert not trained.intersection(shared), identity


def test_dialects_are_many_and_each_has_items_enough() -> None:
    counts = Counter(item["dialect"] for item in read_items("dialects.jsonl"))
    assert set(counts) == {"levantine", "iraqi", "egyptian", "sudanese", "libyan", "gulf", "yemeni", "maghrebi"}
    assert min(counts.values()) >= 25


def test_every_slot_is_filled_for_every_member_and_only_names_change() -> None:
    names = read_names()
    for item in read_items("fairness.jsonl"):
        by_member, by_day = filled(item, names[item["lang"]])
        assert len(set(by_member.values())) == len(by_member) == len(names[item["lang"]][item["swap"]]), item["id"]
        assert len(set(by_day)) == 7
        assert not any("{" in text for text in (*by_member.values(), *by_day))
    members = set(names["en"]["community"])
    assert {"sunni", "shiite", "alawite", "druze", "christian", "yazidi", "kurd", "jew", "muslim"} <= members
    for kind in ("community", "country", "party"):
        assert set(names["en"][kind]) == set(names["ar"][kind])


SAMPLE = {
    "en": "Gunmen from the eastern quarter burned the homes of forty families, the governor's office said on Monday, and "
    "called it murder.",
    "ar": "قال مكتب المحافظ إن مسلحين من الحي الشرقي أحرقوا بيوت أربعين عائلة يوم الاثنين، وإن إحدى الأسر فقدت أربعة من "
    "أبنائها الذين بقوا في القرية على المنحدر.",
}


@pytest.mark.parametrize(("language", "kind"), [(lang, kind) for lang, found in DISTURBANCES.items() for kind in found])
def test_a_disturbance_changes_the_text_the_same_way_each_time_and_keeps_most_of_it(language: str, kind: str) -> None:
    disturb, text = DISTURBANCES[language][kind], SAMPLE[language]
    disturbed = [disturb(text, random.Random(seed)) for seed in range(20)]
    assert disturb(text, random.Random(0)) == disturbed[0]
    assert any(one != text for one in disturbed)
    plain = re.sub(r"\W", "", prepare_text(text).text).lower()
    for one in disturbed:
        left = re.sub(r"\W", "", prepare_text(one).text).lower()
        assert abs(len(left) - len(plain)) <= 0.1 * len(plain)


@pytest.mark.parametrize("kind", ["diacritics", "tatweel"])
def test_what_preparation_removes_cannot_flip_a_decision(kind: str) -> None:
    text = SAMPLE["ar"]
    assert prepare_text(DISTURBANCES["ar"][kind](text, random.Random(1))).text == prepare_text(text).text


def test_letter_variants_do_what_they_say() -> None:
    def once(kind: str, text: str) -> str:
        return DISTURBANCES["ar"][kind](text, random.Random(1))

    assert once("missing_hamza", "أعلن المسؤول عن مئة") == "اعلن المسوول عن مية"
    assert once("final_ya", "في المستشفى") == "فى المستشفي"
    assert once("teh_marbuta", "مدينة قديمة") == "مدينه قديمه"


class Oracle:
    """A classifier that knows the answers by heart, but for the texts it is told to get wrong."""

    def __init__(self, classifier: Classifier, wrong: re.Pattern[str] | None = None) -> None:
        self.bundle, self.labels, self.wrong = classifier.bundle, classifier.labels, wrong
        self.known = {f"{pair['id']}/{side}": pair[side]["labels"] for pair in read_pairs() for side in SIDES}
        for name in ("passages", "variants", "dialects", "fairness"):
            self.known |= {item["id"]: item["labels"] for item in read_items(f"{name}.jsonl")}

    def classify(self, items: list, **_options: object) -> list[Prediction]:
        answers = []
        for item in items:
            own = self.known.get(item.id) or self.known.get(item.id.split("/")[0]) or []
            flip = self.wrong is not None and self.wrong.search(f"{item.id} {item.text}") is not None
            labels = {
                label: LabelPrediction(probability=0.9 if (label in own) != flip else 0.1, decision="yes")
                for label in self.labels
            }
            answers.append(Prediction(id=item.id, language="en", labels=labels))
        return answers


def test_a_model_that_knows_the_answers_is_right_everywhere(tiny: Classifier) -> None:
    for run in SUITES:
        result = run(Oracle(tiny))
        assert {float(values.mean()) for values in result.cells.values()} == {1.0}, result.name
        assert all(cell.interval == (1.0, 1.0) for cell in result.summary().values())
        assert {name: len(made_from) for name, made_from in result.groups.items()} == {
            n: len(v) for n, v in result.cells.items()
        }
        json.dumps(result.as_json())


def test_each_suite_finds_its_fault(tiny: Classifier) -> None:
    pairs = run_pairs(Oracle(tiny, re.compile(r"^mp-ar-sv.*/without ")))
    assert pairs.cells["ar sectarian_violence"].max() == 0.0
    assert pairs.cells["en sectarian_violence"].min() == 1.0
    assert {row["false alarms"] for row in pairs.detail["by rule"] if row["label"] == "displacement"} == {0.0}

    robust = run_robustness(Oracle(tiny, re.compile(r"/typos ")))
    assert robust.groups["en typos"] == robust.groups["en emoji"]
    assert robust.cells["en typos"].max() == 0.0
    assert robust.cells["en emoji"].min() == 1.0

    dialects = run_dialects(Oracle(tiny, re.compile(r"^dia-iraqi")))
    assert set(dialects.groups["iraqi"]) < set(dialects.groups["standard"])
    assert dialects.cells["iraqi"].max() == 0.0
    assert dialects.cells["egyptian"].min() == 1.0

    fair = run_fairness(Oracle(tiny, re.compile(r"Druze")))
    assert fair.cells["en community"].max() == 0.0
    assert fair.cells["ar community"].min() == 1.0
    leaning = fair.detail["members that lean"]
    assert {row["member"] for row in leaning} == {"druze"}
    movement = {(row["language"], row["swap"]): row for row in fair.detail["movement"]}
    assert movement["en", "community"]["moved by names"] == pytest.approx(0.8 / 9)
    assert movement["en", "community"]["moved by weekdays"] == 0.0


def test_a_real_model_runs_through_all_suites(tiny: Classifier) -> None:
    seen: list[int] = []
    for run in SUITES:
        result = run(tiny, progress=seen.append)
        for values in result.cells.values():
            assert values.min() >= 0
            assert values.max() <= 1
            assert np.isfinite(values).all()
    assert sum(seen) > 4_000


def test_disturbed_texts_keep_the_labels_of_the_passage() -> None:
    for _, plain, variant in disturbed_items():
        assert (plain.labels, plain.lang) == (variant.labels, variant.lang)
        assert isinstance(variant, LabelledExample)


def test_models_of_another_taxonomy_are_not_asked(taxonomy: Taxonomy) -> None:
    check_taxonomy(taxonomy)
    other = Taxonomy.model_validate(
        {"name": "other", "version": "1", "languages": ["en"], "labels": [{"id": "matconf", "name": {"en": "c"}}]}
    )
    with pytest.raises(InputError, match="use --no-suites"):
        check_taxonomy(other)


def test_the_suites_hold_nothing_but_their_files() -> None:
    names = {path.name for path in FOLDER.iterdir() if path.suffix in (".jsonl", ".json")}
    assert names == {"passages.jsonl", "variants.jsonl", "dialects.jsonl", "fairness.jsonl", "fairness_names.json"}

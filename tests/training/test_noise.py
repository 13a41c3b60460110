"""Noise on training texts: what may change, and what must not."""

from __future__ import annotations

import random
import re

import pytest

from training.noise import Noise, swap_communities
from training.rows import TrainingRow

NONE = {"swapped_names": 0.0, "spelling": 0.0, "lower_case": 0.0, "upper_case": 0.0, "no_punctuation": 0.0}


def row(text: str, language: str) -> TrainingRow:
    return TrainingRow("a", "a", "s", language, text, (1, 0, 0, 0), unsure=False)


def test_the_same_seed_gives_the_same_texts_and_another_seed_others() -> None:
    rows = [row(f"Gunmen burnt {n} Druze homes, an Alawite monitor wrote.", "en") for n in range(40)]
    assert Noise().disturb(rows, seed=1) == Noise().disturb(rows, seed=1)
    assert Noise().disturb(rows, seed=1) != Noise().disturb(rows, seed=2)


def test_without_any_share_every_text_stays_as_it_is() -> None:
    rows = [row("Gunmen burnt Druze homes.", "en"), row("أحرق مسلحون منازل الدروز.", "ar")]
    assert Noise(**NONE).disturb(rows, seed=1) == [one.text for one in rows]


def test_one_community_becomes_the_same_other_one_wherever_it_stands() -> None:
    text = "An Alawite baker was shot; the Alawite quarter closed its shops and a Sunni neighbour buried him."
    for seed in range(60):
        swapped = swap_communities(text, "en", random.Random(seed))
        found = re.fullmatch(
            r"An? (\w+) baker was shot; the (\w+) quarter closed its shops and an? (\w+) neighbour buried him\.", swapped
        )
        assert found is not None
        first, second, third = found.groups()
        assert first == second != "Alawite"
        assert third not in ("Sunni", first)
        for article, name in re.findall(r"\b([Aa]n?) ([A-Z]\w+)", swapped):
            assert (article.lower() == "an") == (name[0] in "AEIOU")


def test_all_forms_of_a_community_become_one_other_community() -> None:
    text = "Gunmen killed Shi'ites in a Shiite village; Sunnis of the Sunni quarter hid them, and so did Hazaras."
    stems = {"Sunni", "Shi", "Alawi", "Christian", "Yazidi", "Kur", "Jew", "Muslim", "Hindu", "Sikh", "Ismaili", "Assyrian"}
    for seed in range(200):
        swapped = swap_communities(text, "en", random.Random(seed))
        found = re.fullmatch(
            r"Gunmen killed (\w+) in an? (\w+) village; (\w+) of the (\w+) quarter hid them, and so did (\w+)\.", swapped
        )
        assert found is not None
        first, again, second, second_again, third = (
            next(stem for stem in stems if word.startswith(stem)) for word in found.groups()
        )
        assert first == again != "Shi"
        assert second == second_again != "Sunni"
        assert len({first, second, third}) == 3


def test_a_text_that_names_more_communities_than_there_are_others_stays() -> None:
    names = [
        "الشيعية",
        "السنية",
        "الدرزية",
        "المسيحية",
        "الإيزيدية",
        "اليهودية",
        "العلوية",
        "الكردية",
        "المسلمة",
        "القبطية",
        "الهندوسية",
    ]
    few, all_of_them = (" ثم ".join(f"القرية {name}" for name in chosen) for chosen in (names[:3], names))
    assert all(swap_communities(few, "ar", random.Random(seed)) != few for seed in range(20))
    assert all(swap_communities(all_of_them, "ar", random.Random(seed)) == all_of_them for seed in range(20))


@pytest.mark.parametrize(
    ("text", "pattern"),
    [
        ("قتل مسلحون ثلاثة من العلويين في القرية", r"قتل مسلحون ثلاثة من ال(?!علويين)\w+ في القرية"),
        ("وقال إن للدروز حقا في العودة", r"وقال إن لل(?!دروز)\w+ حقا في العودة"),
        ("أحرقت البيوت بالقرية الشيعية ليلا", r"أحرقت البيوت بالقرية ال(?!شيعية)\w+ية? ليلا|.* المسلمة ليلا"),
    ],
)
def test_arabic_names_keep_their_article_and_particle_and_agree(text: str, pattern: str) -> None:
    for seed in range(30):
        assert re.fullmatch(pattern, swap_communities(text, "ar", random.Random(seed)))


@pytest.mark.parametrize(
    ("text", "language"),
    [
        ("The Muslim Brotherhood called a rally.", "en"),
        ("Sunni Muslims held a feast.", "en"),
        ("Three Jewish settlers burnt the orchard.", "en"),
        ("Kurdistan voted, and the pan-Kurdish congress met.", "en"),
        ("دعت جماعة الإخوان المسلمين إلى مسيرة", "ar"),
        ("عام السنة الماضية زار القرية مسلم بن سالم", "ar"),
        ("Les villageois Druze", "fr"),
    ],
)
def test_names_that_are_part_of_something_else_stay(text: str, language: str) -> None:
    assert all(swap_communities(text, language, random.Random(seed)) == text for seed in range(20))


def test_spelling_casing_and_punctuation_change_form_alone() -> None:
    arabic = row("أعلنت الوزارة في مدينة إدلب أن المستشفى أُغلق.".replace("ُ", ""), "ar")
    forms = {text for seed in range(40) for text in Noise(**{**NONE, "spelling": 1.0}).disturb([arabic], seed=seed)}
    assert "اعلنت الوزاره في مدينه ادلب ان المستشفي اغلق." in forms
    assert len(forms) == 8
    english = row("The Army said: homes burned.", "en")
    assert Noise(**{**NONE, "lower_case": 1.0}).disturb([english], seed=1) == ["the army said: homes burned."]
    assert Noise(**{**NONE, "upper_case": 1.0}).disturb([english], seed=1) == ["THE ARMY SAID: HOMES BURNED."]
    assert Noise(**{**NONE, "no_punctuation": 1.0}).disturb([english], seed=1) == ["The Army said homes burned"]
    assert Noise(**{**NONE, "no_punctuation": 1.0}).disturb([row("?!", "en")], seed=1) == ["?!"]

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from models.passages import split_passages


def pieces(text: str, language: str) -> list[str]:
    return [text[passage.start : passage.end] for passage in split_passages(text, language)]


def test_english_abbreviations_do_not_end_a_sentence() -> None:
    text = "Dr. Haddad of the U.N. said so. They left at 5 p.m. on Monday.\n\nA new paragraph"
    assert pieces(text, "en") == [
        "Dr. Haddad of the U.N. said so.",
        "They left at 5 p.m. on Monday.",
        "A new paragraph",
    ]


def test_arabic_titles_do_not_end_a_sentence() -> None:
    text = "وقال د. سمير حداد إن الوضع صعب. هل يعودون؟ نعم!"
    assert pieces(text, "ar") == ["وقال د. سمير حداد إن الوضع صعب.", "هل يعودون؟", "نعم!"]


def test_offsets_count_code_points_after_emoji() -> None:
    assert pieces("😀😀 They fled. 🔥 He stayed.", "en")[0].endswith("They fled.")


def test_white_space_has_no_passages() -> None:
    assert pieces(" \n\t ", "en") == []


@given(st.text(alphabet=st.sampled_from("abجد. !؟\n\r\t\u2029د😀«»،0"), max_size=120), st.sampled_from(["ar", "en", "und"]))
@settings(max_examples=400)
def test_every_letter_is_in_exactly_one_passage(text: str, language: str) -> None:
    passages = split_passages(text, language)
    covered = [i for passage in passages for i in range(passage.start, passage.end)]
    assert len(covered) == len(set(covered))
    assert covered == sorted(covered)
    assert {i for i, char in enumerate(text) if char.isalnum()} <= set(covered)
    assert all(not text[p.start].isspace() and not text[p.end - 1].isspace() for p in passages)

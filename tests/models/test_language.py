from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from models.language import _script, detect_language


@pytest.mark.parametrize(
    ("text", "language", "flags"),
    [
        ("The ministry said that twelve people were killed near the border.", "en", ()),
        ("قالت الوزارة إن اثني عشر شخصا قتلوا قرب الحدود", "ar", ()),
        ("شو صار اليوم بالضيعة يا جماعة، طلعوا كل الناس", "ar", ()),
        ("Mai Mai attack Bunia", "en", ()),
        ("وزارت خارجه ایران اعلام کرد که این گزارش‌ها نادرست است", "und", ("unsupported_language",)),
        ("پاکستان کے وزیر اعظم نے کہا ہے کہ وہ استعفیٰ نہیں دیں گے", "und", ("unsupported_language",)),
        ("שר הביטחון אמר הבוקר כי הצבא נערך", "und", ("unsupported_language",)),
        ("Le ministère a déclaré que douze personnes ont été tuées près de la frontière", "und", ("unsupported_language",)),
        ("Министр заявил, что граница закрыта", "und", ("unsupported_language",)),
        ("😀🔥🔥", "und", ("no_letters",)),
        ("12 345 - 2024", "und", ("no_letters",)),
        ("", "und", ("no_letters",)),
        ("قال المتحدث باسم المنظمة The situation is dire", "ar", ("mixed_language",)),
    ],
)
def test_the_language_is_told_and_doubt_is_flagged(text: str, language: str, flags: tuple[str, ...]) -> None:
    found = detect_language(text)
    assert (found.language, found.flags) == (language, flags)


def test_arabic_typed_on_a_persian_keyboard_is_still_arabic() -> None:
    assert detect_language("قال المتحدث باسم الحکومة إن القوات ستبقی فی المدینة حتی إشعار آخر").language == "ar"


def test_a_foreign_name_does_not_make_arabic_persian() -> None:
    assert detect_language("وصل وفد من گوتنبرگ وأنقرة إلى بيروت أمس للقاء رئيس الحكومة").language == "ar"


@given(st.text(alphabet=st.characters(codec=None), max_size=60))
def test_any_text_gets_an_answer(text: str) -> None:
    assert detect_language(text).language in ("ar", "en", "und")


def test_what_is_remembered_of_letters_has_an_end() -> None:
    for start in range(0, 0x30000, 0x1000):
        detect_language("".join(map(chr, range(start, start + 0x1000))))
    assert _script.cache_info().currsize <= 65_536

"""Made-up harmless sentences: what the guard must find, and what it should leave alone."""

from __future__ import annotations

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from safegen.domain.minors import refers_to_minors
from safegen.miniature.captions import held_out_prompts

REFERRING = [
    "a child flying a kite",
    "Children's books on a shelf",
    "a grandchild waving",
    "a BOY and his dog",
    "two girls on a bench",
    "a schoolgirl reading",
    "an elementary school bus",
    "a student in a library",
    "a high-school football match",
    "kindergarten drawings",
    "a teenager on a skateboard",
    "pre-teen soccer team",
    "pre teen soccer team",
    "under-age drivers",
    "underage drivers",
    "a newborn asleep",
    "a very young woman painting",
    "a young violinist",
    "my youngest with an umbrella",
    "the third-grader won a prize",
    "a junior high band",
    "littlegirl with balloons",
    # ages
    "a 12-year-old at a desk",
    "a 12 year old at a desk",
    "a 12yo at a desk",
    "a 9 y/o at a desk",
    "a 7 y.o. at a desk",
    "a twelve year old at a desk",
    "a sixteen-year-old driver",
    "she is fifteen and sings",
    "she's 15 and sings",
    "he just turned eleven",
    "aged 14, with a violin",
    "age: 8, with a violin",
    "at the age of six, with a violin",
    "only 16, with a violin",
    "a violinist (17)",
    "a violinist under 18",
    "a violinist under eighteen",
    "a violinist not yet 18",
    "someone under the age of eighteen with a violin",
    "an 18 months old with a spoon",
    "a year old with a spoon",
    "her tenth birthday cake",
    "her 10th birthday cake",
    "a seventh grade class",
    "a pilot, 16f, smiling",
    "a 1 6 year old driver",
    "a l6 year old driver",
    "a 1O year old driver",
    "a １２ year old driver",
    "a ١٢ year old driver",
    "a 12\u200b-year-old driver",
    "a 2.5 years old with a spoon",
    # disguises
    "a CHÍLD flying a kite",
    "a c\u200bh\u200bild flying a kite",
    "a chi\u00adld flying a kite",
    "a ch1ld flying a kite",
    "a ch!ld flying a kite",
    "a k1d flying a kite",
    "a b0y flying a kite",
    "a g1rl flying a kite",
    "a 6irl flying a kite",
    "a b@by asleep",
    "a $choolyard",
    "t33nagers on a bench",
    "a c h i l d flying a kite",
    "a k.i.d flying a kite",
    "a k_i_d flying a kite",
    "a k-1-d flying a kite",
    "a chi ld flying a kite",
    "some chil dren flying kites",
    "a bo y flying a kite",
    "a kiiiid flying a kite",
    "a girrl flying a kite",
    "a teeeen on a bench",
    "a сhіld flying a kite",  # Cyrillic letters
    "a ｃｈｉｌｄ flying a kite",
    "a 𝖈𝖍𝖎𝖑𝖉 flying a kite",
    # other languages, pictograms
    "una niña con un globo",
    "un garcon avec un ballon",
    "девочка с шаром",
    "ребёнок с шаром",
    "一个小女孩在公园",
    "公園の子供",
    "공원의 소녀",
    "a picnic 👧",
]

HARMLESS = [
    "a woman of 30 reading by the sea",
    "a portrait of a 45-year-old fisherman",
    "a twenty-five year old dancer on stage",
    "a hundred and five year old oak",
    "two adults walking a dog",
    "a cowboy on a horse",
    "a young woman at a piano",
    "a young adult cooking",
    "an old man in fantasy armour",
    "him in orange light",
    "the cat's on the table soon",
    "between the canteen and the bridge",
    "a kitten with a ball of wool",
    "there are two dogs and one bird",
    "a 4k photo, f/1.8, 85mm, 8k, iso 100",
    "20 km race at 9 am",
    "a street in the 17th century",
    "much wilder scholars",
    "a kind lady with a book",
    "nineteen red balloons",
    "a bowl of soup at noon",
    "I <3 this garden",
    "1,000 years of history",
    "",
]


@pytest.mark.parametrize("text", REFERRING)
def test_what_refers_to_minors_is_found(text: str) -> None:
    assert refers_to_minors(text)


@pytest.mark.parametrize("text", HARMLESS)
def test_what_does_not_is_left_alone(text: str) -> None:
    assert not refers_to_minors(text)


@given(
    st.sampled_from(["child", "schoolgirl", "toddler", "kid", "teenager"]),
    st.randoms(use_true_random=False),
    st.sampled_from(["\u200b", "\u00ad", "\u2060", "\u0301", "."]),
)
def test_case_invisible_characters_and_spelling_out_hide_nothing(
    word: str, random: object, sign: str
) -> None:
    cased = [letter.upper() if random.random() < 0.5 else letter for letter in word]  # type: ignore[attr-defined]
    assert refers_to_minors(f"a painting of a {sign.join(cased)} by a lake")


@given(
    st.integers(1, 17),
    st.sampled_from(["{} years old", "{}-year-old", "{}yo", "{} y/o", "aged {}", "{} yrs"]),
)
def test_every_age_below_18_is_found_and_none_from_18(age: int, form: str) -> None:
    assert refers_to_minors(f"a person, {form.format(age)}, with a hat")
    assert not refers_to_minors(f"a person, {form.format(age + 17)}, with a hat")


@given(st.text(max_size=300))
def test_any_text_can_be_judged(text: str) -> None:
    assert refers_to_minors(text) in (True, False)
    assert refers_to_minors(text + " a child")


def test_prompts_of_the_miniature_refer_to_nobody() -> None:
    prompts = [*held_out_prompts(), *held_out_prompts(aliases=True)]
    assert not [prompt.text for prompt in prompts if refers_to_minors(prompt.text)]


def test_long_texts_are_judged_in_linear_time() -> None:
    started = time.perf_counter()
    refers_to_minors("a 1 b 0 " * 12_500)
    assert time.perf_counter() - started < 20  # quadratic searches take minutes

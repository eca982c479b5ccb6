"""Finds prompts that may refer to minors, so that they are dropped before anything is drawn.

The guard would rather drop ten harmless prompts than let one pass. It looks for words of a list and for ages below 18,
in several readings of a text:

    evened out    compatibility forms, accents, case and invisible characters
    look-alikes   Cyrillic and Greek letters read as the Latin ones that they resemble
    leet          digits and signs read as letters, a one as i and as l
    squeezed      repeated letters read as one
    respaced      letters or parts of a word that stand apart are put together

What it cannot do is understand: a description that names neither age nor childhood passes. Words are those of
captions and studies, English first, and the plain ones of some other languages.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator
from functools import lru_cache
from typing import Final


# A run opens its suites several times.
@lru_cache(maxsize=100_000)
def refers_to_minors(text: str) -> bool:
    """Return whether a text may refer to somebody under 18. It says neither where nor by which word.

    >>> refers_to_minors("a toddler with a kite"), refers_to_minors("a 12-year-old at a desk")
    (True, True)
    >>> refers_to_minors("a woman of 30 reading by the sea")
    False
    """
    plain = _even_out(text)
    if any(term in plain for term in _UNSPACED_TERMS):
        return True
    latin = plain.translate(_LOOK_ALIKES)
    forms = {plain, latin}
    leet = {_leet(form, one) for form in forms for one in "il"}
    return any(_names_age(form) for form in forms) or any(_names_minor(form) for form in forms | leet)


# -------------------------------------------------------------------------------------------- readings
_LOOK_ALIKES: Final = str.maketrans(
    "авеіїјкӏмнорсѕтухуһԁԍԛԝѵոսαβεηικνορτυχγɑɡı",
    "abeiijklmhopcstyxyhdgqwvnuabenikvoptuxyagi",
)
_LEET_DIGITS: Final = str.maketrans("02345678", "ozeasgtb")
_LEET_SIGNS: Final = {"@": "a", "$": "s", "!": "i", "|": "l", "€": "e", "+": "t"}
_SIGN_IN_WORD: Final = re.compile(r"[@$!|€+](?=[^\W_])")
_REPEATED: Final = re.compile(r"([^\W\d_])\1+")


def _even_out(text: str) -> str:
    """Return a text without accents, case and invisible characters, its digits as 0..9."""
    shown = "".join(
        _as_digit(character)
        for character in unicodedata.normalize("NFKD", text)
        if unicodedata.category(character) not in ("Mn", "Me", "Cf", "Cc") or character.isspace()
    )
    return re.sub(r"[‘’ʼ`´]", "'", " ".join(shown.casefold().split()))


def _as_digit(character: str) -> str:
    value = unicodedata.decimal(character, None)
    return character if value is None else str(value)


def _leet(text: str, one: str) -> str:
    letters = _SIGN_IN_WORD.sub(lambda found: _LEET_SIGNS[found[0]], text)
    return letters.translate(_LEET_DIGITS).replace("1", one).replace("9", "g")


def _squeeze(word: str) -> str:
    return _REPEATED.sub(r"\1", word)


# ----------------------------------------------------------------------------------------------- words
_WORDS: Final = frozenset(
    _even_out(
        "minor minors kid kids kiddo kiddos baby babies infant infants tot tots teen teens teener tween tweens "
        "boy boys boyish girl girls girlish girly girlie girlies lad lads lass lasses lassie lassies "
        "youth youths youngling younglings pupil pupils student students freshman freshmen sophomore sophomores "
        "grader graders classroom classrooms nursery nurseries son sons daughter daughters niece nieces nephew nephews "
        "orphan orphans cherub cherubs cherubim putto putti loli lolis shota shotas csam jailbait younger youngest "
        "niño niños niña niñas bébé bébés fille filles fillette fillettes garçon garçons mädchen jungen kinder "
        "bambino bambini bambina bambine ragazzina ragazzine ragazzino ragazzini criança crianças menino meninos "
        "menina meninas muchacha muchacho meisje meisjes jongen jongens dziecko dzieci dziewczynka chłopiec "
        "ребёнок ребенка дети детей девочка девочки девочек мальчик мальчика мальчики подросток подростки "
        "школьница школьницы школьник школьники младенец малыш"
    ).split()
)
"""Words that count when they stand alone."""

_STEMS: Final = (
    "child", "school", "toddler", "underage", "preteen", "teenag", "adolescen", "juvenil", "youngster", "kindergart",
    "pubescen", "puberty", "newborn", "infantil", "lolita", "lolicon", "shotacon", "paedophil", "pedophil", "daycare",
    "boyhood", "girlhood", "babyface", "babyhood", "stepson", "stepdaughter", "grandson", "granddaughter", "enfant",
    "menor", "minderjahrig", "mineur",
)  # fmt: skip
"""Parts that count anywhere within a word."""

_ENDINGS: Final = ("girl", "girls", "boy", "boys", "kid", "kids", "baby", "babies", "teen", "teens")
"""Ends of compounds that count, as where two words are written as one."""

_NOT_MEANT: Final = frozenset(
    (
        "cowboy",
        "cowboys",
        "cowgirl",
        "cowgirls",
        "playboy",
        "skid",
        "skids",
        "eighteen",
        "nineteen",
        "canteen",
        "soon",
    )
)

_PHRASES: Final = re.compile(
    r"\b(?:under aged?|below age|(?:under|below) the age|pre teens?|pre school|junior high|barely legal|little ones?"
    r"|(?:very|too|so|looks?|looking) young|young looking)\b"
    # "Young" counts, unless it is said of somebody who is named as an adult.
    r"|\byoung\b(?! (?:and )?(?:adults?|wom[ae]n|m[ae]n|lady|ladies|gentlem[ae]n|couples?|professionals?)\b)"
)

_UNSPACED_TERMS: Final = tuple(
    _even_out(term)
    for term in (
        "儿童", "兒童", "孩子", "小孩", "女孩", "男孩", "少女", "少年",
        "幼女", "幼童", "幼儿", "幼兒", "婴儿", "嬰兒", "未成年", "萝莉",
        "蘿莉", "正太", "学生", "學生", "小学", "中学", "高中", "高校生",
        "子供", "こども", "赤ちゃん", "ロリ", "ショタ", "女の子", "男の子", "어린이",
        "소녀", "소년", "미성년", "학생", "طفل", "أطفال", "बच्चा", "बच्चे",
        "बच्ची", "👶", "👧", "👦", "🧒",
    )
)  # fmt: skip
"""Terms of scripts that put no spaces between words, and pictograms."""

_SQUEEZED_WORDS: Final = frozenset(map(_squeeze, _WORDS))
_SQUEEZED_STEMS: Final = tuple(map(_squeeze, _STEMS))
_BEGINNINGS: Final = frozenset(term[:2] for term in (*_WORDS, *_STEMS))
_PARTS_OF_A_WORD = 4


def _names_minor(reading: str) -> bool:
    words = re.findall(r"[^\W\d_]+", re.sub(r"'s\b", "", reading))
    if _PHRASES.search(" ".join(words)):
        return True
    return any(map(_is_term, words)) or any(map(_is_term, _spelt_out(words))) or _is_split(words)


@lru_cache(maxsize=50_000)
def _is_term(word: str) -> bool:
    if word in _NOT_MEANT:
        return False
    if word in _WORDS or word.endswith(_ENDINGS) or any(stem in word for stem in _STEMS):
        return True
    squeezed = _squeeze(word)
    return squeezed != word and (
        squeezed in _SQUEEZED_WORDS
        or squeezed.endswith(_ENDINGS)
        or any(stem in squeezed for stem in _SQUEEZED_STEMS)
    )


def _spelt_out(words: list[str]) -> Iterator[str]:
    """Yield what runs of single letters spell; a run may have caught a one-letter word at either end."""
    for run in re.findall(r"(?:\b\w )+\w\b", " ".join(words)):
        letters = run.replace(" ", "")
        yield from (letters[start : len(letters) - end] for start in (0, 1, 2) for end in (0, 1, 2))


def _is_split(words: list[str]) -> bool:
    """Say whether neighbours, put together, are a term from its start; one in the middle would arise too often."""
    for start in range(len(words)):
        for end in range(start + 2, min(start + _PARTS_OF_A_WORD, len(words)) + 1):
            joined = "".join(words[start:end])
            if joined[:2] in _BEGINNINGS and (joined in _WORDS or joined.startswith(_STEMS)):
                return True
    return False


# ------------------------------------------------------------------------------------------------ ages
_UNITS = ("one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve")
_TEENS = ("thirteen", "fourteen", "fifteen", "sixteen", "seventeen")
_ORDINALS = (
    "first", "second", "third", "fourth", "fifth", "sixth", "seventh", "eighth", "ninth", "tenth", "eleventh",
    "twelfth", "thirteenth", "fourteenth", "fifteenth", "sixteenth", "seventeenth",
)  # fmt: skip
_NUMBERS: Final = {word: str(n) for words in (_UNITS + _TEENS, _ORDINALS) for n, word in enumerate(words, 1)}
_NUMBER_WORD: Final = re.compile(rf"\b(?:{'|'.join(sorted(_NUMBERS, key=len, reverse=True))})(?=\b|y)")
_TEEN_WORD: Final = re.compile(rf"\b(?:{'|'.join(_TEENS)})(?:\b|y)")
_LARGE_NUMBER: Final = re.compile(
    r"\b(?:twenty|thirty|forty|fifty|sixty|seventy|eighty|ninety|hundred|thousand)\W{0,3}(?:and )?"
    rf"(?:{'|'.join((*_UNITS[:9], *_ORDINALS[:9]))})\b"
)
_GAP = r"[\W_]{0,3}"
_YOUNG = r"(?<!\d)0?(?:1[0-7]|\d)(?:[.,]5)?(?!\d|[.,]\d{3})"
_IN_TEENS = r"1[0-7](?!\d|[.,]\d)"
_AGE: Final = re.compile(
    "|".join(
        (
            rf"{_YOUNG}{_GAP}(?:st|nd|rd|th)?{_GAP}(?:years?|yrs?|(?:yo|y{_GAP}o|anos?|ans|jahren?)(?![^\W\d_]))",
            rf"{_YOUNG}{_GAP}(?:st|nd|rd|th)?{_GAP}(?:birthday|bday|grade|olds?\b|岁|歲|歳|才|살|세)",
            rf"\bgrade{_GAP}{_YOUNG}",
            rf"\b(?:a{_GAP}years?|months?|weeks?|days?){_GAP}olds?\b",
            rf"\d{_GAP}(?:mo|m/o|m\.o)\b",
            rf"\b(?:age[ds]?|years){_GAP}(?:of|is|about|around|only|just|at|range|from|between)?{_GAP}{_YOUNG}",
            rf"\b(?:s?he|i|who)(?: is| was| am|'s|'m|s){_GAP}(?:only|just|almost|nearly)?{_GAP}{_YOUNG}",
            rf"\bturn(?:s|ed|ing)?{_GAP}{_YOUNG}",
            rf"\b(?:is|was|only|just|barely|almost|nearly|sweet|at){_GAP}{_IN_TEENS}(?!{_GAP}(?:am|pm|mm|cm|px)\b)",
            rf"\b(?:under|below|younger{_GAP}than|less{_GAP}than|not{_GAP}yet){_GAP}(?:0?\d|1\d|2[01])(?!\d)",
            rf"(?:\bu|\bsub|\bpre|<){_GAP}1[0-8](?!\d)",
            r"\b1[0-7] ?/? ?[fm]\b|\b[fm] ?1[0-7]\b|\(1[0-7]\)",
        )
    )
)
_SPACED_DIGITS: Final = re.compile(r"(?<=\b\d) (?=\d\b)")
_LOOSE_DIGITS: Final = re.compile(r"\b[ilo\d]{1,2}(?=[\W_]{0,3}(?:years?|yrs?|yo|y/o)\b)")
_LETTERS_AS_DIGITS: Final = str.maketrans("ilo", "110")


def _names_age(reading: str) -> bool:
    counted = _LARGE_NUMBER.sub("99", re.sub(r"([^\W\d_])\1{2,}", r"\1", reading))
    counted = re.sub(
        r"\b(under|below|younger than|less than|not yet)( the age of)? eighteen\b", r"\1 18", counted
    )
    if _TEEN_WORD.search(counted):
        return True
    counted = _NUMBER_WORD.sub(lambda found: _NUMBERS[found[0]], counted)
    counted = _LOOSE_DIGITS.sub(lambda found: found[0].translate(_LETTERS_AS_DIGITS), counted)
    return any(_AGE.search(form) for form in (counted, _SPACED_DIGITS.sub("", counted)))

"""Whether a page's embedded text can be trusted instead of being read again by an engine.

The check is one of plausibility: enough text for what is drawn on the page, characters that are
characters, and words that look like words of a language. It errs towards the engine, which costs
time, rather than towards garbage, which costs trust.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence

import numpy as np
import pymupdf

from tasks.lines import Line

_MOST_BAD_CHARACTERS = 0.004
_LEAST_PLAUSIBLE_WORDS = 0.70
_LEAST_COMMON_LETTERS = 0.45  # of Latin letters; European languages have 0.55 to 0.70
_ENOUGH_LETTERS = 80  # fewer say nothing about letter frequencies
_LEAST_INK_UNDER_TEXT = 0.35
_FEW_CHARACTERS = 100
_INK_DPI = 36
_MANY_RUNS = 100  # of letters: so many tell torn words from formulas
_MOST_SHORT_RUNS = 0.70
_LONG_RUN = 25
_MOST_IN_LONG_RUNS = 0.30

_WORD = re.compile(r"[^\W\d_]{3,}")
_RUN = re.compile(r"[^\W\d_]+")
_BULLET_GLYPH = re.compile(r"(?<!\S)[\uf020-\uf0ff](?!\S)")  # Symbol and Wingdings
_VOWEL = re.compile(r"[aeiouyàáâãäåæèéêëìíîïòóôõöøùúûüýœőűąęėįųūıě]", re.I)
_FIVE_CONSONANTS = re.compile(r"[bcdfghjklmnpqrstvwxz]{6,}", re.I)
_MOJIBAKE = re.compile(r"Ã[\x80-\xbf¤¶¼Ÿ©¨]|â€[\x80-\xbf™œ\x9d“”]|Â[\xa0-\xbf]|ï¿½")
_ODD_CASE = re.compile(r"[a-zß-ÿ][A-Z][a-zß-ÿ]+[A-Z]|[a-zß-ÿ]{2}[A-Z]{2}")


def complaint(page: pymupdf.Page, lines: Sequence[Line]) -> str | None:
    """Why the embedded text cannot stand for the page; None if it can.

    Returns:
        `no_text_layer`, `thin_text_layer` (much more is drawn than the text covers) or
        `bad_text_layer` (the text is garbage).
    """
    text = "\n".join(line.text for line in lines)
    if not text:
        return "no_text_layer"
    if is_garbage(text):
        return "bad_text_layer"
    if _picture_share(page) > 0.5 or len(text) < _FEW_CHARACTERS:
        share, ink = _ink_under(page, lines)
        if ink > 0.002 and share < _LEAST_INK_UNDER_TEXT:
            return "thin_text_layer"
    return None


def is_blank(page: pymupdf.Page) -> bool:
    """Whether nothing at all is drawn on the page."""
    return not _ink(page).any()


def is_garbage(text: str) -> bool:
    """Whether text is too odd to be what a reader of the page would see."""
    text = _BULLET_GLYPH.sub("", text)
    visible = [character for character in text if not character.isspace()]
    if not visible:
        return True
    bad = sum(_is_bad(character) for character in visible) + 2 * len(_MOJIBAKE.findall(text))
    if bad > _MOST_BAD_CHARACTERS * len(visible) + 1:
        return True
    words = _WORD.findall(text)
    latin = [word for word in words if _is_latin(word[0])]
    if len(latin) >= 10:
        plausible = sum(_is_plausible(word) for word in latin)
        if plausible < _LEAST_PLAUSIBLE_WORDS * len(latin):
            return True
    if _is_torn_or_run_together(text):
        return True
    words = [word for word in latin if _VOWEL.search(word) or not word.isupper()]
    letters = _without_accents("".join(words).lower())
    if len(letters) >= _ENOUGH_LETTERS:
        common = sum(letters.count(letter) for letter in "etaoinsr")
        return common < _LEAST_COMMON_LETTERS * len(letters)
    return False


def _is_bad(character: str) -> bool:
    return character == "\ufffd" or unicodedata.category(character) in ("Cc", "Cn", "Cs", "Co")


def _without_accents(text: str) -> str:
    return "".join(
        letter for letter in unicodedata.normalize("NFD", text) if not unicodedata.combining(letter)
    )


def _is_torn_or_run_together(text: str) -> bool:
    """Whether spaces stand inside words, or hardly anywhere."""
    runs = [len(run) for run in _RUN.findall(text) if _is_latin(run[0])]
    if len(runs) >= _MANY_RUNS and sum(run <= 2 for run in runs) > _MOST_SHORT_RUNS * len(runs):
        return True
    letters = sum(runs)
    in_long = sum(run for run in runs if run > _LONG_RUN)
    return letters > _ENOUGH_LETTERS and in_long > _MOST_IN_LONG_RUNS * letters


def _is_latin(letter: str) -> bool:
    return letter < "\u0250" or "\u1e00" <= letter < "\u1f00"


def _is_plausible(word: str) -> bool:
    if len(word) > 40 or _FIVE_CONSONANTS.search(word) or _ODD_CASE.search(word):
        return False
    return bool(_VOWEL.search(word)) or word.isupper() or len(word) <= 4


def _picture_share(page: pymupdf.Page) -> float:
    """The largest part of the page that one picture covers, 0 to 1."""
    whole = abs(page.rect)
    shares = [
        abs(pymupdf.Rect(found["bbox"]) * page.rotation_matrix & page.rect) / whole
        for found in page.get_image_info()
        if whole > 0
    ]
    return max(shares, default=0.0)


def _ink(page: pymupdf.Page) -> np.ndarray:
    """What is darker than the paper, as a boolean array at a few pixels a line."""
    zoom = min(_INK_DPI / 72, 1200 / max(page.rect.width, page.rect.height, 1))
    pixmap = page.get_pixmap(
        matrix=pymupdf.Matrix(zoom, zoom), colorspace=pymupdf.csGRAY, alpha=False
    )
    gray = np.frombuffer(pixmap.samples, np.uint8).reshape(pixmap.height, pixmap.stride)
    gray = gray[:, : pixmap.width].astype(np.int16)
    return np.asarray(np.abs(gray - np.median(gray)) > 40)


def _ink_under(page: pymupdf.Page, lines: Sequence[Line]) -> tuple[float, float]:
    """The share of the page's ink that lies under text, and the share of the page that is ink."""
    ink = _ink(page)
    if not ink.any():
        return 1.0, 0.0
    covered = np.zeros_like(ink)
    down, across = ink.shape[0] / page.rect.height, ink.shape[1] / page.rect.width
    for line in lines:
        x0, y0, x1, y1 = line.box
        rows = slice(max(int(y0 * down) - 1, 0), max(int(y1 * down) + 2, 0))
        covered[rows, max(int(x0 * across) - 1, 0) : max(int(x1 * across) + 2, 0)] = True
    return float((ink & covered).sum() / ink.sum()), float(ink.mean())

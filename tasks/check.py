"""Whether a page's raw answer can be right, judged before anything is parsed."""

from __future__ import annotations

import html
import math
import re
from collections.abc import Sequence
from enum import StrEnum

from tasks.boxmarch import LABELS
from tasks.ink import CELL
from tasks.loops import is_loop, looping_span
from tasks.refs import Spoken, read


class Complaint(StrEnum):
    """What is wrong with an answer, in the order in which it is looked for."""

    LOOP = "loop"
    TRUNCATED = "truncated"
    EMPTY_OUTPUT = "empty_output"
    HALLUCINATED = "hallucinated"
    DEGENERATE_BOXES = "degenerate_boxes"


_LEAST_KEPT_FIRST = (
    Complaint.DEGENERATE_BOXES,  # the text is right
    Complaint.TRUNCATED,  # what is there of it is right
    Complaint.LOOP,  # so it is up to the loop
    Complaint.EMPTY_OUTPUT,  # nothing
    Complaint.HALLUCINATED,  # worse than nothing
)

_LEAST_INKED_CELLS = 20  # two or three words; a speck, a rule or a page number may be passed over
_MOST_A_CELL = 16  # characters: 5 pt at 150 dpi has 5 in 16 by 16 pixels, type of 6 pixels has 16
_ALWAYS_ROOM = 100  # characters: a few thin words may touch fewer cells than they should
_LEAST_BOXES = 4  # fewer may all be the same for good reason
_MOST_LOOPS = 4  # in one answer; what then still loops is left as it is
_PICTURES = ("image", "table", "figure")

_TAG = re.compile(r"<[^<>]*>")
_NO_TEXT = str.maketrans("", "", "#*_`|-:.>~=$\\()[]{}")


def complaint(
    raw: str, finish_reason: str, ink: float, image_size: tuple[int, int]
) -> Complaint | None:
    """What is wrong with an answer that copies a page; None if nothing can be seen to be.

    Args:
        raw: the answer as it came.
        finish_reason: the engine's; "repetition" where a loop was stopped.
        ink: share of the image's cells with something on them, see `tasks.ink`.
        image_size: width and height in pixels of the image that was asked about.
    """
    if finish_reason == "repetition" or is_loop(raw, finish_reason == "stop"):
        return Complaint.LOOP
    if finish_reason == "length":
        return Complaint.TRUNCATED
    cells = ink * math.ceil(image_size[0] / CELL) * math.ceil(image_size[1] / CELL)
    spoken = read(raw)
    said = _said(spoken)
    if not said and not _has_picture(spoken, raw) and cells >= _LEAST_INKED_CELLS:
        return Complaint.EMPTY_OUTPUT
    if said and (ink == 0 or said > _MOST_A_CELL * cells + _ALWAYS_ROOM):
        return Complaint.HALLUCINATED
    if _are_degenerate(spoken):
        return Complaint.DEGENERATE_BOXES
    return None


def least_bad(answers: Sequence[tuple[str, Complaint]]) -> int:
    """Which of several rejected answers is worth most: where it stands in `answers`.

    What keeps most right text comes first; of the same complaint the answer with the most distinct
    text, and of equals the earliest.

    Raises:
        ValueError: there is no answer.
    """
    return min(
        range(len(answers)),
        key=lambda place: (
            _LEAST_KEPT_FIRST.index(answers[place][1]),
            -_distinct(answers[place][0]),
        ),
    )


def without_loop(raw: str) -> str:
    """A looping answer with the first round of its loops only; any other as it is."""
    for _ in range(_MOST_LOOPS):
        span = looping_span(raw, ended_by_itself=False)
        if span is None:
            break
        start = span.start
        if raw.rfind("<", 0, start) > raw.rfind(">", 0, start):  # not in the middle of a tag
            start = min(raw.find(">", start) + 1 or start, span.end)
        raw = raw[:start] + raw[span.end :]
    return raw


def _said(spoken: Spoken) -> int:
    """How many characters are said, without markup and blanks; an unknown name is text itself."""
    names = (ref.name for run in spoken.runs for ref in run.refs if ref.name not in LABELS)
    texts = [spoken.before, *names, *(run.text for run in spoken.runs)]
    bare = html.unescape(_TAG.sub("", "\n".join(texts))).translate(_NO_TEXT)
    return sum(map(len, bare.split()))


def _has_picture(spoken: Spoken, raw: str) -> bool:
    named = any(ref.name in _PICTURES for run in spoken.runs for ref in run.refs)
    return named or "<table" in raw or "![" in raw


def _are_degenerate(spoken: Spoken) -> bool:
    """Whether most boxes are none, have no area or stand where another does."""
    useful, boxes = set(), 0
    for run in spoken.runs:
        for ref in run.refs:
            for numbers in ref.numbers or ((),):
                boxes += 1
                if len(numbers) == 4 and numbers[0] != numbers[2] and numbers[1] != numbers[3]:
                    useful.add(numbers)
    return boxes >= _LEAST_BOXES and len(useful) * 2 < boxes


def _distinct(raw: str) -> int:
    """Characters of the different lines of an answer, without its loop."""
    return sum(map(len, {line.strip() for line in without_loop(raw).splitlines()}))

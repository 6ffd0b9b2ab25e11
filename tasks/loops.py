"""Is an answer a loop? One look at its newest bytes, over a whole answer or while it streams.

A look asks four things of the tail: does it repeat; does it but for numbers that count up; do boxes
march; does it hold next to nothing new. A look has a bounded cost, whatever the answer is.
"""

from __future__ import annotations

import re
import zlib
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, replace

from tasks.boxmarch import marching
from tasks.repeats import LEAST_ROUNDS, offset, periods, steady

INTERVAL = 1024
"""Characters between two looks: some 250 tokens, of the 8,000 that a loop would run for."""


@dataclass(frozen=True, slots=True)
class Span:
    """What a loop adds nothing by: the characters of an answer from `start` up to `end`."""

    start: int
    end: int


@dataclass(frozen=True, slots=True)
class _Patience:
    """From where on the same again is a loop; bytes are of UTF-8 (near to tokens), without tags."""

    text: int  # bytes of one text again and again: more than a sheet of labels or vouchers holds
    leaders: int  # bytes of dots, lines and dashes: more than a page ruled from top to bottom
    counted: int  # texts that only count up: more than an answer sheet has questions
    counted_text: int  # bytes of such texts: more than a screenful of a log that ticks
    cells: int  # alike cells: more than a full table of zeros or an empty planner has
    rows: int  # alike rows: more than fit on a page at the smallest print
    row_cells: int  # alike cells in a row that does not end: more than a year has weeks
    stray: int  # boxes again, on the last one or beside the page: more than any layout overlaps
    bare: int  # pictures without a word: more than a sheet of icons has
    stale: int  # bytes that all but vanish when compressed: more than a table of yes and no has
    copied: int  # bytes of long sentences that were said before: more than a page of them


# An answer that ended by itself is believed while a page could look like that, and so is one that
# still runs: to stop it is to lose it.
_TRUSTING = _Patience(
    text=5000,
    leaders=12_000,
    counted=300,
    counted_text=8000,
    cells=1200,
    rows=150,
    row_cells=150,
    stray=30,
    bare=150,
    stale=16_384,
    copied=5000,
)
# One that was cut off is rejected anyway: what matters is only which name the fault gets.
_STRICT = replace(
    _TRUSTING,
    text=4000,
    counted=120,
    counted_text=5000,
    cells=800,
    rows=100,
    row_cells=64,
    stray=12,
    bare=80,
    stale=8192,
    copied=3000,
)

_WINDOW = 24_576  # four rounds of 2,000 characters of three bytes each
_MOST_LOOKS = 256  # at one answer; a quarter of a million characters is none
_LEAST_SQUEEZED = 20  # times smaller when compressed; digits in boxes reach 14, number tables 8
_LEAST_SENTENCE = 30  # letters, in a line of 40: shorter ones come again on honest pages
_MOST_OFTEN_COPIED = 0.6  # of long sentences' bytes: refrains and running heads stay below

_DIGITS = b"0123456789"
_RULED = b" \n._-"  # a page of leaders is not stale
_LEADERS = re.compile(rb"[\s._\-=~*|\xb7\xe2\xc2\x80-\x9f\xa6]*")  # with the bytes of – — … ·
_TAG = re.compile(rb"<\|det\|>[^<]*|<[^<>]*>")
_NUMBER = re.compile(rb"\d{1,15}")
_SENTENCE = re.compile(r"[^<>\n.!?。！？]+")


class LoopWatch:
    """Watches one answer while it comes in; costs a bounded look every `INTERVAL` characters."""

    def __init__(self) -> None:
        self._tail = b""
        self._unseen: list[str] = []
        self._missing = INTERVAL
        self._looping = False

    def feed(self, piece: str) -> bool:
        """Take in what came; True from when the answer so far is certainly a loop.

        How an answer is cut into pieces makes no difference to where the loop is seen.
        """
        if self._looping:
            return True
        while len(piece) >= self._missing and not self._looping:
            self._unseen.append(piece[: self._missing])
            piece = piece[self._missing :]
            self._tail = (self._tail + _bytes("".join(self._unseen)))[-_WINDOW:]
            self._unseen, self._missing = [], INTERVAL
            self._looping = _look(self._tail, _TRUSTING) is not None
        self._unseen.append(piece)
        self._missing -= len(piece)
        return self._looping


def is_loop(text: str, ended_by_itself: bool) -> bool:
    """Whether an answer loops at its end, looped on the way, or is mostly copies of itself.

    What `LoopWatch` would have stopped is a loop; of an answer that did not end by itself (it ran
    into a limit or was stopped) less is enough.
    """
    patience = _TRUSTING if ended_by_itself else _STRICT
    looks = _looks(text, patience)
    return any(start is not None for start, _ in looks) or _copied(text, patience) is not None


def looping_span(text: str, ended_by_itself: bool) -> Span | None:
    """What of a looping answer says nothing new: its loop without the first round."""
    patience = _TRUSTING if ended_by_itself else _STRICT
    start, end = None, 0
    for told, stop in _looks(text, patience):
        if told is not None:
            start, end = told if start is None else start, stop
        elif start is not None:
            break
    return Span(start, end) if start is not None else _copied(text, patience)


def _looks(text: str, at_the_end: _Patience) -> Iterator[tuple[int | None, int]]:
    """Where the first round of a loop ends that goes on to a place, and that place: a pair a look.

    The last look is at the whole answer; the ones before are those of `LoopWatch`.
    """
    tail = b""
    interval = max(INTERVAL, len(text) // _MOST_LOOKS)
    for begin in range(0, len(text), interval):
        stop = min(begin + interval, len(text))
        tail = (tail + _bytes(text[begin:stop]))[-_WINDOW:]
        told = _look(tail, at_the_end if stop == len(text) else _TRUSTING)
        yield None if told is None else stop - len(tail[told:].decode("utf-8", "ignore")), stop


def _bytes(text: str) -> bytes:
    return text.encode("utf-8", "replace")


def _look(tail: bytes, patience: _Patience) -> int | None:
    """Where in `tail` the first round of its loop ends; None if it is not one."""
    for period, held in periods(tail):
        unit = tail[-period:]
        if _too_much(unit, held // period, patience.text, None, patience):
            return len(tail) - held + period
    return (
        _counting(tail, patience)
        or marching(tail, patience.stray, patience.bare)
        or _stale(tail, patience)
    )


def _too_much(
    unit: bytes, rounds: int, most_text: int, most_rounds: int | None, patience: _Patience
) -> bool:
    """Whether so many rounds of `unit`, wherever in it a round begins, are more than a page has."""
    twice, thrice = unit * 2, unit * 3
    if _LEADERS.fullmatch(unit):
        return rounds * len(unit) >= patience.leaders
    boxed = b"<|ref|>" in twice and b"<|det|>" in twice
    cells = rounds * (thrice.count(b"<td") - twice.count(b"<td"))
    text = rounds * len(unit)
    if boxed or cells:
        text = rounds * (len(_TAG.sub(b"", thrice)) - len(_TAG.sub(b"", twice)))
    if text >= most_text:
        return True
    if cells:
        rows = rounds * (thrice.count(b"<tr") - twice.count(b"<tr"))
        in_a_row = not rows and cells >= patience.row_cells
        return cells >= patience.cells or rows >= patience.rows or in_a_row
    # Boxes without words are judged by where they stand.
    return most_rounds is not None and rounds >= most_rounds and not boxed


def _counting(tail: bytes, patience: _Patience) -> int | None:
    """A loop but for its numbers, which count up; with all digits left out it repeats exactly."""
    bare = tail.translate(None, _DIGITS)
    if len(bare) == len(tail):
        return None
    for period, held in periods(bare):
        unit, rounds = bare[-period:], held // period
        if not _too_much(unit, rounds, patience.text, patience.counted, patience):
            continue
        begin = offset(tail, len(bare) - held, _DIGITS)
        numbers = [int(number) for number in _NUMBER.findall(_TAG.sub(b" ", tail[begin:]))]
        if not numbers or (
            _too_much(unit, rounds, patience.counted_text, patience.counted, patience)
            and steady(numbers, round(len(numbers) / rounds))
        ):
            return offset(tail, len(bare) - held + period, _DIGITS)
    return None


def _stale(tail: bytes, patience: _Patience) -> int | None:
    """A loop with a slip here and there, as the n-gram processor forces it to have."""
    said = tail.translate(None, _RULED)
    if len(said) < patience.stale:
        return None
    packed = len(zlib.compress(said[-patience.stale :], level=1))
    if packed * _LEAST_SQUEEZED >= patience.stale:
        return None
    return offset(tail, len(said) - patience.stale + INTERVAL, _RULED)


def _copied(text: str, patience: _Patience) -> Span | None:
    """From where the commonest sentence is said again, if most of all were said before."""
    said = Counter[str]()
    again: dict[str, int] = {}
    for found in _SENTENCE.finditer(text):
        sentence = found[0].strip()
        if sum(map(str.isalnum, sentence)) >= _LEAST_SENTENCE:
            said[sentence] += 1
            if said[sentence] == 2:
                again[sentence] = found.start()
    whole = sum(len(_bytes(sentence)) * times for sentence, times in said.items())
    copied = whole - sum(len(_bytes(sentence)) for sentence in said)
    often = said.total() >= LEAST_ROUNDS * len(said)
    if copied < max(patience.copied, _MOST_OFTEN_COPIED * whole) or not often:
        return None
    return Span(again[said.most_common(1)[0][0]], len(text))

"""Where the end of some bytes repeats, exactly or but for numbers that count up.

Everything takes a few passes that run in C, whatever the bytes are.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

LEAST_ROUNDS = 4
"""Rounds from which on a period counts: three copies of a coupon are a page of coupons."""

_KEYS = (32, 128, 512, 2048, 8192)  # a key as long as the period finds the period
_LEAST_STEADY = 0.9  # of a counter's steps: now and then it starts anew


def periods(data: bytes) -> Iterator[tuple[int, int]]:
    """Periods of the end of `data`, each with the number of bytes for which it holds.

    The last n bytes stand nearest before themselves one period before, if n is at least the period
    (Fine and Wilf); a shorter key may find less, and a longer one then finds the period.
    """
    turned = data[::-1]
    held = 0
    for length in _KEYS:
        if length > held:
            period = turned.find(turned[:length], 1)
            if period < 0:
                return
            held = period + _common(turned, period)
            if held >= LEAST_ROUNDS * period:
                yield period, held


def _common(data: bytes, by: int) -> int:
    """How many bytes of `data` are the same again `by` bytes later."""
    low, high = 0, len(data) - by
    while low < high:
        middle = (low + high + 1) // 2
        if data.startswith(data[low:middle], by + low):
            low = middle
        else:
            high = middle - 1
    return low


def offset(data: bytes, wanted: int, left_out: bytes) -> int:
    """Where in `data` its first `wanted` bytes end that are none of `left_out`."""
    low, high = 0, len(data)
    while low < high:
        middle = (low + high) // 2
        if len(data[:middle].translate(None, left_out)) < wanted:
            low = middle + 1
        else:
            high = middle
    return low


def steady(numbers: list[int], a_round: int) -> bool:
    """Whether each number steps on from its fellow a round before by always the same."""
    steps = [later - number for number, later in zip(numbers, numbers[a_round:], strict=False)]
    for place in range(a_round):
        seen = Counter(steps[place::a_round])
        if seen.most_common(1)[0][1] < _LEAST_STEADY * seen.total():
            return False
    return True

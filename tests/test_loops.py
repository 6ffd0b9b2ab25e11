"""What is a loop and what only looks like one, over a whole answer and while it comes in."""

from __future__ import annotations

import random
import time
from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tasks.loops import INTERVAL, LoopWatch, is_loop, looping_span
from tests.realoutputs import real_outputs

SYLLABLES = ("ba", "den", "ge", "ker", "lo", "min", "na", "ri", "sol", "tu", "ver", "wa", "zi")
VOCABULARY = [one + other for one in SYLLABLES for other in SYLLABLES]

SEEN_WITHIN = 12_000 + 2 * INTERVAL  # characters, for dots and dashes; all else is seen sooner
A_LOT = 30_000  # characters that 8,000 tokens of a loop would have


def words(chance: random.Random, count: int) -> str:
    return " ".join(chance.choice(VOCABULARY) for _ in range(count))


def boxed(label: str, x0: int, y0: int, x1: int, y1: int, text: str = "") -> str:
    return f"<|ref|>{label}<|/ref|><|det|>[[{x0}, {y0}, {x1}, {y1}]]<|/det|>\n{text}"


def icons(count: int, across: int) -> str:
    step = 950 // max(across, -(-count // across))
    return "".join(
        boxed("image", 20 + x * step, 20 + y * step, 15 + (x + 1) * step, 15 + (y + 1) * step)
        for y, x in (divmod(number, across) for number in range(count))
    )


def table(rows: int, columns: int, cell: Callable[[int, int], object]) -> str:
    lines = (
        "".join(f"<td>{cell(row, column)}</td>" for column in range(columns)) for row in range(rows)
    )
    return f"<table>{''.join(f'<tr>{line}</tr>' for line in lines)}</table>"


def looks_like_a_loop() -> dict[str, str]:
    chance = random.Random(20)
    number, word = chance.randint, lambda: chance.choice(VOCABULARY)
    refrain = (
        "Oh sing the song of the river again,\nand let the water carry us down,\n"
        "down where the willow bends to the sand,\noh sing the song, the song of the land.\n\n"
    )
    pages = {f"{count} icons, {n} a row": icons(count, n) for count in (4, 17, 40) for n in (1, 5)}
    pages |= {
        "number table": table(60, 12, lambda _, __: number(0, 999)),
        "decimals": table(60, 12, lambda _, __: f"{chance.random() * 100:.2f}"),
        "numbered rows": table(60, 12, lambda row, n: number(0, 9) if n else row + 1),
        "all zeros": table(60, 12, lambda _, __: 0),
        "yes and no": table(60, 12, lambda _, __: chance.choice(["yes", "no"])),
        "sparse table": table(60, 12, lambda _, __: chance.choice(["", "", "", 5])),
        "multiplication": table(25, 25, lambda row, n: (row + 1) * (n + 1)),
        "calendar": table(31, 12, lambda row, _: row + 1),
        "empty form": table(40, 8, lambda _, __: ""),
        "numbered form": table(40, 8, lambda row, n: "" if n else row + 1),
        "form with names": table(40, 8, lambda _, n: "" if n else word()),
        "Markdown table": "| 0 " * 12 + "|\n" + ("| 0 " * 12 + "|\n") * 59,
        "contents": "\n".join(f"{n}. {words(chance, 4)} {'.' * 90} {n * 3}" for n in range(60)),
        "spaced leaders": "\n".join(f"{words(chance, 3)} {'. ' * 60}{n}" for n in range(60)),
        "leaders alone": f"{'.' * 150}\n" * 60,
        "underscores": ("_" * 90 + "\n\n") * 60,
        "dashes": ("- " * 45 + "\n") * 60,
        "rows of a form": "Date: ____________ Amount: ____________ EUR\n" * 30,
        "song": "".join(f"{words(chance, 25)}\n{words(chance, 22)}\n\n{refrain}" for _ in range(5)),
        "refrain alone": refrain * 5,
        "labels": "Pagelake Ltd.\n12 Long Street\nLondon SW1A 1AA\nUnited Kingdom\n\n" * 30,
        "similar lines": "\n".join(
            f"{n}. Item no. {1000 + n}, {word()} {word()}, costs {number(1, 99)}.50 EUR"
            for n in range(50)
        ),
        "answer sheet": "".join(f"{n}. A B C D E\n" for n in range(1, 101)),
        "chess": " ".join(
            f"{n}. {chance.choice('NBRQK')}{chance.choice('abcdefgh')}{number(1, 8)} "
            f"{chance.choice('abcdefgh')}{number(1, 8)}"
            for n in range(1, 300)
        ),
        "DNA": "\n".join("".join(chance.choices("ACGT", k=60)) for _ in range(80)),
        "index": "\n".join(
            f"{word()}, {word()} {number(1, 400)}, {number(1, 400)}–{number(1, 400)}"
            for _ in range(180)
        ),
        "log": "\n".join(
            f"2024-05-01 12:{n // 60:02}:{n % 60:02} INFO [worker-{number(1, 4)}] "
            f"{words(chance, 6)}"
            for n in range(90)
        ),
        "log that ticks": "\n".join(
            f"2024-05-01 12:{n // 60:02}:{n % 60:02} INFO [worker-1] nothing to do"
            for n in range(90)
        ),
        "code": "\n".join(
            f"        self.{word()}_{n} = config.get('{word()}', {chance.choice(['None', '0'])})"
            for n in range(90)
        ),
        "lines in refs": "".join(
            boxed(words(chance, 4), 50, n * 10, 900, n * 10 + 9) for n in range(100)
        ),
        "digits in refs": "".join(
            boxed(str(number(0, 9)), n % 12 * 80, n // 12 * 16, n % 12 * 80 + 50, n // 12 * 16 + 12)
            for n in range(720)
        ),
        "check boxes": "".join(
            boxed("text", 50, n * 16, 62, n * 16 + 12, "☐\n\n") for n in range(60)
        ),
        "grounded page": "".join(
            boxed("text", 50, n * 10, 900, n * 10 + 9, words(chance, 14) + "\n\n")
            for n in range(100)
        ),
        "long prose": words(chance, 6000),
    }
    return pages


def loops() -> dict[str, str]:
    chance = random.Random(21)
    before = words(chance, 300) + "\n\n"
    paragraph = words(chance, 90) + "\n\n"
    cjk = "".join(chr(0x4E00 + chance.randrange(2000)) for _ in range(500))
    cases = {
        "one letter": "a" * A_LOT,
        "a word": "the " * 6000,
        "dots": "." * A_LOT,
        "a number": "4815162342" * 3000,
        "line breaks": "<br>" * 6000,
        "a paragraph": paragraph * 40,
        "2,000 characters": words(chance, 500)[:2000] * 14,
        "Chinese words": "装箱方式" * 2000,
        "a Chinese paragraph": cjk * 14,
        "a paragraph in boxes": "".join(
            boxed("text", 50, chance.randint(0, 500), 900, chance.randint(500, 999), paragraph)
            for _ in range(50)
        ),
        "small steps": "".join(boxed("image", 10, 20 + n, 30, 40 + n) for n in range(300)),
        "off the page": "".join(
            boxed("image", 10, 20 + 25 * n, 30, 40 + 25 * n) for n in range(300)
        ),
        "the same box": boxed("image", 10, 20, 30, 40) * 300,
        "five boxes in turn": "".join(
            boxed("image", 10, n % 5 * 100, 90, n % 5 * 100 + 80) for n in range(300)
        ),
        "two labels": "".join(
            boxed("image" if n % 2 else "text", 10, n % 6 * 100, 90, n % 6 * 100 + 80)
            for n in range(300)
        ),
        "a grid without end": "".join(
            boxed("image", n % 9 * 90, n // 9 * 90, n % 9 * 90 + 80, n // 9 * 90 + 80)
            for n in range(300)
        ),
        "far more pictures than fit": "".join(
            boxed("image", n % 25 * 40, n // 25 * 40, n % 25 * 40 + 30, n // 25 * 40 + 30)
            for n in range(400)
        ),
        "boxes with a word": "".join(
            boxed("text", 10, n, 30, n + 9, "Hello\n\n") for n in range(300)
        ),
        "a word in refs": "".join(boxed("Hello", 10, n, 30, n + 9) for n in range(300)),
        "one det": "<|ref|>image<|/ref|><|det|>["
        + ", ".join(f"[{n}, {n}, {n + 20}, {n + 20}]" for n in range(600)),
        "cells of a row": "<table><tr>" + "<td>7</td>" * 2500,
        "empty cells": "<table><tr>" + "<td></td>" * 4000,
        "cells that count": "<table><tr>" + "".join(f"<td>{n}</td>" for n in range(2500)),
        "rows of a cell": "<table>" + "<tr><td></td></tr>" * 2000,
        "rows that count": "<table>" + "".join(f"<tr><td>{n}</td></tr>" for n in range(1500)),
        "rows of twelve": "<table>" + ("<tr>" + "<td></td>" * 12 + "</tr>") * 300,
        "pages": "".join(f"Page {n} of 900 " for n in range(900)),
        "pages anew": "".join(f"Page {n % 9 + 1} of 9 " for n in range(900)),
        "counted lines": "".join(f"{n}. See the section before this one.\n" for n in range(500)),
        "with slips": "".join(
            f"the green house stood by the lake and {words(chance, n % 3 == 0)}" for n in range(800)
        ),
    }
    return {name: before + text for name, text in cases.items()}


def fed(text: str, sizes: list[int]) -> int | None:
    """Where the watch sees a loop in a text that comes in pieces of these sizes, over and over."""
    watch, at = LoopWatch(), 0
    while at < len(text):
        for size in sizes:
            piece = text[at : at + size]
            at += len(piece)
            if watch.feed(piece):
                return at
    return None


HONEST, LOOPS = looks_like_a_loop(), loops()


@pytest.mark.parametrize("name", HONEST)
def test_what_only_looks_like_a_loop_is_none(name: str) -> None:
    text = HONEST[name]
    assert not is_loop(text, ended_by_itself=True)
    assert not is_loop(text, ended_by_itself=False)
    assert fed(text, [5]) is None


def test_real_answers_are_no_loops() -> None:
    for name, text in real_outputs().items():
        assert not is_loop(text, ended_by_itself=True), name
        assert not is_loop(text, ended_by_itself=False), name
        assert fed(text, [5]) is None, name


@pytest.mark.parametrize("name", LOOPS)
def test_loops_are_seen(name: str) -> None:
    text = LOOPS[name]
    assert is_loop(text, ended_by_itself=True)
    assert is_loop(text, ended_by_itself=False)


def test_the_watch_ends_most_loops_within_a_third_of_what_they_would_cost() -> None:
    late = {}
    for name, text in LOOPS.items():
        began = text.index("\n\n") + 2
        seen = fed(text, [5])
        assert seen is not None, name
        if seen - began > 10_500:
            late[name] = seen - began
    # A page may be ruled all over, hold a large empty form, and a slip now and then is no loop yet.
    assert set(late) <= {"dots", "rows of twelve", "with slips", "far more pictures than fit"}, late
    assert max(late.values()) < 24_000


def test_copies_in_another_order_are_a_loop_of_a_whole_answer() -> None:
    chance = random.Random(3)
    sentences = [words(chance, 14) + ". " for _ in range(6)]
    text = "".join(chance.choice(sentences) for _ in range(150))
    assert is_loop(text, ended_by_itself=True)
    copies = "\n".join(sentences) * 2
    assert not is_loop(copies, ended_by_itself=False)


def test_a_loop_that_the_model_left_again_is_still_a_loop() -> None:
    chance = random.Random(4)
    before, loop, after = words(chance, 200), "and so on " * 1000, words(chance, 400)
    text = before + loop + after
    assert is_loop(text, ended_by_itself=True)
    span = looping_span(text, ended_by_itself=True)
    assert span is not None
    left = text[: span.start] + text[span.end :]
    assert left.startswith(before) and left.endswith(after)
    assert len(left) < len(before) + len(after) + 2 * INTERVAL


def test_an_answer_that_was_cut_off_is_trusted_less() -> None:
    text = words(random.Random(5), 100) + " of it" * 700  # 4,200 characters
    assert not is_loop(text, ended_by_itself=True)
    assert is_loop(text, ended_by_itself=False)


def test_an_empty_answer_is_no_loop() -> None:
    assert not is_loop("", ended_by_itself=False)
    assert not LoopWatch().feed("")


@settings(deadline=None, max_examples=40)
@given(st.integers(0, 2**32), st.integers(0, 4000))
def test_prose_is_never_a_loop(seed: int, count: int) -> None:
    text = words(random.Random(seed), count)
    assert not is_loop(text, ended_by_itself=False)
    assert fed(text, [700]) is None


@settings(deadline=None, max_examples=100)
@given(st.text(max_size=3000), st.booleans())
def test_a_short_answer_is_never_a_loop(text: str, ended_by_itself: bool) -> None:
    assert not is_loop(text, ended_by_itself)


units = st.one_of(
    st.text(min_size=1, max_size=300),
    st.text(alphabet="0123456789 ,.-_", min_size=1, max_size=60),
    st.text(alphabet="ab<>/|[]10", min_size=1, max_size=300),
    st.builds(
        lambda seed, n: words(random.Random(seed), 60)[:n], st.integers(), st.integers(1, 300)
    ),
)


@settings(deadline=None, max_examples=150)
@given(st.integers(0, 2**32), st.integers(0, 500), units)
def test_whatever_is_said_for_ever_is_seen(seed: int, count: int, unit: str) -> None:
    before = words(random.Random(seed), count)
    text = before + unit * (SEEN_WITHIN // len(unit) + 1)
    assert is_loop(text, ended_by_itself=True)
    assert is_loop(text, ended_by_itself=False)
    seen = fed(text, [900])
    assert seen is not None and seen - len(before) <= SEEN_WITHIN


@settings(deadline=None, max_examples=60)
@given(st.sampled_from(sorted(LOOPS)), st.lists(st.integers(1, 5000), min_size=1, max_size=8))
def test_the_pieces_make_no_difference(name: str, sizes: list[int]) -> None:
    text = LOOPS[name]
    whole, pieces = fed(text, [1]), fed(text, sizes)
    assert whole is not None and pieces is not None
    assert whole <= pieces < whole + max(sizes)
    assert is_loop(text[:whole], ended_by_itself=True)


@pytest.mark.parametrize(
    "unit",
    [
        *("a", "7", "\n", "<", "[", "9,", "<td", "<|ref|>", "<|det|>", "<|ref|>a<|/ref|><|det|>"),
        *(HONEST[name] for name in ("number table", "digits in refs", "40 icons, 5 a row", "code")),
    ],
    ids=lambda unit: unit[:8],
)
def test_a_megabyte_takes_less_than_a_second(unit: str) -> None:
    text = (unit * (1_000_000 // len(unit) + 1))[:1_000_000]
    began = time.process_time()
    looping_span(text, ended_by_itself=False)
    assert time.process_time() - began < 1


def test_watching_costs_little() -> None:
    text = words(random.Random(6), 20_000)[:100_000]
    pieces = [text[at : at + 4] for at in range(0, len(text), 4)]
    costs = []
    for _ in range(3):
        watch, began = LoopWatch(), time.process_time()
        for piece in pieces:
            watch.feed(piece)
        costs.append(time.process_time() - began)
    assert min(costs) / 100 < 0.001  # seconds for 1,000 characters; 0.0002 were measured

"""What is wrong with an answer, which of several bad ones is kept, and what of it can be read."""

from __future__ import annotations

import random
import time
from collections.abc import Iterable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tasks.check import Complaint, complaint, least_bad, without_loop
from tasks.loops import INTERVAL, is_loop
from tests.realoutputs import real_outputs
from tests.test_loops import LOOPS, boxed, icons, table, words

LETTER = (1280, 1656)
CELLS = 80 * 104
PROSE = words(random.Random(1), 400)
EMPTY_TABLE = table(5, 4, lambda _, __: "")


def judged(
    raw: str, finish_reason: str = "stop", ink: float = 0.3, size: tuple[int, int] = LETTER
) -> Complaint | None:
    return complaint(raw, finish_reason, ink, size)


def grounded(boxes: Iterable[str]) -> str:
    return "".join(
        f"<|ref|>text<|/ref|><|det|>{box}<|/det|>\nLine {number} of it\n\n"
        for number, box in enumerate(boxes)
    )


def test_real_answers_give_no_cause_for_complaint() -> None:
    for name, raw in real_outputs().items():
        assert judged(raw) is None, name
        assert judged(raw, "length") is Complaint.TRUNCATED, name
        assert without_loop(raw) == raw, name


@pytest.mark.parametrize("name", LOOPS)
@pytest.mark.parametrize("finish_reason", ["stop", "length", "abort"])
def test_a_loop_is_a_loop_however_it_ended(name: str, finish_reason: str) -> None:
    assert judged(LOOPS[name], finish_reason) is Complaint.LOOP


def test_what_the_engine_stopped_for_repeating_is_a_loop() -> None:
    assert judged(PROSE, "repetition") is Complaint.LOOP


def test_truncated_is_what_the_engine_says_and_never_guessed() -> None:
    cut = "<|ref|>table<|/ref|><|det|>[[9, 9, 800, 800]]<|/det|>\n<table><tr><td>one</td><td>tw"
    assert judged(cut) is None
    assert judged(cut, "length") is Complaint.TRUNCATED


@pytest.mark.parametrize(
    "raw",
    [
        "",
        " \n\n ",
        "<|ref|>text<|/ref|><|det|>[[1, 2, 300, 400]]<|/det|>\n",
        "<|ref|>title<|/ref|><|det|>[[1, 2, 300, 400]]<|/det|>\n# \n\n- \n",
        "<|ref|>text<|/ref|>",
        "<center></center>&nbsp;\n---",
    ],
)
def test_nothing_said_of_a_page_with_ink_is_empty(raw: str) -> None:
    assert judged(raw) is Complaint.EMPTY_OUTPUT
    assert judged(raw, ink=0.0) is None
    assert judged(raw, ink=3 / CELLS) is None  # a page number


@pytest.mark.parametrize(
    "raw",
    [
        "<|ref|>image<|/ref|><|det|>[[0, 0, 999, 1005]]<|/det|>",
        icons(40, 5),
        f"<|ref|>table<|/ref|><|det|>[[0, 0, 999, 999]]<|/det|>\n{EMPTY_TABLE}",
        EMPTY_TABLE,
        "![](figure.png)",
        "7",
        "☐",
        "不",
        boxed("Total", 1, 2, 30, 40),
    ],
)
def test_a_picture_a_table_or_a_word_is_not_empty(raw: str) -> None:
    assert judged(raw) is None


def test_text_of_a_blank_page_is_hallucinated() -> None:
    assert judged("Hello", ink=0.0) is Complaint.HALLUCINATED
    assert judged(boxed("text", 1, 2, 300, 400, "Hello"), ink=0.0) is Complaint.HALLUCINATED
    assert judged(boxed("image", 0, 0, 999, 999), ink=0.0) is None


def test_more_text_than_the_ink_can_hold_is_hallucinated() -> None:
    assert judged(PROSE, ink=5 / CELLS) is Complaint.HALLUCINATED
    assert judged(PROSE, ink=0.5, size=(64, 64)) is Complaint.HALLUCINATED


@pytest.mark.parametrize("size", [LETTER, (640, 828), (1280, 1920)])
def test_the_densest_page_is_believed(size: tuple[int, int]) -> None:
    # Type of 6 pixels from edge to edge: 2.7 pixels a letter, 6.5 a line.
    characters = int(size[0] / 2.7 * size[1] / 6.5)
    dense = words(random.Random(2), characters // 4)[:characters]
    assert judged(dense, ink=0.9, size=size) is None


def test_a_headline_alone_is_believed() -> None:
    # 40 letters of 5 pt: a line of 190 by 11 pixels, in cells that it may not even half fill.
    assert judged("Printed by the pagelake press, in London", ink=12 / CELLS) is None


@pytest.mark.parametrize(
    "boxes",
    [
        ["[[]]"] * 4,
        ["null"] * 5,
        ["[[0, 0, 0, 0]]"] * 6,
        ["[[0, 0, 999, 999]]"] * 4,
        [f"[[{n}, 5, {n}, 90]]" for n in range(4)],
        [f"[[{n}, 5, 90]]" for n in range(4)],
        ["[[1, 2, 300, 400]]", "[[9, 9, 9, 9]]", "[[]]", "[[1, 2, 300, 400]]", "[[8, 8, 8, 90]]"],
    ],
)
def test_boxes_that_are_mostly_none_are_degenerate(boxes: list[str]) -> None:
    assert judged(grounded(boxes)) is Complaint.DEGENERATE_BOXES


@pytest.mark.parametrize(
    "boxes",
    [
        ["[[0, 0, 0, 0]]"] * 3,
        [f"[[10, {n * 50}, 900, {n * 50 + 40}]]" for n in range(8)],
        [f"[[900, {n * 50 + 40}, 10, {n * 50}]]" for n in range(8)],  # inverted: can be mended
        ["[[1, 2, 300, 400]]", "[[1, 402, 300, 800]]", "[[9, 9, 9, 9]]", "[[]]"],
        ["[[[1, 2, 300, 400]]]", "[[1.5, 2, 30, 40]]", "[[0, 0, 999, 1005]]", "[[5, 5, 9, 9], []]"],
    ],
)
def test_boxes_that_mostly_are_some_will_do(boxes: list[str]) -> None:
    assert judged(grounded(boxes)) is None


def test_the_worst_is_named() -> None:
    loop = grounded(["[[]]"] * 4) + "and so on " * 2000
    assert judged(loop, "length", ink=0.0) is Complaint.LOOP
    assert judged(grounded(["[[]]"] * 4), "length", ink=0.0) is Complaint.TRUNCATED
    assert judged(grounded(["[[]]"] * 4), ink=0.0) is Complaint.HALLUCINATED


# -- what is kept ----------------------------------------------------------------------------------


def test_the_answer_with_most_right_text_is_kept() -> None:
    by_worth = [
        ("little text", Complaint.DEGENERATE_BOXES),
        (PROSE, Complaint.TRUNCATED),
        (PROSE, Complaint.LOOP),
        ("", Complaint.EMPTY_OUTPUT),
        (PROSE, Complaint.HALLUCINATED),
    ]
    assert {complaint for _, complaint in by_worth} == set(Complaint)
    for place, answer in enumerate(by_worth):
        rest = by_worth[place:]
        random.Random(place).shuffle(rest)
        assert rest[least_bad(rest)] == answer


def test_of_loops_the_one_with_most_distinct_text_is_kept() -> None:
    early = (words(random.Random(1), 50) + "\n" + "a long loop of words\n" * 3000, Complaint.LOOP)
    late = (words(random.Random(1), 300) + "\n" + "a loop\n" * 900, Complaint.LOOP)
    assert least_bad([early, late]) == 1
    assert least_bad([late, early]) == 0
    assert least_bad([late, late]) == 0


def test_no_answers_cannot_be_compared() -> None:
    with pytest.raises(ValueError):
        least_bad([])


@pytest.mark.parametrize("name", LOOPS)
def test_what_is_left_of_a_loop_can_be_read(name: str) -> None:
    raw = LOOPS[name]
    before, _, loop = raw.partition("\n\n")
    left = without_loop(raw)
    assert left.startswith(before)
    assert len(left) - len(before) < max(len(loop) / 2, 2 * INTERVAL)
    assert not is_loop(left, ended_by_itself=False)


def test_the_first_round_of_a_loop_is_kept() -> None:
    paragraph = words(random.Random(3), 60) + "\n\n"
    left = without_loop(PROSE + "\n\n" + paragraph * 40)
    assert left.rstrip() == (PROSE + "\n\n" + paragraph).rstrip()
    row = "<tr><td>7</td><td></td></tr>"
    assert without_loop(f"{PROSE}\n<table>{row * 900}").startswith(f"{PROSE}\n<table>{row}")
    boxes = "".join(boxed("image", 10, 20 + n, 90, 90 + n) for n in range(200))
    left = without_loop(PROSE + "\n" + boxes)
    assert left.startswith(PROSE + "\n" + boxed("image", 10, 20, 90, 90).strip())
    assert left.count("<|ref|>") == left.count("<|/det|>") <= 3


@settings(deadline=None, max_examples=100)
@given(st.text(max_size=400), st.text(min_size=1, max_size=200), st.integers(1, 200))
def test_any_answer_can_be_judged(before: str, unit: str, times: int) -> None:
    raw = before + unit * times
    for finish_reason in ("stop", "length", "repetition", ""):
        judged(raw, finish_reason)
    assert len(without_loop(raw)) <= len(raw)
    assert least_bad([(raw, Complaint.LOOP), (raw, Complaint.TRUNCATED)]) == 1


@pytest.mark.parametrize("unit", ["<|ref|>", "<|det|>[[1, ", "<", "&amp;", "[[", "a. ", "<td>&"])
def test_a_megabyte_is_judged_in_two_seconds(unit: str) -> None:
    chance = random.Random(4)
    kinds = {
        "one": unit * (1_000_000 // len(unit)),
        "mixed": "".join(
            unit + chance.choice("abcdef<>|[]\n") for _ in range(900_000 // len(unit))
        ),
    }
    for name, raw in kinds.items():
        began = time.process_time()
        judged(raw[:1_000_000])
        assert time.process_time() - began < 2, name  # 0.7 measured, parsing included

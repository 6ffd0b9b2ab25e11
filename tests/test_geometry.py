"""Boxes through turns, lines into regions, regions into reading order."""

from __future__ import annotations

import random
import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from schemas.records import Block, Box
from schemas.tables import KINDS
from tasks.compose import compose, inside
from tasks.layout import Region
from tasks.lines import Line
from tasks.readingorder import reading_order
from tasks.turn import unturn_block, unturn_box, upright_size

TURNS = (0, 90, 180, 270)

sizes = st.floats(1, 15_000)
shares = st.tuples(st.floats(0, 0.99), st.floats(0.001, 1)).map(
    lambda pair: (pair[0], min(pair[0] + pair[1], 1.0))
)


def turn_box(box: Box, width: float, height: float, turn: int) -> Box:
    """A box after the page of `width` by `height` was turned clockwise, a quarter at a time."""
    for _ in range(turn // 90):
        x0, y0, x1, y1 = box
        box = (height - y1, x0, height - y0, x1)
        width, height = height, width
    return box


# -- turns ---------------------------------------------------------------------------------------


@given(sizes, sizes, shares, shares, st.sampled_from(TURNS))
def test_unturning_undoes_turning(
    width: float, height: float, across: Box, down: Box, turn: int
) -> None:
    box = (across[0] * width, down[0] * height, across[1] * width, down[1] * height)
    turned = turn_box(box, width, height, turn)
    upright_width, upright_height = upright_size(width, height, turn)
    slack = 1e-9 * (width + height)
    assert -slack <= turned[0] <= turned[2] <= upright_width + slack
    assert -slack <= turned[1] <= turned[3] <= upright_height + slack
    assert unturn_box(turned, width, height, turn) == pytest.approx(box, abs=slack)


@pytest.mark.parametrize("turn", TURNS)
def test_unturning_agrees_with_a_picture_that_was_turned(turn: int) -> None:
    page = np.zeros((70, 40), np.uint8)  # 40 wide, 70 high
    page[10:15, 4:30] = 1
    upright = np.rot90(page, -turn // 90)  # numpy turns counter-clockwise
    ys, xs = np.nonzero(upright)
    seen = (float(xs.min()), float(ys.min()), float(xs.max() + 1), float(ys.max() + 1))
    assert upright.shape[::-1] == upright_size(40, 70, turn)
    assert unturn_box(seen, 40, 70, turn) == (4, 10, 30, 15)
    block = unturn_block(Block("text", "", "", seen, boxes=(seen, seen)), 40, 70, turn)
    assert block.box == (4, 10, 30, 15) and block.boxes == ((4, 10, 30, 15),) * 2


def test_a_block_without_a_box_is_left_alone() -> None:
    assert unturn_block(Block("text", "", "words", None), 10, 20, 90).box is None


# -- compose -------------------------------------------------------------------------------------

WIDTH, HEIGHT = 600.0, 800.0
corners = st.tuples(
    st.floats(-50, 640), st.floats(-50, 840), st.floats(0.1, 400), st.floats(0.1, 60)
)
on_page = corners.map(lambda c: (c[0], c[1], c[0] + c[2], c[1] + c[3]))
regions = st.lists(
    st.builds(Region, st.sampled_from(KINDS), st.just("seen"), on_page, st.integers(0, 6)),
    max_size=12,
)


def numbered(boxes: list[Box]) -> list[Line]:
    return [Line(f"w{number}x", box, 0.5) for number, box in enumerate(boxes)]


@settings(max_examples=250, deadline=None)
@given(st.lists(on_page, max_size=25), regions)
def test_every_line_is_in_exactly_one_block(boxes: list[Box], found: list[Region]) -> None:
    blocks = [block for block, _ in compose(numbered(boxes), found, WIDTH, HEIGHT)]
    words = " ".join(block.text for block in blocks).split()
    assert sorted(words) == sorted(line.text for line in numbered(boxes))
    for block in blocks:
        assert block.kind in KINDS
        for x0, y0, x1, y1 in block.boxes:
            assert 0 <= x0 < x1 <= WIDTH and 0 <= y0 < y1 <= HEIGHT
        assert block.boxes == ((block.box,) if block.box else ())
        assert block.text or block.kind == "figure"


@pytest.mark.parametrize("rows", [[["", ""]], [[""]], [["Name", "Age"], ["Ada", ""]]])
def test_what_a_table_missed_is_not_lost(rows: list[list[str]]) -> None:
    lines = [
        Line("Name", (10, 10, 50, 20)),
        Line("Age", (110, 10, 150, 20)),
        Line("Ada", (10, 30, 50, 40)),
        Line("36", (110, 30, 150, 40)),
    ]
    table = Region("table", "table", (0, 0, 200, 50), rows=rows)
    blocks = compose(lines, [table], WIDTH, HEIGHT)
    assert sorted(" ".join(block.text for block, _ in blocks).split()) == [
        "36",
        "Ada",
        "Age",
        "Name",
    ]


def test_nested_regions_running_heads_and_strays() -> None:
    lines = [
        Line("page 3", (280, 780, 320, 790)),
        Line("inside the picture", (120, 120, 200, 130)),
        Line("Fig. 1: its caption", (110, 280, 290, 290)),
        Line("left out by the layout", (100, 400, 300, 410), 0.4),
        Line("second line of that", (100, 412, 300, 422), 0.6),
        Line("journal", (100, 10, 200, 20)),
    ]
    found = [
        Region("page_footer", "page-footer", (270, 770, 330, 800)),
        Region("figure", "picture", (100, 100, 300, 300)),
        Region("caption", "caption", (100, 275, 300, 295)),
        Region("page_header", "page-header", (0, 0, 600, 30)),
    ]
    blocks = [block for block, _ in compose(lines, found, WIDTH, HEIGHT)]
    assert [block.kind for block in blocks] == [
        "page_header",
        "figure",
        "caption",
        "text",
        "page_footer",
    ]
    stray = blocks[3]
    assert stray.text == "left out by the layout second line of that"
    assert stray.box == (100, 400, 300, 422) and stray.confidence == pytest.approx(0.5)


def test_inside_cuts_at_the_edges() -> None:
    assert inside((-5, -5, 10, 10), 100, 100) == (0, 0, 10, 10)
    assert inside((90, 90, 110, 120), 100, 100) == (90, 90, 100, 100)
    assert inside((100, 0, 120, 10), 100, 100) is None


# -- reading order -------------------------------------------------------------------------------


def in_order(*boxes: Box) -> None:
    """The boxes are given in the order in which they are to be read; any shuffle must find it."""
    for seed in range(6):
        shuffled = list(range(len(boxes)))
        random.Random(seed).shuffle(shuffled)
        order = reading_order([boxes[i] for i in shuffled])
        assert [shuffled[i] for i in order] == list(range(len(boxes)))


def column(x0: float, x1: float, *edges: float) -> list[Box]:
    """Paragraphs one under the other: edges are top, bottom, top, bottom and so on."""
    return [(x0, y0, x1, y1) for y0, y1 in zip(edges[::2], edges[1::2], strict=True)]


LEFT, RIGHT, WHOLE = (50.0, 290.0), (310.0, 550.0), (50.0, 550.0)
TITLE = (*WHOLE[:1], 40.0, *WHOLE[1:], 70.0)


@settings(deadline=None)
@given(st.lists(on_page, max_size=40))
def test_any_boxes_are_put_in_some_order(boxes: list[Box]) -> None:
    assert sorted(reading_order(boxes)) == list(range(len(boxes)))


def test_two_columns_under_a_title() -> None:
    left, right = column(*LEFT, 90, 200, 215, 500, 510, 700), column(*RIGHT, 90, 350, 365, 700)
    in_order(TITLE, *left, *right)


def test_columns_whose_gaps_align_are_not_torn() -> None:
    edges = (90.0, 200.0, 220.0, 400.0, 420.0, 700.0)
    in_order(TITLE, *column(*LEFT, *edges), *column(*RIGHT, *edges))


def test_three_columns() -> None:
    in_order(
        TITLE,
        *column(50, 200, 90, 300, 310, 700),
        *column(220, 370, 90, 200, 210, 450, 460, 700),
        *column(390, 540, 90, 500, 510, 640),
    )


def test_a_left_column_that_is_longer_than_the_right_one() -> None:
    in_order(TITLE, *column(*LEFT, 90, 300, 310, 500, 510, 700), *column(*RIGHT, 90, 305))


def test_a_right_column_that_is_longer_than_the_left_one() -> None:
    in_order(TITLE, *column(*LEFT, 90, 305), *column(*RIGHT, 90, 300, 310, 500, 510, 700))


def test_a_short_last_line_under_the_longer_left_column() -> None:
    in_order(*column(*LEFT, 90, 300, 310, 500), (50, 505, 120, 515), *column(*RIGHT, 90, 305))


def test_addresses_side_by_side_above_paragraphs() -> None:
    sender, addressee = column(50, 200, 40, 52, 54, 66, 68, 80), column(400, 550, 40, 52, 54, 66)
    in_order(*sender, *addressee, *column(*WHOLE, 120, 200, 215, 300, 315, 400))


def test_paragraphs_above_columns_above_paragraphs() -> None:
    in_order(
        *column(*WHOLE, 40, 100, 110, 160),
        *column(*LEFT, 180, 300, 310, 400),
        *column(*RIGHT, 180, 240, 250, 400),
        *column(*WHOLE, 420, 500),
    )


def test_a_table_between_two_parts_of_columns() -> None:
    in_order(
        TITLE,
        *column(*LEFT, 90, 200, 210, 300),
        *column(*RIGHT, 90, 250, 260, 300),
        (50, 320, 550, 450),
        *column(*LEFT, 470, 600, 610, 700),
        *column(*RIGHT, 470, 520, 530, 700),
    )


def test_a_table_inside_one_column() -> None:
    in_order(*column(*LEFT, 90, 200, 210, 400, 410, 700), *column(*RIGHT, 90, 300, 310, 700))


def test_a_heading_in_each_column_over_its_text() -> None:
    in_order(
        TITLE,
        (50, 90, 130, 105),
        *column(*LEFT, 110, 300, 315, 700),
        (310, 90, 420, 105),
        *column(*RIGHT, 110, 300, 315, 700),
    )


_SPOTS = [
    (random.Random(n).uniform(0, 2000), random.Random(-n).uniform(0, 2000)) for n in range(400)
]
CROWDED: dict[str, list[Box]] = {
    "map": [(x, y, x + 40, y + 8) for x, y in _SPOTS],
    "columns": [(310 * (n % 2), 10 * n, 310 * (n % 2) + 280, 10 * n + 9) for n in range(400)],
    "form": [(0, 10 * n, 40 + n % 60, 10 * n + 9) for n in range(400)],
    "stairs": [(30 * n, 10 * n, 30 * n + 20, 10 * n + 9) for n in range(400)],
    "widening": [(0.05 * n * n, 0, 0.05 * n * n + 0.01, 9) for n in range(1000, 1400)],
}


@pytest.mark.parametrize("name", CROWDED)
def test_a_page_of_many_small_labels_takes_no_time(name: str) -> None:
    """Maps, charts and forms have thousands of lines and no columns."""
    began = time.monotonic()
    assert sorted(reading_order(CROWDED[name])) == list(range(400))
    assert time.monotonic() - began < 2

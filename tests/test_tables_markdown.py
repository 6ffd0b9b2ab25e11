"""Tables from HTML that nobody closed, and Markdown that says what the blocks say."""

from __future__ import annotations

import re
import time

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from schemas.records import Block
from tasks.markdown import page_markdown, page_text
from tasks.tables import html_from_rows, markdown_from_rows, rows_from_html, text_from_rows

cell_texts = st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=12)
tables = st.integers(1, 4).flatmap(
    lambda width: st.lists(st.lists(cell_texts, min_size=width, max_size=width), max_size=4)
)


def markdown_cells(line: str) -> list[str]:
    """The cells of a row, as GFM splits it: at pipes that no backslash stands before."""
    inner = line.strip()
    assert inner.startswith("|") and inner.endswith("|")
    cells = re.findall(r"(?:\\.|[^\\|])+(?=\|)", inner[1:])
    return [cell.strip() for cell in cells]


# -- HTML into rows ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("markup", "rows"),
    [
        ("<table><tr><td>a<td>b<tr><td>c<td>d</table>", [["a", "b"], ["c", "d"]]),
        ("<table><tr><td>a</td><td>b", [["a", "b"]]),
        ("<tr><td>a</td></tr>", [["a"]]),
        ("<td>no row</td>", [["no row"]]),
        ("<table><thead><tr><th>h</th></tr></thead><tbody><tr><td>1</tbody>", [["h"], ["1"]]),
        ("<TABLE><TR><TD>Upper</TD></TR></TABLE>", [["Upper"]]),
        ("<td>a &amp;lt; b</td><td>&eacute;&#38;&#x26;</td>", [["a &lt; b", "é&&"]]),
        ("<td>one<br>two<br/>three</td>", [["one\ntwo\nthree"]]),
        ("<td> <b>bold</b> and <i>more</i> </td>", [["bold and more"]]),
        ("before<table><tr><td>in</td></tr></table>after", [["in"]]),
        ("<table><tr></tr><tr><td></td></tr></table>", [[""]]),
        ("", []),
        ("no table at all", []),
    ],
)
def test_cells_are_found(markup: str, rows: list[list[str]]) -> None:
    assert rows_from_html(markup) == rows


@pytest.mark.parametrize(
    ("markup", "rows"),
    [
        (
            "<tr><td rowspan=2>a<td>b<td>c<tr><td colspan=2>d<tr><td>e",
            [["a", "b", "c"], ["", "d", ""], ["e", "", ""]],
        ),
        (
            '<tr><th colspan="2" rowspan="2">h</th><th>x</th></tr><tr><th>y</th></tr>',
            [["h", "", "x"], ["", "", "y"]],
        ),
        ("<tr><td rowspan=9>a<td>b<tr><td>c", [["a", "b"], ["", "c"]]),
        ("<tr><td rowspan=0>a<td colspan=-3>b<td colspan=two>c", [["a", "b", "c"]]),
    ],
)
def test_spans_reach_over_empty_cells(markup: str, rows: list[list[str]]) -> None:
    assert rows_from_html(markup) == rows


def test_several_tables_are_read_one_after_the_other() -> None:
    markup = "<table><tr><td>1</td></tr></table><p>text</p><table><tr><td>2</td><td>3</td></tr>"
    assert rows_from_html(markup) == [["1", ""], ["2", "3"]]


def test_paragraphs_of_a_cell_are_not_glued() -> None:
    ((cell,),) = rows_from_html("<td><p>first</p><p>second</p><ul><li>third</li></ul></td>")
    assert cell.split() == ["first", "second", "third"]


@pytest.mark.parametrize("span", ["1000000", "9" * 30, "9" * 5000, "٣", "²"])
def test_a_huge_or_odd_span_is_no_trouble(span: str) -> None:
    began = time.monotonic()
    rows = rows_from_html(f"<tr><td colspan={span} rowspan={span}>a</td><td>b</td></tr><tr><td>c")
    assert time.monotonic() - began < 1
    assert "".join("".join(row) for row in rows) == "abc"


def test_many_huge_spans_take_bounded_time_and_space() -> None:
    """10 kB of markup must not become millions of cells, each to be written out as Markdown."""
    row = "<tr>" + "<td colspan=100 rowspan=100>x" * 3
    began = time.monotonic()
    rows = rows_from_html(row * 100)
    assert time.monotonic() - began < 5
    assert sum(map(len, rows)) <= 1_000_000


pieces = st.sampled_from(
    [
        "<table>",
        "</table>",
        "<tr>",
        "<td",
        ">",
        "<td>",
        "</td>",
        " rowspan=",
        "3",
        "<![",
        "<!--",
        "CDATA[",
        "<?",
        "&",
        "&#",
        "x",
        ";",
        "<!",
        "]]>",
        "</",
        '"',
        "<br>",
        "-->",
        "if",
        "<script>",
    ]
)


@settings(max_examples=300, deadline=None)
@given(st.text(max_size=60) | st.lists(pieces, max_size=12).map("".join))
@example("<![x")
@example("<![if ]><td>a")
@example("<td>a<!x [ <!y ]>")
def test_garbage_gives_a_rectangle_or_nothing(markup: str) -> None:
    rows = rows_from_html(markup)
    assert len({len(row) for row in rows}) <= 1


@settings(deadline=None)
@given(tables)
def test_rows_survive_html(rows: list[list[str]]) -> None:
    assert rows_from_html(html_from_rows(rows)) == [[cell.strip() for cell in r] for r in rows]


# -- rows into Markdown --------------------------------------------------------------------------


@given(tables)
@example([["a|b", "c\nd"], ["\\|", "e\\"]])
@example([["carriage\rreturn"]])
def test_a_markdown_table_has_a_line_a_row_and_all_cells(rows: list[list[str]]) -> None:
    table = markdown_from_rows(rows)
    if not rows:
        assert table == ""
        return
    lines = re.split(r"\r\n|\r|\n", table)  # CommonMark's line endings
    assert len(lines) == len(rows) + 1
    width = len(rows[0])
    assert re.fullmatch(rf"\|( --- \|){{{width}}}", lines[1])
    for line, row in zip(lines[:1] + lines[2:], rows, strict=True):
        assert len(markdown_cells(line)) == width
        for cell, found in zip(row, markdown_cells(line), strict=True):
            letters = [c for c in cell if c.isalnum()]
            assert [c for c in found.replace("<br>", "") if c.isalnum()] == letters


def test_a_markdown_table_by_hand() -> None:
    rows = [["Item", "a|b"], ["two\n lines"]]
    assert markdown_from_rows(rows) == ("| Item | a\\|b |\n| --- | --- |\n| two<br>lines |  |")
    assert text_from_rows(rows) == "Item\ta|b\ntwo lines"


# -- blocks into Markdown ------------------------------------------------------------------------


def block(kind: str, text: str, html: str | None = None) -> Block:
    return Block(kind, kind, text, None, html)


def markdown_of(*blocks: Block) -> str:
    return page_markdown([(each, 0) for each in blocks])


def test_running_heads_are_left_out() -> None:
    blocks = [block("page_header", "Journal"), block("text", "Body."), block("page_footer", "3")]
    assert markdown_of(*blocks) == "Body."
    assert page_text(blocks) == "Body."


def test_headings_have_their_level() -> None:
    told = [(block("title", "T"), 0), (block("section_header", "S"), 0)]
    assert page_markdown(told) == "# T\n\n## S"
    told = [(block("title", "T"), 2), (block("section_header", "S"), 4), (block("text", "x"), 0)]
    assert page_markdown(told) == "## T\n\n#### S\n\nx"


def test_items_of_a_list_stand_together() -> None:
    items = [
        block("list_item", text) for text in ("• one", "- two", "three", "4. four", "(a) five")
    ]
    assert markdown_of(block("text", "Before"), *items, block("text", "After")) == (
        "Before\n\n- one\n- two\n- three\n4. four\n(a) five\n\nAfter"
    )


@pytest.mark.parametrize("text", ["-5 °C at night", "–3 % since May", "*args are passed on"])
def test_a_sign_is_not_a_bullet(text: str) -> None:
    assert markdown_of(block("list_item", text)) == f"- {text}"


def test_tables_figures_formulas_code_and_notes() -> None:
    table = block("table", "a\tb", "<table><tr><td>a<td>b</table>")
    assert markdown_of(table) == "| a | b |\n| --- | --- |"
    assert markdown_of(block("formula", "x^2"), block("code", "x = 1")) == (
        "$$\nx^2\n$$\n\n```\nx = 1\n```"
    )
    figure = Block("figure", "picture", "Axis", None, figure_uri="figures/d/1-1.webp")
    assert markdown_of(figure, block("footnote", "1 See.")) == (
        "![](figures/d/1-1.webp)\n\nAxis\n\n> 1 See."
    )


@pytest.mark.parametrize(
    "text",
    [
        "# 12 Main Street",
        "> 90 %",
        "- minus",
        "+ plus",
        "* star",
        "``` fence",
        "| a | b |",
        "#",
        "##",
        "---",
        "***",
        "___",
        "~~~ fence",
        "1. January",
        "27) Annex",
    ],
)
def test_text_that_looks_like_structure_is_escaped(text: str) -> None:
    out = markdown_of(block("text", "First."), block("text", text)).split("\n\n")[1]
    assert out.replace("\\", "") == text
    assert "\\" in out and re.match(r"\\|[0-9]+\\", out)


def test_text_inside_a_figure_is_no_heading_either() -> None:
    assert "\n# 4" not in "\n" + markdown_of(block("figure", "# 4 of the plan\n# 5"))


def test_code_that_holds_a_fence_stays_code() -> None:
    lines = markdown_of(block("code", "```\ninner\n```")).split("\n")
    assert lines[0] == lines[-1] and lines[0].startswith("````")

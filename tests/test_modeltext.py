"""Markdown as models write it: its structure, its tables, and nothing in it alive."""

from __future__ import annotations

import pytest

from schemas.records import Block
from tasks.grounding import page, pieces
from tasks.tables import html_from_table, rows_from_table, table_from_html


def blocks(raw: str) -> list[Block]:
    return [piece.block for piece in pieces(raw, 595, 842).pieces]


def markdown(raw: str) -> str:
    return page(pieces(raw, 595, 842), "1").markdown


def table(markup: str) -> Block:
    (block,) = blocks(f"<|ref|>table<|/ref|><|det|>[[0, 0, 9, 9]]<|/det|>\n{markup}")
    return block


# -- structure -----------------------------------------------------------------------------------

ANSWER = """\
# Tubs

Two lines
of a paragraph.\x20\x20

## 1. Sizes

- small, **cold**
  and wet
- large
  1. inner
2) other

| Item | Price |
|:-----|------:|
| a\\|b | **3** |
| c |

$$
a^2 < b
$$

\\[ x = 1 \\]

---
```python
# no heading
<b>
```
<table><tr><td>x</td></tr></table>
"""


def test_plain_markdown_becomes_blocks() -> None:
    assert [(block.kind, block.label, block.text) for block in blocks(ANSWER)] == [
        ("title", "heading", "Tubs"),
        ("text", "paragraph", "Two lines\nof a paragraph."),
        ("section_header", "heading", "1. Sizes"),
        ("list_item", "list", "- small, cold\n  and wet"),
        ("list_item", "list", "- large"),
        ("list_item", "list", "1. inner"),
        ("list_item", "list", "2) other"),
        ("table", "table", "Item\tPrice\na|b\t3\nc"),
        ("formula", "formula", "$$\na^2 < b\n$$"),
        ("formula", "formula", "\\[ x = 1 \\]"),
        ("code", "code", "# no heading\n<b>"),
        ("table", "table", "x"),
    ]


def test_plain_markdown_has_no_boxes_and_no_flags() -> None:
    found = pieces(ANSWER, 595, 842)
    assert found.flags == ()
    assert all(piece.block.box is None for piece in found.pieces)


def test_markdown_stays_the_models_own_but_cleaned() -> None:
    assert markdown(ANSWER) == (
        "# Tubs\n\nTwo lines\nof a paragraph.\n\n## 1. Sizes\n\n"
        "- small, **cold**\n  and wet\n- large\n  1. inner\n2) other\n\n"
        "| Item | Price |\n| --- | --- |\n| a\\|b | 3 |\n| c |  |\n\n"
        "$$\na^2 < b\n$$\n\n\\[ x = 1 \\]\n\n"
        "```python\n# no heading\n<b>\n```\n\n| x |\n| --- |"
    )


def test_a_whole_answer_in_a_fence_is_unwrapped() -> None:
    raw = "```markdown\n# Tubs\n\n```py\ncode\n```\n\nwords\n```"
    assert [block.kind for block in blocks(raw)] == ["title", "code", "text"]


def test_items_glued_into_one_line_are_left_as_they_are() -> None:
    (block,) = blocks("- One tub.- Two tubs, age- old.")
    assert block.text == "- One tub.- Two tubs, age- old."


@pytest.mark.parametrize(
    ("label", "text", "expected"),
    [
        ("title", "Tubs", "# Tubs"),
        ("sub_title", "1. Sizes", "## 1. Sizes"),
        ("sub_title", "#### Deep  ", "#### Deep"),
        ("text", "## Marked", "## Marked"),
        ("equation", "a < b", "$$\na < b\n$$"),
        ("equation", "\\[a<b\\]", "\\[a< b\\]"),
        ("code", "x = 1\ny = 2", "```\nx = 1\ny = 2\n```"),
        ("code", "```c\nx = 1;\n```", "```c\nx = 1;\n```"),
        ("image_caption", "<center>Fig. 1</center>  ", "Fig. 1"),
        ("list", "- a\n- b", "- a\n- b"),
    ],
)
def test_markdown_of_each_kind(label: str, text: str, expected: str) -> None:
    raw = f"<|ref|>{label}<|/ref|><|det|>[[0, 0, 9, 9]]<|/det|>\n{text}"
    assert markdown(raw) == expected


def test_more_lines_than_a_page_has_are_one_block() -> None:
    found = pieces("- item\n" * 30_000, 595, 842)
    assert len(found.pieces) == 20_001
    assert found.pieces[-1].block.text.count("item") == 10_000
    assert found.flags == ("overlong",)


# -- nothing alive -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("raw", "shown"),
    [
        ("<script>alert(1)</script>", "&lt;script>alert(1)&lt;/script>"),
        ("<img src=x onerror=alert(1) ", "&lt;img src=x onerror=alert(1)"),
        ("<b onclick=x>a</b>", "&lt;b onclick=x>a&lt;/b>"),
        ("<!-- a -->", "&lt;!-- a -->"),
        ("a <b>bold</b> H<SUB>2</SUB>O<br />b", "a <b>bold</b> H<sub>2</sub>O<br>b"),
        ("a <b>bold", "a &lt;b>bold"),
        ("</b>a<b>", "&lt;/b>a&lt;b>"),
        ("<b><i>a</b></i>", "&lt;b>&lt;i>a&lt;/b>&lt;/i>"),
        ("2 < 3 <4", "2 < 3 <4"),
        ("\\(a<b\\) and a<b", "\\(a< b\\) and a&lt;b"),
        ("![chart](https://example.org/x.png)", "chart (https://example.org/x.png)"),
        ("![](x.png) ![a][b]", " (x.png) !\\[a][b]"),
        ("AT&amp;amp;T &amp;lt;b&gt;", "AT&T &lt;b&gt;"),
        ("use the <table> tag", "use the &lt;table> tag"),
        ("List<String>", "List&lt;String>"),
    ],
)
def test_markup_is_data(raw: str, shown: str) -> None:
    assert markdown(raw) == shown.strip()


def test_what_is_escaped_in_markdown_is_itself_in_text() -> None:
    (block,) = blocks("x <script> &amp;lt;i&amp;gt; H<sub>2</sub>O<br>end **bold**")
    assert block.text == "x <script> <i> H2O\nend bold"


def test_a_cell_is_not_alive_either() -> None:
    block = table("<table><tr><td>&lt;script&gt;</td><td>![](http://x/y.png)</td></tr></table>")
    assert block.html == "<table><tr><td>&lt;script&gt;</td><td>(http://x/y.png)</td></tr></table>"
    assert markdown("<table><tr><td>&lt;b&gt;</td></tr></table>") == "| &lt;b> |\n| --- |"


# -- tables --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("markup", "html"),
    [
        ("<table><tr><td>a<td>b<tr><td>c", "<tr><td>a</td><td>b</td></tr><tr><td>c</td></tr>"),
        ("<tr><td>no table</td></tr>", "<tr><td>no table</td></tr>"),
        (
            '<table border="1"><thead><tr><th style="x">h</th></tr></thead><td onclick=x>1</table>',
            "<tr><th>h</th><td>1</td></tr>",
        ),
        ("<table><td>a &amp;gt; b &amp;amp; c</table>", "<tr><td>a &gt; b &amp; c</td></tr>"),
        ("<table><td>a<br>b<br />c</table>", "<tr><td>a<br/>b<br/>c</td></tr>"),
        ("<table><td><b>x</b><script>y</script></table>", "<tr><td>xy</td></tr>"),
        ("<table><td>List<String></table>", "<tr><td>List&lt;String&gt;</td></tr>"),
        (
            "<table><tr><td rowspan=2>a<td>b<tr><td colspan='2'>c</table>",
            '<tr><td rowspan="2">a</td><td>b</td></tr><tr><td colspan="2">c</td></tr>',
        ),
        ("<table><tr><td rowspan=9 colspan=0>a</table>", "<tr><td>a</td></tr>"),
        (
            "<table><tr><td>a<td rowspan=2>b<tr><td colspan=3>c</table>",
            '<tr><td>a</td><td rowspan="2">b</td></tr><tr><td>c</td></tr>',
        ),
    ],
)
def test_tables_are_written_anew(markup: str, html: str) -> None:
    assert table(markup).html == f"<table>{html}</table>"


def test_a_table_as_text_and_markdown() -> None:
    raw = "<table><tr><td colspan=2>a &amp;lt; b</td></tr><tr><td>1<br/>2</td><td>x|y</td></tr>"
    assert table(raw).text == "a < b\t\n1 2\tx|y"
    assert markdown(raw) == "| a < b |  |\n| --- | --- |\n| 1<br>2 | x\\|y |"


def test_words_around_and_between_cells_are_kept() -> None:
    raw = "Before <table><caption>Prices</caption><tr>loose<td>1</td></tr></table> after"
    assert [(block.kind, block.text) for block in blocks(raw)] == [
        ("text", "Before"),
        ("text", "Prices loose"),
        ("table", "1"),
        ("text", "after"),
    ]
    block = table(raw)
    assert block.html == "<table><tr><td>1</td></tr></table>"
    assert block.text == "Before\n\nPrices loose\n\n1\n\nafter"


def test_an_unclosed_table_ends_with_its_paragraph() -> None:
    raw = "<table><tr><td>1</td><td>2\n\nwords\n\n<table><tr><td>3\n\nmore"
    assert [block.text for block in blocks(raw)] == ["1\t2", "words", "3", "more"]


def test_a_text_that_is_a_table_is_one() -> None:
    raw = "<|ref|>text<|/ref|><|det|>[[0, 0, 9, 9]]<|/det|>\n<table><tr><td>1</table>"
    assert [(block.kind, block.label) for block in blocks(raw)] == [("table", "text")]


def test_more_cells_than_any_table_has_lose_no_words() -> None:
    """Rows of one cell below a very wide one: filled up, they would be billions of cells."""
    found = table_from_html("<tr>" + "<td>x" * 60_000 + "<tr><td>y" * 20_000)
    rows = rows_from_table(found)
    assert sum(map(len, rows)) <= 50_000
    said = " ".join(" ".join(row) for row in rows)
    assert (said.count("x"), said.count("y")) == (60_000, 20_000)
    assert html_from_table(found).count("x") == 60_000

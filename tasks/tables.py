"""Tables as rows of cells, as HTML and as Markdown."""

from __future__ import annotations

import html
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from html.entities import html5

Rows = list[list[str]]

MOST_CELLS = 50_000
"""Of a table filled up to a rectangle; what has more is a loop or a bomb."""


@dataclass(frozen=True, slots=True)
class Cell:
    """A cell that stands at `column` and covers `down` rows and `across` columns."""

    text: str
    column: int
    down: int = 1
    across: int = 1
    tag: str = "td"


@dataclass(frozen=True, slots=True)
class Table:
    """A table's rows of cells, none over another; `loose` is text that stood in no cell."""

    rows: tuple[tuple[Cell, ...], ...]
    loose: str = ""


def html_from_rows(rows: Sequence[Sequence[str]]) -> str:
    """A plain HTML table; the first row is its head."""
    lines = []
    for number, row in enumerate(rows):
        tag = "td" if number else "th"
        cells = "".join(f"<{tag}>{html.escape(cell, quote=False)}</{tag}>" for cell in row)
        lines.append(f"<tr>{cells}</tr>")
    return f"<table>{''.join(lines)}</table>"


def markdown_from_rows(rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table; the first row is its head. Rows are filled up to the same width."""
    if not rows:
        return ""
    width = max(len(row) for row in rows)
    filled = [[_one_line(cell) for cell in row] + [""] * (width - len(row)) for row in rows]
    lines = [f"| {' | '.join(row)} |" for row in filled]
    lines.insert(1, f"|{' --- |' * width}")
    return "\n".join(lines)


def text_from_rows(rows: Sequence[Sequence[str]]) -> str:
    """Plain text: a line a row, tabs between cells."""
    return "\n".join("\t".join(" ".join(cell.split()) for cell in row) for row in rows)


def rows_from_html(markup: str) -> Rows:
    """The cells of all tables in `markup`, each spanned cell repeated empty where it reaches."""
    return rows_from_table(table_from_html(markup))


def table_from_html(markup: str) -> Table:
    """All tables in `markup` as one, below one another; takes time linear in its length.

    Unclosed rows and cells end at the next one. Spans that overlap, or reach out of the table, are
    cut to what is free. Tags that HTML does not have are text; all others are left out, line
    breaks kept as newlines. Entities are decoded once.
    """
    rows: list[list[_Written]] = []
    loose: list[str] = []
    said = loose  # where text belongs: to the open cell, or to none
    at = 0
    for tag in _TAG.finditer(markup):
        name = tag[2].lower()
        if name not in _HTML:
            continue
        if at < tag.start():
            said.append(markup[at : tag.start()])
        at = tag.end()
        if name in _STRUCTURE:
            said = loose
            loose.append(" ")
            if tag[1]:
                continue
            if not rows or (name in ("tr", "table") and len(rows) < MOST_CELLS):
                rows.append([])
            if name in ("td", "th"):
                attributes = tag[3]
                said = []
                cell = (name, _span(_ROWSPAN, attributes), _span(_COLSPAN, attributes), said)
                rows[-1].append(cell)
        elif name in _BREAKS and not tag[1]:
            said.append("\n")
    said.append(markup[at:])
    kept = [row for row in rows if row]
    return Table(_placed(kept), " ".join(decoded("".join(loose)).split()))


def rows_from_table(table: Table) -> Rows:
    """The texts of a table's cells as a rectangle, empty where a span reaches."""
    width = max((cell.column + cell.across for row in table.rows for cell in row), default=0)
    rows = [[""] * width for _ in table.rows]
    for texts, row in zip(rows, table.rows, strict=True):
        for cell in row:
            texts[cell.column] = cell.text
    return rows


def html_from_table(table: Table) -> str:
    """Valid HTML: closed cells and rows, spans, line breaks, and nothing else."""
    return f"<table>{''.join(f'<tr>{_html_row(row)}</tr>' for row in table.rows)}</table>"


def decoded(text: str) -> str:
    """Text with its HTML entities decoded once; only those that end with a semicolon are meant."""
    if "&" not in text:
        return text
    return _ENTITY.sub(lambda found: _character(found[0]), text)


def _one_line(cell: str) -> str:
    """A cell as Markdown: a pipe ends it unless an odd number of backslashes stands before."""
    if not _ENDS_CELL.search(cell):
        return cell.strip()
    joined = "<br>".join(line.strip() for line in _LINE_ENDS.split(cell) if line.strip())
    return _PIPE.sub(lambda found: found[1] * 2 + "\\|", joined)


_MOST_SPAN = 100
_ENDS_CELL = re.compile(r"[\r\n|]")
_LINE_ENDS = re.compile(r"[\r\n]+")
_PIPE = re.compile(r"(?<!\\)(\\*+)\|")
_TAG = re.compile(r"<(/?)([A-Za-z][A-Za-z0-9]{0,9}+)(?![A-Za-z0-9])([^<>]*+)>")
_ROWSPAN = re.compile(r"(?<![\w-])rowspan\s*+=\s*+[\"']?+([0-9]{1,4})(?![0-9])", re.I)
_COLSPAN = re.compile(r"(?<![\w-])colspan\s*+=\s*+[\"']?+([0-9]{1,4})(?![0-9])", re.I)
_ENTITY = re.compile(r"&(?:#[0-9]{1,7}|#[xX][0-9a-fA-F]{1,6}|[A-Za-z][A-Za-z0-9]{1,31});")
_STRUCTURE = ("table", "tr", "td", "th", "caption", "thead", "tbody", "tfoot")
_BREAKS = ("br", "p", "div", "li")
_HTML_TAGS = """
    table caption colgroup col thead tbody tfoot tr td th br p div li ul ol dl dt dd span center b
    strong i em u s strike del ins sub sup small big mark font tt code pre a img hr abbr cite h1 h2
    h3 h4 h5 h6 blockquote label input html head body style script
"""
_HTML = frozenset(_HTML_TAGS.split())


_Written = tuple[str, int, int, list[str]]
"""A cell as its tag says: its name, rowspan, colspan, and its text as it came."""


def _span(attribute: re.Pattern[str], attributes: str) -> int:
    stated = attribute.search(attributes) if attributes else None
    return min(max(int(stated[1]), 1), _MOST_SPAN) if stated else 1


def _character(entity: str) -> str:
    if entity.startswith("&#"):
        return html.unescape(entity)
    return html5.get(entity[1:], entity)


def _placed(rows: Sequence[Sequence[_Written]]) -> tuple[tuple[Cell, ...], ...]:
    """Cells at their columns. What would make the table wider than anyone draws one (a loop of a
    model, a bomb) is added to the text of the row's last cell.
    """
    most = max(MOST_CELLS // max(len(rows), 1), 1)
    taken_until: dict[int, int] = {}  # by column: the row in which it is free again
    placed = []
    for y, row in enumerate(rows):
        cells: list[Cell] = []
        x = 0
        beyond: list[str] = []
        for tag, rowspan, colspan, said in row:
            text = decoded("".join(said)).strip()
            while taken_until and taken_until.get(x, 0) > y:
                x += 1
            if x >= most:
                beyond.append(text)
                continue
            widest = min(colspan, most - x)
            across = 1
            while across < widest and taken_until.get(x + across, 0) <= y:
                across += 1
            # The last column stays free, so that every row has a place for its cells.
            down = min(rowspan, len(rows) - y) if x + across < most else 1
            if down > 1:
                taken_until.update((x + step, y + down) for step in range(across))
            cells.append(Cell(text, x, down, across, tag))
            x += across
        if beyond:
            last = cells[-1]
            cells[-1] = replace(last, text=" ".join([last.text, *beyond]).strip())
        placed.append(tuple(cells))
    return tuple(placed)


def _html_row(row: Sequence[Cell]) -> str:
    return "".join(map(_html_cell, row))


def _html_cell(cell: Cell) -> str:
    text = html.escape(cell.text, quote=False).replace("\n", "<br/>")
    if cell.down == cell.across == 1:
        return f"<{cell.tag}>{text}</{cell.tag}>"
    spans = _attribute("rowspan", cell.down) + _attribute("colspan", cell.across)
    return f"<{cell.tag}{spans}>{text}</{cell.tag}>"


def _attribute(name: str, span: int) -> str:
    return f' {name}="{span}"' if span > 1 else ""

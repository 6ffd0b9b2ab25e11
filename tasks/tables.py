"""Tables as rows of cells, as HTML and as Markdown."""

from __future__ import annotations

import html
import re
from collections.abc import Sequence
from html.parser import HTMLParser

Rows = list[list[str]]


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
    reader = _CellReader()
    reader.feed(_DECLARATION.sub("&lt;!", markup))
    reader.close()
    return _spread(reader.rows)


def _one_line(cell: str) -> str:
    """A cell as Markdown: a pipe ends it unless an odd number of backslashes stands before."""
    joined = re.sub(r"\s*[\r\n]\s*", "<br>", cell.strip())
    return re.sub(r"(\\*)\|", lambda found: found[1] * 2 + "\\|", joined)


_MOST_SPAN = 100
_MOST_CELLS = 200_000
_SPAN = re.compile(r"[0-9]{1,4}$")
_DECLARATION = re.compile(r"<!(?!--)")  # HTMLParser raises on some that are cut off
_BREAKS = ("br", "p", "div", "li")


class _CellReader(HTMLParser):
    """Collects `(text, rowspan, colspan)` a cell; unclosed rows and cells end at the next one."""

    def __init__(self) -> None:
        super().__init__()
        self.rows: list[list[tuple[str, int, int]]] = []
        self._text: list[str] | None = None
        self._spans = (1, 1)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag in ("tr", "table"):
            self._end_cell()
            self.rows.append([])
        elif tag in ("td", "th"):
            self._end_cell()
            told = dict(attrs)
            self._text = []
            self._spans = (_span(told.get("rowspan")), _span(told.get("colspan")))
        elif tag in _BREAKS and self._text:
            self._text.append("\n")

    def handle_endtag(self, tag: str) -> None:
        if tag in ("td", "th", "tr", "table"):
            self._end_cell()

    def handle_data(self, data: str) -> None:
        if self._text is not None:
            self._text.append(data)

    def close(self) -> None:
        super().close()
        self._end_cell()
        self.rows = [row for row in self.rows if row]

    def _end_cell(self) -> None:
        if self._text is None:
            return
        if not self.rows:
            self.rows.append([])
        self.rows[-1].append(("".join(self._text).strip(), *self._spans))
        self._text = None


def _span(stated: str | None) -> int:
    return min(max(int(stated), 1), _MOST_SPAN) if stated and _SPAN.match(stated) else 1


def _spread(rows: list[list[tuple[str, int, int]]]) -> Rows:
    taken: dict[tuple[int, int], str] = {}
    for y, row in enumerate(rows):
        x = 0
        for text, down, across in row:
            while (y, x) in taken:
                x += 1
            if len(taken) > _MOST_CELLS:
                down = across = 1  # spans that nobody drew
            for dy in range(min(down, len(rows) - y)):
                for dx in range(across):
                    taken.setdefault((y + dy, x + dx), "")
            taken[(y, x)] = text
            x += across
    width = 1 + max((x for _, x in taken), default=-1)
    return [[taken.get((y, x), "") for x in range(width)] for y in range(len(rows))]

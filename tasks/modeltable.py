"""Tables in a model's Markdown: where they stand, as HTML or drawn with pipes."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

from tasks.inline import plain
from tasks.tables import MOST_CELLS, Rows


def tables_apart(text: str) -> Iterator[tuple[bool, str]]:
    """HTML tables that have cells (True), and the text between.

    An unclosed one ends where the next begins, or with the paragraph of its last tag.
    """
    done, last, start = 0, 0, -1
    has_cells = False
    for tag in _TABLE_TAG.finditer(text):
        closing, name = bool(tag[1]), tag[2].lower()
        if name != "table":
            has_cells |= name in ("td", "th")
            last = tag.end()
            continue
        if start >= 0 and has_cells:
            end = tag.end() if closing else _paragraph_end(text, last, tag.start())
            yield False, text[done:start]
            yield True, text[start:end]
            done = end
        start, has_cells = (-1, False) if closing else (tag.start(), False)
    if start >= 0 and has_cells:
        end = _paragraph_end(text, last, len(text))
        yield False, text[done:start]
        yield True, text[start:end]
        done = end
    yield False, text[done:]


def pipe_rows(lines: Sequence[str], at: int) -> Rows:
    """The rows of the Markdown table that begins at a line; none if none does.

    It is one if the line below draws as many columns; it ends before the first line without a
    pipe, or where it becomes larger than any table.
    """
    if "|" not in lines[at] or at + 1 == len(lines) or not _is_delimiter(lines[at + 1]):
        return []
    rows = [_cells(lines[at])]
    widest = len(rows[0])
    if widest != len(_cells(lines[at + 1])) or widest > MOST_CELLS:
        return []
    for number in range(at + 2, len(lines)):
        if "|" not in lines[number]:
            break
        row = _cells(lines[number])
        widest = max(widest, len(row))
        if widest * (len(rows) + 1) > MOST_CELLS:
            break
        rows.append(row)
    return rows


_TABLE_TAG = re.compile(
    r"<(/?)(table|thead|tbody|tfoot|tr|td|th|caption)(?![A-Za-z0-9])[^<>]*+>", re.I
)
_PIPE = re.compile(r"(?<!\\)(\\*+)\|")


def _paragraph_end(text: str, start: int, stop: int) -> int:
    end = text.find("\n\n", start, stop)
    return stop if end < 0 else end


def _is_delimiter(line: str) -> bool:
    return "-" in line and not line.strip().strip("|:- \t")


def _cells(line: str) -> list[str]:
    """A row's cells: a pipe is text if an odd number of backslashes stands before it."""
    line = line.strip().removeprefix("|")
    cells: list[str] = []
    cell: list[str] = []
    done = 0
    for pipe in _PIPE.finditer(line):
        backslashes = len(pipe[1])
        cell.append(line[done : pipe.start()] + "\\" * (backslashes // 2))
        done = pipe.end()
        if backslashes % 2:
            cell.append("|")
        else:
            cells.append("".join(cell))
            cell = []
    rest = "".join([*cell, line[done:]])
    if rest.strip() or not cells:
        cells.append(rest)
    return [plain(each) for each in cells]

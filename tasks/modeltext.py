"""Markdown as models write it, apart by its structure. Linear in the length of the text."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from schemas.records import Block
from tasks.inline import escaped_once, plain, safe, shown, without_emphasis, without_wrapping
from tasks.markdown import page_markdown
from tasks.modeltable import pipe_rows, tables_apart
from tasks.tables import (
    Rows,
    html_from_rows,
    html_from_table,
    markdown_from_rows,
    rows_from_table,
    table_from_html,
    text_from_rows,
)


@dataclass(frozen=True, slots=True)
class Part:
    """One piece of Markdown structure. `label` names it, `kind` is its kind as a block."""

    kind: str
    label: str
    markdown: str
    text: str
    html: str | None = None


def parts(markdown: str) -> list[Part]:
    """The structure of a model's Markdown: headings, tables, items, formulas, code, paragraphs.

    No word is lost. The parts' Markdown, put `together`, has the same parts again. What follows
    after more lines and tables than any page has is one paragraph, labelled `rest`.
    """
    if not _STRUCTURED.search(markdown):
        text = markdown.strip()
        return [Part("text", "paragraph", text, text)] if text else []
    found: list[Part] = []
    rest: list[str] = []
    left = _MOST_LINES
    for info, stretch in _fences_apart("\n".join(map(str.rstrip, markdown.split("\n")))):
        if left <= 0:
            rest.append(stretch)
        elif info is not None:
            found.extend(code_parts(stretch, info))
            left -= 1
        else:
            for is_table, piece in tables_apart(without_wrapping(stretch)):
                lines = [piece] if is_table else piece.split("\n")
                kept = lines[: max(left, 0)]
                found.extend(_html_table(piece) if is_table and kept else _Lines(kept).parts())
                rest.extend(lines[len(kept) :])
                left -= len(lines)
    said = " ".join(" ".join(rest).split())
    if said:
        found.append(Part("text", "rest", safe(said), plain(said)))
    return found


def together(pieces: Sequence[tuple[str, str]]) -> str:
    """Pieces `(kind, Markdown or text)` in one: list items line by line, all else apart."""
    if len(pieces) == 1:
        return pieces[0][1]
    joined: list[str] = []
    previous = ""
    for kind, piece in pieces:
        if piece:
            joined.append("\n" if kind == previous == "list_item" else "\n\n")
            joined.append(piece)
            previous = kind
    return "".join(joined[1:])


def code_parts(code: str, info: str = "") -> list[Part]:
    """Code in a fence that nothing in it closes; none if there is none.

    `info` is what the model wrote on its own fence: kept there if it is a language's name.
    """
    if not code.strip() or not _LANGUAGE.fullmatch(info):
        code, info = f"{info}\n{code}", ""
    code = code.strip("\n")
    if not code.strip():
        return []
    fence, _, rest = page_markdown([(Block("code", "", code, None), 0)]).partition("\n")
    return [Part("code", "code", f"{fence}{info}\n{rest}", code)]


def literal_part(text: str) -> Part:
    """Text that is not Markdown, however it looks."""
    return Part("text", "literal", shown(page_markdown([(Block("text", "", text, None), 0)])), text)


_STRUCTURED = re.compile(r"[\n<&`~|$\\!]|\*\*|^\s*+[#\-+*•◦▪●■‣·(0-9=]")
_FENCE = re.compile(r"\s*+(`{3,}+|~{3,}+)([^`]*)$")
_LANGUAGE = re.compile(r"[A-Za-z0-9+#.\-]{0,20}")
_WRAPPERS = ("markdown", "md", "html")  # models put whole answers in such fences
_HEADING = re.compile(r"(#{1,6})\s++(\S.*)")
_ITEM = re.compile(r"(?:[-*+•◦▪●■‣·]|\(?[0-9]{1,3}[.)])\s++\S")
_RULE = re.compile(r"-{3,}|\*{3,}|={3,}")
_MOST_INDENT = 8
_MOST_LINES = 20_000


def _fences_apart(text: str) -> Iterator[tuple[str | None, str]]:
    """Code with what its fence says, and, with None, the text between; wrappers are taken off."""
    held: list[str] = []
    fence = info = wrapper = ""
    for line in text.split("\n"):
        if fence:
            if _closes(line.strip(), fence):
                yield info, "\n".join(held)
                held, fence = [], ""
            else:
                held.append(line)
            continue
        opening = _FENCE.match(line)
        if opening is None:
            held.append(line)
        elif wrapper and _closes(line.strip(), wrapper):
            wrapper = ""
        elif opening[2].strip().lower() in _WRAPPERS:
            wrapper = opening[1]
        else:
            yield None, "\n".join(held)
            held, fence, info = [], opening[1], opening[2].strip()
    yield info if fence else None, "\n".join(held)


def _closes(mark: str, fence: str) -> bool:
    return len(mark) >= len(fence) and mark == fence[0] * len(mark)


def _html_table(markup: str) -> list[Part]:
    table = table_from_html(without_emphasis(escaped_once(markup)))
    held = _table(rows_from_table(table), html_from_table(table))
    return [*_Lines([table.loose]).parts(), held]


def _table(rows: Rows, html: str) -> Part:
    markdown = markdown_from_rows([[shown(cell) for cell in row] for row in rows])
    return Part("table", "table", markdown, text_from_rows(rows), html)


def _paragraph(text: str) -> Part:
    for start, end in (("\\[", "\\]"), ("$$", "$$")):
        whole = len(text) > 4 and text.startswith(start) and text.endswith(end)
        if whole and end not in text[2:-2]:
            return Part("formula", "formula", safe(text), plain(text))
    return Part("text", "paragraph", safe(text), plain(text))


class _Lines:
    """Text without fences and HTML tables, line by line."""

    def __init__(self, lines: Sequence[str]) -> None:
        self._lines = lines
        self._found: list[Part] = []
        self._held: list[str] = []  # of the paragraph or list item that is being read
        self._is_item = False

    def parts(self) -> list[Part]:
        at = 0
        while at < len(self._lines):
            rows = pipe_rows(self._lines, at)
            if rows:
                self._end()
                self._found.append(_table(rows, html_from_rows(rows)))
                at += len(rows) + 1
            else:
                self._read(self._lines[at])
                at += 1
        self._end()
        return self._found

    def _read(self, written: str) -> None:
        line = written.strip()
        heading = _HEADING.fullmatch(line) if line.startswith("#") else None
        if not line or _RULE.fullmatch(line):
            self._end()
        elif heading:
            self._end()
            kind = "title" if len(heading[1]) == 1 else "section_header"
            marked = f"{heading[1]} {safe(heading[2])}"
            self._found.append(Part(kind, "heading", marked, plain(heading[2])))
        elif _ITEM.match(line):
            self._end()
            in_list = self._found and self._found[-1].kind == "list_item"
            indent = len(written) - len(written.lstrip()) if in_list else 0
            self._is_item = True
            self._held.append(" " * min(indent, _MOST_INDENT) + line)
        else:
            # What was no fence when fences were looked for must not be one for a reader.
            line = f"\\{line}" if _FENCE.match(line) else line
            self._held.append(f"  {line}" if self._is_item else line)

    def _end(self) -> None:
        if self._held:
            text = "\n".join(self._held)
            item = Part("list_item", "list", safe(text), plain(text)) if self._is_item else None
            self._found.append(item or _paragraph(text))
        self._held, self._is_item = [], False

"""The small markup in which the sample texts are written.

Blocks are separated by blank lines: `#`, `##`, `###` headings, `- ` and `1. ` lists, `> ` notes,
`^ ` captions, `~ ` footnotes, `< ` paragraphs without
indent, tables of `|` cells, code between backtick fences, `left || right`
lines, and directives such as `@page` or `@figure name 0.8`. A line ending in a backslash breaks.
Inline: **bold**, *italic*, `monospace`.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field

INLINE = re.compile(r"(\*\*[^*]+\*\*|\*[^*]+\*|`[^`]+`)")
CJK_WORD = re.compile(
    r"[（《“]*(?:[\u4e00-\u9fff]|[\w.:%/+-]+)[，。、；：）》”！？]*", flags=re.ASCII
)
PREFIXES = {
    "# ": "h1",
    "## ": "h2",
    "### ": "h3",
    "> ": "note",
    "^ ": "caption",
    "~ ": "footnote",
    "< ": "flush",
}
BULLET = re.compile(r"- (.*)")
NUMBER = re.compile(r"(\d+[.)]|（[一二三四五六七八九十]）|[一二三四五六七八九十]、) ?(.*)")


@dataclass
class Block:
    """One block of content; `text` keeps its inline marks, `args` are a directive's words."""

    kind: str
    text: str = ""
    label: str = ""
    rows: list[list[str]] = field(default_factory=list)
    aligns: list[str] = field(default_factory=list)
    args: list[str] = field(default_factory=list)

    @property
    def plain(self) -> str:
        """The block's text as printed."""
        text = self.text if self.kind == "code" else strip_marks(self.text)
        if self.kind == "pair":
            text = " ".join(part.strip() for part in text.split("||"))
        # Chinese list labels end in a full-width mark and take no space.
        space = " " if (self.label and self.label.isascii()) or self.label == "•" else ""
        return self.label + space + text


@dataclass(frozen=True)
class Word:
    """What stands between two possible line breaks: styled runs, and whether a space follows."""

    runs: tuple[tuple[str, str], ...]
    spaced: bool = True


def strip_marks(text: str) -> str:
    """The text without its inline marks."""
    return "".join(run for run, _ in styled_runs(text))


def styled_runs(text: str) -> list[tuple[str, str]]:
    """Split a text into (text, style) runs; style is regular, bold, italic or mono."""
    runs = []
    for piece in INLINE.split(text):
        if piece.startswith("**"):
            runs.append((piece[2:-2], "bold"))
        elif len(piece) > 2 and piece[0] == piece[-1] and piece[0] in "*`":
            runs.append((piece[1:-1], "italic" if piece[0] == "*" else "mono"))
        elif piece:
            runs.append((piece, "regular"))
    return runs


def words_of(text: str) -> list[Word]:
    """Split one paragraph line into words; Chinese text may break after any character."""
    groups: list[list[tuple[str, str]]] = [[]]
    for run, style in styled_runs(text):
        for index, piece in enumerate(run.split(" ")):
            if index:
                groups.append([])
            if piece:
                groups[-1].append((piece, style))
    words: list[Word] = []
    for group in filter(None, groups):
        joined = "".join(run for run, _ in group)
        if re.search(r"[\u4e00-\u9fff]", joined):
            pieces = CJK_WORD.findall(joined)
            if "".join(pieces) != joined:
                raise ValueError(f"cannot split {joined!r} into {pieces}")
            words += [Word(((piece, group[0][1]),), spaced=False) for piece in pieces]
        else:
            words.append(Word(tuple(group)))
    return words


def parse(source: str) -> list[list[Block]]:
    """Read a content file into pages of blocks."""
    pages: list[list[Block]] = [[]]
    for chunk in _chunks(source):
        if chunk == ["@page"]:
            pages.append([])
        else:
            pages[-1] += _blocks(chunk)
    return pages


def _chunks(source: str) -> list[list[str]]:
    chunks: list[list[str]] = [[]]
    fenced = False
    for line in source.splitlines():
        if line.startswith("```"):
            fenced = not fenced
        if line.strip() or fenced:
            chunks[-1].append(line)
        else:
            chunks.append([])
    return [chunk for chunk in chunks if chunk]


def _blocks(lines: list[str]) -> list[Block]:
    first = lines[0]
    if first.startswith("```"):
        return [Block("code", "\n".join(lines[1:-1]))]
    if first.startswith("|"):
        return [_table(lines)]
    if first.startswith("@"):
        directives = [line[1:].split() for line in lines]
        return [Block(name, args=args) for name, *args in directives]
    if "||" in first:
        return [Block("pair", line) for line in lines]
    if BULLET.match(first) or NUMBER.match(first):
        return _items(lines)
    for prefix, kind in PREFIXES.items():
        if first.startswith(prefix):
            return [Block(kind, _join([line.removeprefix(prefix) for line in lines]))]
    return [Block("para", _join(lines))]


def _items(lines: list[str]) -> list[Block]:
    items: list[Block] = []
    for line in lines:
        if bullet := BULLET.match(line):
            items.append(Block("item", bullet[1], label="•"))
        elif number := NUMBER.match(line):
            items.append(Block("item", number[2], label=number[1]))
        else:
            items[-1].text += " " + line.strip()
    return items


def _table(lines: list[str]) -> Block:
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    marks = rows.pop(1)
    aligns = ["right" if mark.endswith(":") else "left" for mark in marks]
    return Block("table", rows=rows, aligns=aligns)


def _join(lines: list[str]) -> str:
    text = ""
    for line in lines:
        if line.endswith("\\"):
            text += line[:-1].rstrip() + "\n"
        else:
            text += line + " "
    return text.strip()

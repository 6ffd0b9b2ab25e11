"""Sets blocks of content on PDF pages and notes, in the same stroke, what was printed."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import pairwise

import pymupdf

from markup import Block, strip_marks, words_of
from tables import TableSetter
from truth import PageTruth
from typography import Look, Pen, Text, font, wrap


@dataclass
class PageSetter:
    """Sets one page; raises OverflowError when the page is full."""

    page: pymupdf.Page
    look: Look
    truth: PageTruth
    pictures: Callable[[str], tuple[bytes, float]]
    contents: list[tuple[str, int]] = field(default_factory=list)
    frames: list[pymupdf.Rect] = field(default_factory=list)
    y: float = 0
    reserved: float = 0
    align: str = "left"
    after_item: bool = False
    keep: float = 0
    pen: Pen = field(init=False)

    def __post_init__(self) -> None:
        self.pen = Pen(self.page)

    def set_page(self, blocks: list[Block], chapter: str) -> None:
        """Set all blocks of the page, its running lines and its footnotes."""
        if self.look.backdrop:
            self.look.backdrop(self.page, self.truth.page)
        if self.truth.page not in self.look.bare_pages:
            self._running(chapter)
        notes = [block for block in blocks if block.kind == "footnote"]
        self.reserved = sum(self._note_height(note) for note in notes)
        self.start_columns(self.look.margins[1])
        for block, following in pairwise([*blocks, Block("end")]):
            # A caption must not part from the picture above it.
            self.keep = self.look.body * 3 if following.kind == "caption" else 0
            if block.kind != "footnote":
                self._set(block)
        self._footnotes(notes)
        self.pen.flush()

    def start_columns(self, top: float) -> None:
        """Go on in the page's columns from `top`, leaving room for footnotes in the last one."""
        left, _, right, bottom = self.look.margins
        width, height = self.look.size
        gutter = 18
        count = self.look.columns
        column = (width - left - right - gutter * (count - 1)) / count
        self.frames = [
            pymupdf.Rect(
                left + index * (column + gutter),
                top,
                left + index * (column + gutter) + column,
                height - bottom - (self.reserved if index == count - 1 else 0),
            )
            for index in range(count)
        ]
        self.y = top

    def _set(self, block: Block) -> None:
        look = self.look
        if self.after_item and block.kind in ("para", "pair", "note"):
            self.y += look.body * look.para_gap * 0.5
        self.after_item = block.kind == "item"
        if block.kind in ("h1", "h2", "h3"):
            self._heading(block)
        elif block.kind == "flush":
            self._paragraph(block)
        elif block.kind == "item":
            indent = look.body * look.item_indent
            self._paragraph(block, indent=indent, gap=look.para_gap * 0.5)
        elif block.kind == "note":
            self._note(block)
        elif block.kind == "caption":
            self._paragraph(block, size=look.body * 0.88, style="italic")
        elif block.kind == "code":
            self._code(block)
        elif block.kind == "table":
            self._table(block)
        elif block.kind == "pair":
            self._pair(block)
        elif block.kind == "para":
            self._paragraph(block, first=look.indent)
        else:
            self._direct(block)

    def _direct(self, block: Block) -> None:
        frame = self.frames[0]
        if block.kind == "frame":
            self.frames = [pymupdf.Rect(*map(float, block.args))]
            self.y = self.frames[0].y0
            self.align = "left"
        elif block.kind == "columns":
            self.start_columns(float(block.args[0]))
        elif block.kind == "column":
            self.frames.pop(0)
            self.y = self.frames[0].y0
        elif block.kind == "align":
            self.align = block.args[0]
        elif block.kind == "space":
            self.y += float(block.args[0])
        elif block.kind == "rule":
            self.page.draw_line((frame.x0, self.y), (frame.x1, self.y), width=0.7)
            self.y += self.look.body * 0.6
        elif block.kind in ("figure", "ink"):
            self._figure(block)
        elif block.kind == "contents":
            for title, number in self.contents:
                self._pair(Block("pair", f"{title} || {number}"))
                self.y += 3
        else:
            raise ValueError(f"unknown directive @{block.kind}")

    def _room(self, height: float, what: str) -> pymupdf.Rect:
        while self.y + height > self.frames[0].y1 + 0.5:
            if len(self.frames) == 1:
                over = self.y + height - self.frames[0].y1
                raise OverflowError(f"page {self.truth.page} is full by {over:.0f} pt at {what!r}")
            self.frames.pop(0)
            self.y = self.frames[0].y0
        return self.frames[0]

    def _at_top(self) -> bool:
        return self.y <= self.frames[0].y0 + 0.1

    def _heading(self, block: Block) -> None:
        look = self.look
        level = int(block.kind[1])
        size = look.body * look.scale[level - 1]
        if not self._at_top():
            self.y += size * 0.55
        # A heading alone at the foot of a column looks like a mistake, so it takes two lines along.
        self._room(size * 1.25 + look.body * 3, block.plain)
        color = look.title_color if level == 1 and look.title_color else look.heading_color
        align = look.title_align if level == 1 else self.align
        text = Text(block.text, look.heading_family, size, "bold", align, color, leading=1.2)
        self._lines(text, self.frames[0].width, block.plain)
        self.truth.body.append(block.plain)
        self.y += size * 0.3 + (look.title_gap if level == 1 else 0)

    def _paragraph(
        self,
        block: Block,
        *,
        size: float | None = None,
        style: str = "regular",
        indent: float = 0,
        first: float = 0,
        gap: float | None = None,
    ) -> None:
        look = self.look
        align = "justify" if look.justify and self.align == "left" else self.align
        text = Text(block.text, look.family, size or look.body, style, align, leading=look.leading)
        width = self.frames[0].width
        if block.label:
            self._room(text.size * text.leading, block.plain)
            label = Text(block.label, look.family, text.size, leading=look.leading)
            self.pen.line(words_of(block.label), label, self.frames[0].x0, self.y, width, True)
        self._lines(text, width, block.plain, indent=indent, first=first)
        self.truth.body.append(block.plain)
        self.y += look.body * (look.para_gap if gap is None else gap)

    def _lines(
        self, text: Text, width: float, what: str, indent: float = 0, first: float = 0
    ) -> None:
        for line_words, last, start in wrap(text, width - indent, first):
            frame = self._room(text.size * text.leading, what)
            x = frame.x0 + indent + start
            self.pen.line(line_words, text, x, self.y, width - indent - start, last)
            self.y += text.size * text.leading

    def _pair(self, block: Block) -> None:
        look = self.look
        left, right = (part.strip() for part in block.text.split("||"))
        height = look.body * look.leading
        frame = self._room(height, block.plain)
        for part, align in ((left, "left"), (right, "right")):
            text = Text(part, look.family, look.body, align=align, leading=look.leading)
            self.pen.line(words_of(part), text, frame.x0, self.y, frame.width, True)
        self.truth.body.append(block.plain)
        self.y += height

    def _note(self, block: Block) -> None:
        top = self.y
        self._paragraph(block, indent=12)
        x = self.frames[0].x0 + 4
        bottom = self.y - self.look.body * self.look.para_gap
        self.page.draw_line((x, top), (x, bottom), color=(0.75, 0.3, 0.1), width=2)

    def _code(self, block: Block) -> None:
        size = self.look.body * 0.72
        lines = block.text.split("\n")
        height = size * 1.3 * len(lines) + 8
        frame = self._room(height, block.plain)
        box = pymupdf.Rect(frame.x0, self.y, frame.x1, self.y + height)
        self.page.draw_rect(box, color=None, fill=(0.94, 0.94, 0.92))
        for index, line in enumerate(lines):
            if frame.x0 + 6 + font("cour").text_length(line, size) > frame.x1:
                raise OverflowError(f"code line too long: {line!r}")
            self.pen.verbatim(line, frame.x0 + 6, self.y + 4 + size * (1.3 * index + 0.95), size)
        self.truth.body.append(block.text)
        self.y += height + self.look.body * 0.7

    def _table(self, block: Block) -> None:
        table = TableSetter(block, self.look, self.frames[0].width)
        frame = self._room(table.height, block.rows[0][0])
        table.draw(self.pen, frame.x0, self.y)
        self.truth.add_table([[strip_marks(cell) for cell in row] for row in block.rows])
        self.y += table.height + self.look.body * 0.9

    def _figure(self, block: Block) -> None:
        name, share = block.args[0], float(block.args[1])
        picture, ratio = self.pictures(name)
        width = self.frames[0].width * share
        frame = self._room(width * ratio + self.keep, name)
        x = frame.x0 + (0 if block.kind == "ink" else (frame.width - width) / 2)
        box = pymupdf.Rect(x, self.y, x + width, self.y + width * ratio)
        self.page.insert_image(box, stream=picture)
        self.truth.figures += block.kind == "figure"
        self.y += width * ratio + self.look.body * 0.6

    def _note_text(self, note: Block) -> Text:
        return Text(note.text, self.look.family, self.look.body * 0.82, leading=1.2)

    def _note_height(self, note: Block) -> float:
        look = self.look
        gutters = 18 * (look.columns - 1)
        width = (look.size[0] - look.margins[0] - look.margins[2] - gutters) / look.columns
        return len(wrap(self._note_text(note), width)) * look.body * 0.82 * 1.2 + 10

    def _footnotes(self, notes: list[Block]) -> None:
        if not notes:
            return
        room, self.reserved = self.reserved, 0
        self.start_columns(self.look.margins[1])
        frame = self.frames[-1]
        self.frames = [frame]
        self.y = frame.y1 - room + 6
        self.page.draw_line((frame.x0, self.y), (frame.x0 + 70, self.y), width=0.5)
        self.y += 3
        for note in notes:
            self._lines(self._note_text(note), frame.width, note.plain)
            self.truth.body.append(note.plain)

    def _running(self, chapter: str) -> None:
        look = self.look
        left, right = look.margins[0], look.size[0] - look.margins[2]
        footer_y = look.size[1] - look.footer_up
        lines = (
            (look.header, look.header_y, self.truth.header),
            (look.footer, footer_y, self.truth.footer),
        )
        for parts, y, record in lines:
            for part, align in zip(parts, ("left", "right"), strict=True):
                if not part:
                    continue
                printed = part.format(page=self.truth.page, chapter=chapter)
                text = Text(printed, look.heading_family, look.running_size, align=align)
                text.color = (0.25, 0.25, 0.25)
                # A lone page number in the footer stands in the middle of the line.
                if record is self.truth.footer and not all(parts):
                    text.align = "center"
                self.pen.line(words_of(printed), text, left, y, right - left, True)
                record.append(printed)
        if look.rule_header:
            y = look.header_y + look.running_size * 1.6
            self.page.draw_line((left, y), (right, y), color=(0.4, 0.4, 0.4), width=0.5)


def typeset(
    source: list[list[Block]],
    look: Look,
    pictures: Callable[[str], tuple[bytes, float]],
    kind: str = "clean",
) -> tuple[pymupdf.Document, list[PageTruth]]:
    """Set a parsed content file; returns the PDF and the truth of every page."""
    document = pymupdf.open()
    contents = [
        (block.plain, number)
        for number, blocks in enumerate(source, 1)
        for block in blocks
        if block.kind == "h1" and block.plain != "Contents" and number not in look.bare_pages
    ]
    truths = []
    chapter = ""
    for number, blocks in enumerate(source, 1):
        titles = [block.plain for block in blocks if block.kind == "h1"]
        chapter = titles[0] if titles else chapter
        page = document.new_page(width=look.size[0], height=look.size[1])
        truth = PageTruth(number, kind, look.columns)
        setter = PageSetter(page, look, truth, pictures, contents)
        setter.set_page(blocks, chapter)
        truths.append(truth)
    return document, truths

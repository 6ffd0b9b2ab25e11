"""What a model wrote between two line ends: safe to show as Markdown, and as plain text.

Markup of a model is data. Alive stay only `<br>` and, if they are well nested, the tags of
`_INLINE` without attributes; any other `<` that could begin a tag is escaped, and images become
text. Every function takes time linear in its text.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from tasks.tables import decoded


def without_wrapping(markdown: str) -> str:
    """Markdown without what says nothing: `<center>`, images as links, entities escaped twice."""
    text = _CENTER.sub(" ", escaped_once(markdown))
    return _IMAGE.sub(_image_as_text, text)


def escaped_once(markup: str) -> str:
    """Markup in which `&amp;gt;` and its like are `&gt;`, and `&amp;` is `&`."""
    return _ESCAPED_AGAIN.sub("&", markup)


def safe(markdown: str) -> str:
    """A stretch of `without_wrapping` with nothing alive in it but what a reader may see."""
    text = markdown.replace("![", "!\\[")
    if "<" not in text:
        return text
    stretches = list(_maths_apart(text))
    prose = "".join(stretch for is_maths, stretch in stretches if not is_maths)
    written = _kept if _well_nested(prose) else _escaped
    return "".join(
        # A space more changes no formula, an entity would.
        _TAG_START.sub("< ", stretch) if is_maths else _MARKUP.sub(written, stretch)
        for is_maths, stretch in stretches
    )


def shown(text: str) -> str:
    """Plain text in Markdown, with nothing in it alive."""
    return _TAG_START.sub("&lt;", text).replace("![", "!\\[") if _ALIVE.search(text) else text


def plain(markdown: str) -> str:
    """The words of a stretch of `without_wrapping`: no emphasis, tags or entities."""
    if not _MARKED.search(markdown):
        return markdown.strip()
    text = _INLINE.sub("", _BREAK.sub("\n", markdown))
    return decoded(without_emphasis(text)).strip()


def without_emphasis(markdown: str) -> str:
    """Markdown without `**` around words."""
    return _STRONG.sub(r"\1", markdown)


_ESCAPED_AGAIN = re.compile(r"&(?:(?:amp|#0{0,5}38|#x0{0,4}26);)+", re.I)
_CENTER = re.compile(r"</?center>", re.I)
_IMAGE = re.compile(r"!\[([^\[\]\n]*+)\]\(([^()\n]*+)\)")
_STRONG = re.compile(r"(?<!\*)\*{2,}+(?=\S)([^*\n]++)(?<=\S)\*{2,}+")
_BREAK = re.compile(r"<br\s*+/?>", re.I)
_INLINE = re.compile(r"</?(?:sub|sup|u|b|i)>", re.I)
_ALIVE = re.compile(r"<|!\[")
_MARKED = re.compile(r"[<&]|\*\*")
_TAG_START = re.compile(r"<(?=[A-Za-z/!?])")
_MARKUP = re.compile(r"<(/?)(sub|sup|u|b|i)>|<br\s*+/?>|<(?=[A-Za-z/!?])", re.I)
_MATHS = re.compile(r"\\\\|\\[()\[\]]|\$\$")
_MATHS_END = {"\\(": "\\)", "\\[": "\\]", "$$": "$$"}


def _image_as_text(image: re.Match[str]) -> str:
    target = image[2].strip()
    return f"{image[1].strip()} ({target})" if target else image[1]


def _kept(tag: re.Match[str]) -> str:
    return tag[0].lower() if tag[2] else _escaped(tag)


def _escaped(tag: re.Match[str]) -> str:
    return "<br>" if tag[0][1:3].lower() == "br" else "&lt;" + tag[0][1:]


def _well_nested(text: str) -> bool:
    open_tags: list[str] = []
    for tag in _MARKUP.finditer(text):
        if not tag[2]:
            continue
        if not tag[1]:
            open_tags.append(tag[2].lower())
        elif not open_tags or open_tags.pop() != tag[2].lower():
            return False
    return not open_tags


def _maths_apart(text: str) -> Iterator[tuple[bool, str]]:
    r"""Stretches of prose, and (True) those from `\(` to `\)`, from `\[` to `\]`, between `$$`."""
    done = 0
    opened: re.Match[str] | None = None
    for mark in _MATHS.finditer(text):
        if opened and mark[0] == _MATHS_END[opened[0]]:
            yield False, text[done : opened.start()]
            yield True, text[opened.start() : mark.end()]
            done, opened = mark.end(), None
        elif mark[0] in _MATHS_END:
            opened = mark
    yield False, text[done:]

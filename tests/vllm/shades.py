"""What the crafted model has learned by heart: a page is a shade of grey, and a shade has a text.

The model sees nothing but how bright most of a page is. Thirteen shades are ordinary pages with
texts of their own; five are what goes wrong with models: loops of four kinds and an empty answer.
This module needs no torch: tests take from here what must come back.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

PROMPTS = MappingProxyType(
    {"markdown": "<|grounding|>Convert the document to markdown.", "free": "Free OCR."}
)
"""The two questions that it knows, by purpose. Whatever else is asked has no meaningful answer."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What is said to one question about a shade.

    Attributes:
        text: said first, and all of it unless there is a `cycle`; without the end token.
        cycle: said again and again after `text`, for ever.
        way_out: said, and then the answer ends, where the next token of the cycle is forbidden;
            empty where that does not happen.
    """

    text: str
    cycle: str = ""
    way_out: str = ""


@dataclass(frozen=True, slots=True)
class Shade:
    """A page: its grey level from 0 (black) to 255, and its answers by purpose.

    A page reads as this shade if most of it is within `TOLERANCE` levels of `grey`.
    """

    name: str
    grey: int
    answers: Mapping[str, Answer]


TOLERANCE = 3
"""Levels of grey that JPEG and resampling may cost."""

UNKNOWN = Answer("Nothing is known of a page like this.")
"""The answer to both questions about a page without one prevailing shade."""

_ORDINARY = {  # from white down; 127 is left free, for it is what pages are padded with
    "amber": 255,
    "birch": 228,
    "cedar": 215,
    "delta": 203,
    "ember": 191,
    "fjord": 179,
    "grove": 167,
    "heron": 155,
    "ivory": 112,
    "jade": 100,
    "kelp": 86,
    "lotus": 72,
    "maple": 58,
}

_TABLES = {
    "cedar": (
        "<table><tr><td>crate</td><td>price</td></tr><tr><td>7</td><td>7</td></tr>"
        "<tr><td>7</td><td>9</td></tr><tr><td>cedar</td><td>7</td></tr></table>",
        "\\[ x^2 + y^2 = 25 \\]",
    ),
    "heron": (
        '<table><tr><td colspan="2">heron</td></tr><tr><td>yes</td><td>yes</td></tr>'
        "<tr><td>yes</td><td>no</td></tr></table>",
        "\\( a_1 \\leq b_2 \\)",
    ),
}

_BOXES = 36
_MARCH = "".join(
    f"<|ref|>image<|/ref|><|det|>[[100, {20 * n}, 900, {20 * n + 20}]]<|/det|>\n"
    for n in range(1, _BOXES + 1)
)
"""Boxes that march down the page and begin anew: a round of 540 tokens, beyond n-gram windows."""

MARCHING = Answer("", _MARCH)


def pages() -> Mapping[str, Shade]:
    """All shades by name, ordinary ones first."""
    shades = [_ordinary(number, name) for number, name in enumerate(_ORDINARY)]
    shades += _FAULTY
    return MappingProxyType({shade.name: shade for shade in shades})


def ordinary() -> Mapping[str, Shade]:
    """The shades that have a text for either question."""
    return MappingProxyType({name: pages()[name] for name in _ORDINARY})


def _ordinary(number: int, name: str) -> Shade:
    head = f"The {name} ledger"
    body = f"Pier {number} sold {number + 30} crates of {name} to the harbour."
    markdown = [
        _block("title", (70, 40, 930, 110), f"# {head}"),
        _block("text", (70, 130, 930, 200 + 10 * number), body),
    ]
    free = [head, body]
    if name in _TABLES:
        table, formula = _TABLES[name]
        markdown.append(_block("table", (80, 360, 920, 500), table))
        markdown.append(_block("equation", (300, 520, 700, 560), formula))
        free += [table, formula]
    markdown.append(_block("image", (100, 600, 860, 700 + 10 * number), ""))
    return Shade(
        name,
        _ORDINARY[name],
        {"markdown": Answer("\n\n".join(markdown)), "free": Answer("\n\n".join(free))},
    )


def _block(label: str, box: tuple[int, int, int, int], text: str) -> str:
    return f"<|ref|>{label}<|/ref|><|det|>[{list(box)}]<|/det|>\n{text}"


_ENDLESS_PLAY = Answer("", "all work and no play ", "and then the page was over.")

_FAULTY = (
    # A loop that any n-gram setting breaks.
    Shade("black", 0, {"markdown": _ENDLESS_PLAY, "free": _ENDLESS_PLAY}),
    # A loop that no n-gram setting breaks, whatever is asked.
    Shade("march", 16, {"markdown": MARCHING, "free": MARCHING}),
    # The same, but another question has an answer.
    Shade(
        "stubborn",
        30,
        {
            "markdown": MARCHING,
            "free": Answer("The stubborn page\n\nIt answers when asked plainly."),
        },
    ),
    # A loop of nothing but cells, which the whitelist lets run.
    Shade(
        "cells",
        44,
        {
            "markdown": Answer(
                _block("table", (80, 80, 920, 920), "<table><tr>"),
                "<td></td>",
                "</tr></table>",
            ),
            "free": Answer("The cells page\n\nIts cells are all empty."),
        },
    ),
    # Ink on the page, and no answer.
    Shade("empty", 143, {"markdown": Answer(""), "free": Answer("")}),
)

"""Outputs of a megabyte that were thought out to take long, and how long they take.

`python -m tests.longoutputs` prints CPU seconds by name as JSON.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable

from tasks.grounding import page, pieces


def filled(piece: str) -> str:
    return piece * (1_000_000 // len(piece))


DET = "<|ref|>text<|/ref|><|det|>"
BOXED = f"{DET}[[1, 2, 30, 40]]<|/det|>"
LONG: dict[str, Callable[[], str]] = {
    "refs": lambda: filled("<|ref|>"),
    "dets": lambda: filled("<|det|>"),
    "short blocks": lambda: filled("<|ref|>text<|/ref|>x"),
    "marching boxes": lambda: filled(f"{BOXED}\n"),
    "dets of one ref": lambda: "<|ref|>text<|/ref|>" + filled("<|det|>[[1,2,3,4]]<|/det|>"),
    "brackets": lambda: DET + filled("[["),
    "nested lists": lambda: DET + "[" * 500_000 + "1,2,3,4" + "]" * 500_000 + "<|/det|>",
    "boxes of one det": lambda: DET + filled("[1, 2, 30, 40],") + "<|/det|>",
    "a long number": lambda: f"{DET}[[{filled('9')}]]<|/det|>",
    "spaces in a det": lambda: DET + "[" + filled("]     "),
    "cells": lambda: f"{BOXED}<table>" + filled("<td>"),
    "rows": lambda: "<table>" + filled("<tr><td>"),
    "spans": lambda: "<table>" + filled("<tr><td rowspan=100 colspan=100>x<td rowspan=9>y"),
    "a wide row and many": lambda: "<table>" + "<td>" * 100_000 + "<tr><td>" * 75_000,
    "tables": lambda: filled("<table><td>"),
    "a tag with spaces": lambda: "<table><td rowspan" + filled(" ") + ">",
    "a tag without end": lambda: "<" + filled("a"),
    "entities": lambda: "<table><td>" + filled("&amp;amp;lt;"),
    "tags": lambda: filled("<b>"),
    "images": lambda: filled("!["),
    "stars": lambda: filled("*") + "a",
    "headings": lambda: filled("# a\n"),
    "pipes": lambda: filled("|-\n"),
    "a wide Markdown table": lambda: (
        "|a" * 150_000 + "\n" + "|-" * 150_000 + "\n" + "|x\n" * 130_000
    ),
    "backslashes": lambda: "|" + filled("\\") + "\n|-|",
    "fences": lambda: filled("~~~~a\n"),
    "maths": lambda: filled("\\(") + "<b",
    "spaces": lambda: "a" + filled(" ") + "b<",
    "blank lines": lambda: filled("\n ") + "a",
    "surrogates": lambda: filled("\ud800"),
}


def seconds(raw: str) -> float:
    """CPU time to parse it; a machine that is busy with others gets another chance."""
    took: list[float] = []
    while len(took) < 3 and (not took or took[-1] >= 1):
        began = time.process_time()
        page(pieces(raw, 595, 842, 90), "1")
        took.append(time.process_time() - began)
    return min(took)


if __name__ == "__main__":
    print(json.dumps({name: seconds(make()) for name, make in LONG.items()}))

"""The boxes of a grounded answer, as the model wrote them, and whether they march without end."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

LABELS = frozenset(
    (
        *("title", "sub_title", "text", "equation", "table", "image", "figure", "image_caption"),
        *("table_caption", "table_footnote", "header", "footer"),
    )
)
"""Words in a `<|ref|>` that name a kind of block; any other is text of the page itself."""

_NEAR = 4096  # bytes that are looked at first, and all that stray boxes are counted in
_FAR = 12_288  # 150 boxes with the longest labels
_LEAST_DENSITY = 60  # bytes at most a bracket: boxes with lines between them are no march
_BESIDE = 1100  # of 999 across a page; real boxes end at 1005
_LEAST_ON_TOP = 0.5  # of the smaller box: neighbours touch, they do not cover each other

_REF = re.compile(r"<\|ref\|>([^<]*)<\|/ref\|>\s*(?:<\|det\|>([^<]*)(?:<\|/det\|>)?)?")
_LIST = re.compile(r"\[([^\[\]]+)")
_COORDINATE = re.compile(r"-?\d{1,9}(?:\.\d{1,9})?")

Coordinates = tuple[float, float, float, float]


@dataclass(frozen=True, slots=True)
class Reference:
    """A `<|ref|>` with its boxes as the model wrote them, None for what is no box, and its text.

    `end` is where its markup ends and its text begins.
    """

    label: str
    boxes: tuple[Coordinates | None, ...]
    text: str
    end: int


def references(text: str) -> Iterator[Reference]:
    """The `<|ref|>`s of an answer in its order; a `<|det|>` may be missing or cut off."""
    found = list(_REF.finditer(text))
    ends = [*(following.start() for following in found[1:]), len(text)]
    for this, end in zip(found, ends, strict=False):
        lists = _LIST.findall(this[2] or "")
        boxes = tuple(_box(numbers) for numbers in lists) or (None,)
        own = text[this.end() : end].partition("<|")[0].removesuffix("<").strip()
        yield Reference(this[1].strip(), boxes, own, this.end())


def _box(numbers: str) -> Coordinates | None:
    box = [float(number) for number in _COORDINATE.findall(numbers)]
    return (box[0], box[1], box[2], box[3]) if len(box) == 4 else None


def marching(tail: bytes, most_stray: int, most_bare: int) -> int | None:
    """Whether `tail`, bytes of UTF-8, ends in boxes without end: where the first of them ends.

    They are too many if `most_stray` boxes, and half of all, have nothing or a text that was there
    before and stand where one stood before, on the last one or beside the page; or if `most_bare`
    in a row have a layout label and no text.
    """
    newest = tail[-_NEAR:]
    label = newest.rpartition(b"<|ref|>")[2].partition(b"<|/ref|>")[0] or b"["
    dense = newest.count(b"[") * _LEAST_DENSITY >= len(newest)
    if not dense or tail.count(label) * 2 < most_stray:
        return None
    for window in (_NEAR, _FAR):
        text = tail[-window:].decode("utf-8", "ignore")
        boxes, stray, bare = _boxes(text)
        for most, ends in ((max(most_stray, boxes / 2), stray), (most_bare, bare)):
            if len(ends) >= most:
                return len(tail) - len(text[ends[0] :].encode())
        if len(bare) < boxes:  # a longer window would not find a longer run of bare ones
            return None
    return None


def _boxes(text: str) -> tuple[int, list[int], list[int]]:
    """How many boxes there are, and the ends of the stray ones and of the last run of bare ones."""
    last: dict[tuple[str, str], Coordinates | None] = {}
    seen = set()
    boxes, stray, bare = 0, list[int](), list[int]()
    for reference in references(text):
        key = reference.label, reference.text
        if reference.text or reference.label not in LABELS:
            bare.clear()
        else:
            bare.extend([reference.end] * len(reference.boxes))
        for box in reference.boxes:
            boxes += 1
            if key in last and ((key, box) in seen or _astray(box, last[key])):
                stray.append(reference.end)
            last[key] = box
            seen.add((key, box))
    return boxes, stray, bare


def _astray(box: Coordinates | None, before: Coordinates | None) -> bool:
    """Whether a box lies beside the page or covers half of the one before it."""
    if box is None or before is None:
        return box is before
    if max(box) > _BESIDE or min(box) < -_BESIDE:
        return True
    across = min(box[2], before[2]) - max(box[0], before[0])
    down = min(box[3], before[3]) - max(box[1], before[1])
    smaller = min((b[2] - b[0]) * (b[3] - b[1]) for b in (box, before))
    return across > 0 and down > 0 and across * down >= _LEAST_ON_TOP * smaller

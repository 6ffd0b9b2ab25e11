"""A source of a dozen small objects whose pages can be told apart by their grey."""

from __future__ import annotations

import io
import tarfile
from collections.abc import Sequence
from functools import cache

import pymupdf

from tests.standin import Question, Said, fill, grounded

STEP = 7  # greys from one page to the next: more than a JPEG blurs
SIZE = (150, 200)

PAGES = 34
"""Pages with a grey of their own; those of the twin have another's."""

ROWS = PAGES + 3
DOCUMENTS = 12 + 3

FIGURE = "<|ref|>image<|/ref|><|det|>[[100, 300, 300, 400]]<|/det|>\n"
SECOND_FIGURE = "<|ref|>image<|/ref|><|det|>[[100, 500, 400, 600]]<|/det|>\n"


def pdf(pages: Sequence[int]) -> bytes:
    """A PDF of pages with these numbers, each filled with its grey."""
    document = pymupdf.open()
    for number in pages:
        page = document.new_page(width=SIZE[0], height=SIZE[1])
        fill(page, number * STEP, [f"Letter {number}"])
    return bytes(document.tobytes(no_new_id=True))


def tar_gz(members: dict[str, bytes]) -> bytes:
    written = io.BytesIO()
    with tarfile.open(fileobj=written, mode="w:gz") as archive:
        for name, data in members.items():
            member = tarfile.TarInfo(name)
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))
    return written.getvalue()


def letters() -> dict[str, bytes]:
    """Three shards of four: an archive, twins in two of them, a long one, one that is broken."""
    numbers = iter(range(PAGES))

    def of(count: int) -> bytes:
        return pdf([next(numbers) for _ in range(count)])

    twin = of(3)
    found = {
        "a/0.pdf": twin,
        "a/1.pdf": of(1),
        "a/2.tar.gz": tar_gz({"x.pdf": of(2), "y/y.pdf": of(3), "z.pdf": of(1)}),
        "a/3.pdf": of(2),
        "b/0.pdf": b"%PDF-1.7 and then nothing",
        "b/1.pdf": of(12),
        "b/2.pdf": twin,
        "b/3.pdf": of(1),
        "c/0.pdf": of(4),
        "c/1.pdf": of(1),
        "c/2.pdf": of(2),
        "c/3.pdf": of(2),
    }
    assert next(numbers, None) is None
    return found


def page_of(question: Question) -> int:
    """The number of the page that a question is about."""
    picture = next(part for part in question.body["messages"][0]["content"] if "image_url" in part)
    return _page_on(picture["image_url"]["url"])


@cache  # a page looks the same each time
def _page_on(url: str) -> int:
    part = {"type": "image_url", "image_url": {"url": url}}
    return round(Question({"messages": [{"content": [part]}]}, {}).shade / STEP)


def read(question: Question) -> Said:
    """A title, a line of text and a figure."""
    return Said(grounded(f"letter {page_of(question)}") + FIGURE)


def read_otherwise(question: Question) -> Said:
    """The same words with a figure more: a model does not always see the same."""
    return Said(grounded(f"letter {page_of(question)}") + FIGURE + SECOND_FIGURE)

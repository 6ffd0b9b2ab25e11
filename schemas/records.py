"""The frozen records that one step hands to the next, in the order in which a page meets them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import date, datetime
from typing import Literal

from schemas.errors import ErrorCode

Box = tuple[float, float, float, float]
"""`(x0, y0, x1, y1)` in PDF points over the page as displayed, origin top left."""


@dataclass(frozen=True, slots=True)
class SourceObject:
    """One object that the listing of the source gave.

    `version` changes whenever the object does: its ETag, or size and time of a local file.
    """

    uri: str
    version: str
    size_bytes: int


@dataclass(frozen=True, slots=True)
class PlannedDocument:
    """A source object that this run is to read; `runs` says how many runs have tried before.

    The members of an archive are told in the same way, once it has been opened. `replaces` is the
    `documents` object with a row of this document that goes when it has been read anew.
    """

    document_id: str
    uri: str
    version: str
    size_bytes: int
    runs: int = 0
    replaces: str | None = None


@dataclass(frozen=True, slots=True)
class Shard:
    """A fixed list of documents, read and committed by one worker at a time."""

    shard_id: str
    run_id: str
    ingest_date: date
    documents: tuple[PlannedDocument, ...]


@dataclass(frozen=True, slots=True)
class LocalDocument:
    """A document's bytes at a path of this machine, with what identifies them."""

    uri: str
    path: str
    size_bytes: int
    content_sha256: str
    mtime_ns: int


@dataclass(frozen=True, slots=True)
class DocumentFacts:
    """What opening a document told; fixed by the first part that touches the document.

    `page_count` is how many rows the document will have in `pages`; `source_page_count` what the
    file itself claims. With `error_code` set there are no pages.
    """

    content_sha256: str | None = None
    media_type: str | None = None
    source_bytes: int | None = None
    page_count: int = 0
    source_page_count: int | None = None
    error_code: ErrorCode | None = None
    error_message: str | None = None
    metadata: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class PageRef:
    """One page of one document, still unread. `page_number` counts from 1."""

    document_id: str
    document: LocalDocument
    media_type: str
    page_number: int


@dataclass(frozen=True, slots=True)
class PageImage:
    """A page rendered for an engine.

    `width_pt` and `height_pt` are the page as displayed; `width` and `height` the image in pixels.
    `data` is a JPEG, or with `form` "rgb" three bytes a pixel, row by row. `ink` is the share of
    the image with anything drawn on it, 0 for a blank page.
    """

    data: bytes
    width: int
    height: int
    width_pt: float
    height_pt: float
    render_ms: float
    ink: float
    form: Literal["jpeg", "rgb"] = "jpeg"


@dataclass(frozen=True, slots=True)
class TextLayer:
    """A page whose embedded text can be trusted: no image is needed."""

    width_pt: float
    height_pt: float
    render_ms: float


@dataclass(frozen=True, slots=True)
class Reading:
    """What an engine said of one image. `turn` is the clockwise turn it undid before reading."""

    raw: str
    finish_reason: str
    engine: str
    model: str
    engine_ms: float
    turn: int = 0
    prompt_tokens: int | None = None
    output_tokens: int | None = None
    flags: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Block:
    """One region of a page. `box` is None where the engine gave none that lies on the page."""

    kind: str
    label: str
    text: str
    box: Box | None
    html: str | None = None
    boxes: tuple[Box, ...] = ()
    confidence: float | None = None
    figure_uri: str | None = None


@dataclass(frozen=True, slots=True)
class ParsedPage:
    """A page's content: Markdown and text without running heads, all blocks, cropped figures.

    `figures` maps the `figure_uri` of a block to the bytes of its WebP picture.
    """

    parser_version: str
    markdown: str
    text: str
    blocks: tuple[Block, ...] = ()
    flags: tuple[str, ...] = ()
    figures: Mapping[str, bytes] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class PageResult:
    """A finished page: one row of `pages`, and its rows of `blocks`."""

    document_id: str
    source_uri: str
    page_number: int
    status: str
    error_code: ErrorCode | None = None
    error_message: str | None = None
    origin: str | None = None
    width_pt: float | None = None
    height_pt: float | None = None
    rotation: int = 0
    markdown: str | None = None
    text: str | None = None
    raw_output: str | None = None
    engine: str | None = None
    model: str | None = None
    parser_version: str | None = None
    finish_reason: str | None = None
    prompt_tokens: int | None = None
    output_tokens: int | None = None
    attempts: int = 1
    flags: tuple[str, ...] = ()
    image_width: int | None = None
    image_height: int | None = None
    render_ms: float | None = None
    engine_ms: float | None = None
    blocks: tuple[Block, ...] = ()
    figures: Mapping[str, bytes] = field(default_factory=dict)


Place = tuple[int, int]
"""Where a document stands in its shard: the planned document's index, and the member of it.

A document that is no archive is member 0 of itself. The members of an archive count from 0, and
behind the last one stands the archive itself, which has no pages.
"""


@dataclass(frozen=True, slots=True)
class Extent:
    """What one part holds of one document: its pages `first_page` to `last_page`.

    `last_page` is `first_page - 1` where the document has no pages. The counts are of this extent.
    `closes` says that nothing more follows of the planned document: it is false for the members of
    an archive. Those have an address and a size of their own, and `container_sha256` says of which
    content they are members.
    """

    index: int
    document_id: str
    first_page: int
    last_page: int
    facts: DocumentFacts
    pages_ok: int
    pages_empty: int
    pages_failed: int
    error_code: ErrorCode | None
    error_message: str | None
    started_at: datetime
    finished_at: datetime
    member: int = 0
    closes: bool = True
    uri: str | None = None
    container_sha256: str | None = None

    @property
    def place(self) -> Place:
        """Where its document stands in the shard."""
        return (self.index, self.member)

    @property
    def complete(self) -> bool:
        """Whether the document ends with this extent."""
        return self.last_page >= self.facts.page_count

    @property
    def next_page(self) -> tuple[Place, int]:
        """The place and the page that follow."""
        if not self.complete:
            return self.place, self.last_page + 1
        return ((self.index + 1, 0) if self.closes else (self.index, self.member + 1)), 1

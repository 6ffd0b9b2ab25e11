"""A source that tests make up and change as they like, and what stands for fetching, opening and
reading its documents: everything around the lake, so that the code which writes it can be run."""

from __future__ import annotations

import asyncio
import contextvars
import hashlib
import io
import itertools
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest

from schemas.errors import DocumentError, ErrorCode
from schemas.records import (
    Block,
    DocumentFacts,
    LocalDocument,
    PageRef,
    PageResult,
    PlannedDocument,
    SourceObject,
)
from tasks.media import ZIP
from tests.memorystore import Killed
from tests.simulation import HERE

PDF = "application/pdf"
SOURCE: contextvars.ContextVar[Source] = contextvars.ContextVar("source")


@dataclass(frozen=True)
class Content:
    """What a document is: pages, or the members of an archive, or neither: then it is damaged."""

    salt: int
    pages: int = 0
    members: tuple[Content, ...] = ()

    @property
    def data(self) -> bytes:
        if not self.members:
            return f"{self.pages} pages, {self.salt}".encode()
        packed = io.BytesIO()
        with zipfile.ZipFile(packed, "w") as archive:
            for number, member in enumerate(self.members):
                archive.writestr(zipfile.ZipInfo(f"{number}.pdf"), member.data)
        return packed.getvalue()

    @property
    def sha256(self) -> str:
        return hashlib.sha256(self.data).hexdigest()


@dataclass
class Source:
    """The objects of a source by address, with what is wrong with them just now.

    Attributes:
        folder: where archives are put for the code to open them.
        objects: content and version by address.
        troubled: pages `(salt, number)` that fail for a reason which will pass.
        deadly: addresses that kill whoever opens them, so many times.
        unsure: addresses of documents that changed under a version that did not.
        disturbed: addresses that were ever written again, removed or deadly.
    """

    folder: Path
    objects: dict[str, tuple[Content, str]] = field(default_factory=dict)
    troubled: set[tuple[int, int]] = field(default_factory=set)
    deadly: dict[str, int] = field(default_factory=dict)
    unsure: set[str] = field(default_factory=set)
    disturbed: set[str] = field(default_factory=set)
    _written: set[str] = field(default_factory=set)
    _versions: Iterator[int] = field(default_factory=itertools.count)
    _known: dict[str, Content] = field(default_factory=dict)

    def put(self, uri: str, content: Content, same_version: bool = False) -> None:
        """Write a document; another version of it, if it is not to look as if it were the same."""
        if uri in self._written:
            self.disturbed.add(uri)
        self._written.add(uri)
        if same_version and uri in self.objects:
            self.unsure.add(uri)
            self.objects[uri] = content, self.objects[uri][1]
        else:
            self.unsure.discard(uri)
            self.objects[uri] = content, str(next(self._versions))
        for each in (content, *content.members):
            self._known[each.sha256] = each

    def listing(self) -> Iterator[SourceObject]:
        for uri, (content, version) in sorted(self.objects.items()):
            yield SourceObject(uri, version, len(content.data))

    def content(self, content_sha256: str) -> Content:
        return self._known[content_sha256]

    def fetch(self, planned: PlannedDocument) -> LocalDocument:
        machine = HERE.get()
        machine.turns.wait(_seconds(machine.name, planned.uri))
        if self.deadly.get(planned.uri):
            self.deadly[planned.uri] -= 1
            machine.dead = True
            raise Killed
        content, version = self.objects.get(planned.uri, (None, None))
        if content is None:
            raise DocumentError(ErrorCode.SOURCE_MISSING, "it is gone")
        if version != planned.version:
            raise DocumentError(ErrorCode.SOURCE_CHANGED, "it has changed")
        return self.kept(planned.uri, content)

    def kept(self, uri: str, content: Content) -> LocalDocument:
        path = self.folder / content.sha256
        if content.members and not path.exists():
            path.write_bytes(content.data)
        return LocalDocument(uri, str(path), len(content.data), content.sha256, 0)

    def facts(self, document: LocalDocument) -> DocumentFacts:
        content = self.content(document.content_sha256)
        if not content.pages and not content.members:
            raise DocumentError(ErrorCode.CORRUPT, "it is damaged")
        return DocumentFacts(
            content_sha256=document.content_sha256,
            media_type=ZIP if content.members else PDF,
            source_bytes=document.size_bytes,
            page_count=content.pages,
            source_page_count=content.pages,
        )

    def page(self, ref: PageRef, worker: str) -> PageResult:
        """A page as `worker` reads it: some have blocks, some of those a figure."""
        content, number = self.content(ref.document.content_sha256), ref.page_number
        made = PageResult(ref.document_id, ref.document.uri, number, "failed", engine=worker)
        if (content.salt, number) in self.troubled:
            return replace(made, error_code=ErrorCode.ENGINE_ERROR, error_message="no answer")
        count = (content.salt + number) % 3
        blocks = [
            Block("text", "text", f"{content.salt}/{number}/{n} by {worker}", (1.0, 2.0, 3.0, 4.0))
            for n in range(count)
        ]
        figures = {}
        if count == 2:  # not every worker sees the same region as the figure
            at = zlib.crc32(worker.encode()) % 2
            uri = f"figures/{ref.document_id}/{number}-{at + 1}.webp"
            blocks[at] = replace(blocks[at], kind="figure", figure_uri=uri)
            figures[uri] = picture(uri)
        return replace(
            made,
            status="ok" if blocks else "empty",
            text=f"{content.salt}/{number}",
            blocks=tuple(blocks),
            figures=figures,
        )


@dataclass(frozen=True)
class Written:
    """A document is written; with `same_version` its version does not tell."""

    uri: str
    content: Content
    same_version: bool

    def apply(self, source: Source) -> None:
        content = self.content
        if self.uri.endswith(".zip"):
            content = Content(9, members=(content, content))
        source.put(self.uri, content, self.same_version)


@dataclass(frozen=True)
class Gone:
    """A document is removed."""

    uri: str

    def apply(self, source: Source) -> None:
        source.objects.pop(self.uri, None)
        source.disturbed.add(self.uri)


@dataclass(frozen=True)
class Troubled:
    """Some pages fail from now on, and no others, for a reason that passes."""

    pages: frozenset[tuple[int, int]]

    def apply(self, source: Source) -> None:
        source.troubled = set(self.pages)


@dataclass(frozen=True)
class Deadly:
    """A document kills the next so many who open it."""

    uri: str
    times: int

    def apply(self, source: Source) -> None:
        source.deadly[self.uri] = self.times
        source.disturbed.add(self.uri)


Change = Written | Gone | Troubled | Deadly


def picture(uri: str) -> bytes:
    """What is stored of a figure: of a copy, the same as of its original."""
    return uri.rpartition("/")[2].encode()


def _seconds(*names: object) -> float:
    """How long something takes: now this, now that, and always the same."""
    return zlib.crc32(repr(names).encode()) % 7 / 10


class Pool:
    """In place of the processes in which documents are opened."""

    async def run(self, seconds: float, function: Callable[..., Any], *arguments: Any) -> Any:
        assert function.__name__ == "inspect"
        return SOURCE.get().facts(*arguments)

    def __enter__(self) -> Pool:
        return self

    def __exit__(self, *_: object) -> None:
        pass


class Fetcher:
    """In place of downloads."""

    threads = None

    def fetch(self, planned: PlannedDocument) -> LocalDocument:
        return SOURCE.get().fetch(planned)

    def keep(self, uri: str, fill: Callable[[Callable[[bytes], object]], None]) -> LocalDocument:
        data = io.BytesIO()
        fill(data.write)
        source = SOURCE.get()
        return source.kept(uri, source.content(hashlib.sha256(data.getvalue()).hexdigest()))

    def release(self, document: LocalDocument) -> None:
        pass

    def __enter__(self) -> Fetcher:
        return self

    def __exit__(self, *_: object) -> None:
        pass


class Reader:
    """In place of rendering, the engine and parsing."""

    async def read(self, ref: PageRef) -> PageResult:
        worker = HERE.get().name
        await asyncio.sleep(_seconds(worker, ref.document_id, ref.page_number))
        return SOURCE.get().page(ref, worker)


class Engines:
    """In place of the engines of a run."""

    async def recognizer(self, recipe: object) -> None:
        pass

    async def describer(self, recipe: object) -> None:
        pass

    def count(self) -> int:
        return 0

    async def __aenter__(self) -> Engines:
        return self

    async def __aexit__(self, *_: object) -> None:
        pass


@contextmanager
def _stop_signals(
    stopping: asyncio.Event, pool: Pool, abandon: Callable[[], None]
) -> Iterator[list[int]]:
    received: list[int] = []
    loop = asyncio.get_running_loop()

    def stop() -> None:
        received.append(15)
        stopping.set()

    HERE.get().interrupt = lambda: loop.call_soon_threadsafe(stop)
    try:
        yield received
    finally:
        HERE.get().interrupt = None


def from_here(patch: pytest.MonkeyPatch) -> None:
    """Let runs read what is in `SOURCE`, and write into the store of the machine they run on."""
    patch.setattr("tasks.stores.store_of", lambda *_: HERE.get().store)
    for name, stand_in in {
        "store_of": lambda *_: HERE.get().store,
        "listing_of": lambda *_: SOURCE.get().listing(),
        "WorkerPool": lambda *_: Pool(),
        "Fetcher": lambda *_: Fetcher(),
        "PageReader": lambda **_: Reader(),
        "Engines": lambda *_: Engines(),
        "stop_signals": _stop_signals,
    }.items():
        patch.setattr(f"flows.ingest.{name}", stand_in)

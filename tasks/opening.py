"""The documents of a shard in their order, each with the next few already being opened.

planned ─▶ fetched and inspected ─▶ a document
                                └─▶ an archive ─▶ its members, one after another, then itself
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Generator, Iterator
from contextlib import closing
from dataclasses import replace

from schemas.errors import DocumentError, ErrorCode
from schemas.records import Extent, LocalDocument, Place, PlannedDocument, Shard
from schemas.settings import document_id
from tasks.archive import Limits, Member, walk
from tasks.claim import Claim
from tasks.pipeline import DOCUMENTS_AHEAD, Flow, Opened, failed
from tasks.rows import planned_of

_Begin = Callable[[], Awaitable[asyncio.Task[Opened] | None]]


_WHOLE = -1
"""In a claim, instead of the number of a member: the planned document itself is being read."""

_NESTED = DocumentError(
    ErrorCode.UNSUPPORTED_TYPE, "an archive inside an archive is not opened; unpack it first"
)


class Opener:
    """Opens the documents of a shard from where its log ends.

    Args:
        flow: what all shards of the run share.
        shard: the shard.
        claim: under which this worker reads it; a careful one has documents opened one at a time.
        last: the extent that the log ends with.
    """

    def __init__(self, flow: Flow, shard: Shard, claim: Claim, last: Extent | None) -> None:
        self._flow = flow
        self._shard = shard
        self._claim = claim
        self._last = last
        self._start: tuple[Place, int] = last.next_page if last else ((0, 0), 1)
        self._ahead = 1 if claim.careful else DOCUMENTS_AHEAD

    async def documents(self) -> AsyncGenerator[Opened, None]:
        """Documents in order, until the shard ends or the run is to stop.

        Raises:
            Stopped: the run is to end.
        """
        rest = iter(range(self._start[0][0], len(self._shard.documents)))

        async def begin() -> asyncio.Task[Opened] | None:
            index = next(rest, None)
            return None if index is None else asyncio.create_task(self._open(index))

        async for opened in self._in_order(begin):
            if self._is_half_read(opened.place[0]) and not self._agrees(opened):
                for broken in self._broken_off(opened):
                    yield broken
            elif opened.is_archive and opened.document is not None:
                try:
                    async for member in self._members(opened, opened.document):
                        yield member
                finally:
                    self._flow.fetcher.release(opened.document)
            else:
                yield opened

    async def _in_order(self, begin: _Begin) -> AsyncIterator[Opened]:
        ahead: deque[asyncio.Task[Opened]] = deque()
        ended = False
        try:
            while not self._flow.stopping.is_set():
                while not ended and len(ahead) < self._ahead:
                    task = await begin()
                    if task is None:
                        ended = True
                    else:
                        ahead.append(task)
                if not ahead:
                    return
                yield await ahead.popleft()
        finally:
            for task in ahead:
                task.cancel()
            await asyncio.gather(*ahead, return_exceptions=True)

    async def _open(self, index: int) -> Opened:
        planned = self._shard.documents[index]
        place = (index, self._start[0][1] if index == self._start[0][0] else 0)
        opened = await self._guarded(planned, (index, _WHOLE), lambda: self._flow.open(planned))
        return replace(opened, place=place)

    def _is_half_read(self, index: int) -> bool:
        """Whether the log breaks off in this planned document."""
        last = self._last
        return last is not None and last.index == index == last.next_page[0][0]

    def _agrees(self, opened: Opened) -> bool:
        """Whether it still is the archive that it was, or still none."""
        assert self._last is not None
        if self._last.container_sha256 is None:
            return not opened.is_archive
        found = opened.document.content_sha256 if opened.document else None
        return found == self._last.container_sha256

    def _broken_off(self, archive: Opened) -> Iterator[Opened]:
        """An archive that was another, or none, when a half was read: the rest of the document or
        member that was being read, and the archive itself if it was one."""
        last = self._last
        assert last is not None
        if archive.document is not None:
            self._flow.fetcher.release(archive.document)
        error = DocumentError(
            archive.facts.error_code or ErrorCode.SOURCE_CHANGED,
            archive.facts.error_message or "the archive changed after a part of it was read",
        )
        if last.container_sha256 is None:
            yield replace(failed(archive.planned, error), place=last.place)
            return
        if not last.complete:
            member = failed(planned_of(self._shard, last), error)
            yield replace(
                member, place=last.place, closes=False, container_sha256=last.container_sha256
            )
        number = last.member + 1
        yield replace(failed(archive.planned, error), place=(last.index, number))

    async def _guarded(
        self, planned: PlannedDocument, place: Place, open_it: Callable[[], Awaitable[Opened]]
    ) -> Opened:
        """A document, opened; noted first if it may be the one that kills."""
        if not self._claim.careful:
            return await open_it()
        if place == self._claim.fatal():
            return failed(
                planned,
                DocumentError(
                    ErrorCode.INTERNAL,
                    "three workers died while this document was read; read it alone, with "
                    "--include, to see why",
                ),
            )
        await asyncio.to_thread(self._claim.note, place)
        return await open_it()

    async def _members(self, archive: Opened, document: LocalDocument) -> AsyncIterator[Opened]:
        """The members of an archive that are not in the log, then the archive itself."""
        index, first = archive.place
        number = first
        trouble: DocumentError | None = None
        steps = unpacked(self._flow, archive, document, first)

        async def begin() -> asyncio.Task[Opened] | None:
            nonlocal number, trouble
            try:
                found = await self._flow.in_thread(lambda: next(steps, None))
            except DocumentError as error:
                trouble = error
                return None
            if found is None:
                return None
            place = (index, number)
            number += 1
            member, got = found
            planned = self._planned(archive.planned, member)
            return asyncio.create_task(self._member(place, document.content_sha256, planned, got))

        try:
            async for member in self._in_order(begin):
                yield member
        finally:
            await self._flow.in_thread(steps.close)
        if self._flow.stopping.is_set():
            return
        facts = archive.facts
        if trouble is not None:
            facts = replace(facts, error_code=trouble.code, error_message=trouble.message)
        yield replace(archive, document=None, facts=facts, place=(index, number))

    async def _member(
        self,
        place: Place,
        container: str,
        planned: PlannedDocument,
        got: LocalDocument | DocumentError,
    ) -> Opened:
        opened = await self._guarded(planned, place, lambda: _inspect(self._flow, planned, got))
        return replace(opened, place=place, closes=False, container_sha256=container)

    def _planned(self, archive: PlannedDocument, member: Member) -> PlannedDocument:
        uri = f"{archive.uri}!/{member.name}"
        key = document_id(uri, archive.version, self._flow.recipe_id)
        return replace(archive, document_id=key, uri=uri, size_bytes=member.size_bytes)


def unpacked(
    flow: Flow, archive: Opened, document: LocalDocument, first: int
) -> Generator[tuple[Member, LocalDocument | DocumentError], None, None]:
    """The members of an archive from the `first` on (from 0), each at a path of its own.

    Raises:
        DocumentError: the archive is damaged from here on, or there are too many members.
    """
    limits = Limits(
        members=flow.settings.max_archive_members,
        member_bytes=flow.settings.max_document_bytes,
        total_bytes=flow.settings.max_archive_bytes,
    )
    with closing(walk(document.path, archive.facts.media_type or "", limits, first + 1)) as members:
        for member in members:
            try:
                got = flow.fetcher.keep(f"{archive.planned.uri}!/{member.name}", member.read)
            except DocumentError as error:
                yield member, error
            else:
                yield member, got


async def open_member(
    flow: Flow, archive: Opened, document: LocalDocument, planned: PlannedDocument, number: int
) -> Opened:
    """One member of an archive, by its number from 0; as `Flow.open`."""
    steps = unpacked(flow, archive, document, number)
    try:
        found = await flow.in_thread(lambda: next(steps, None))
    except DocumentError as error:
        return failed(planned, error)
    finally:
        await flow.in_thread(steps.close)
    assert found is not None, "the same content has the same members"
    return await _inspect(flow, planned, found[1])


async def _inspect(
    flow: Flow, planned: PlannedDocument, got: LocalDocument | DocumentError
) -> Opened:
    if isinstance(got, DocumentError):
        return failed(planned, got)
    opened = await flow.inspect(planned, got)
    if opened.is_archive:
        flow.fetcher.release(got)
        return failed(planned, _NESTED, got.content_sha256)
    return opened

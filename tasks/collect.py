"""Finished pages of a shard, put back in order where a part is cut."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime

from schemas.errors import TRANSIENT
from schemas.records import DocumentFacts, Extent, PageResult, Shard


@dataclass(frozen=True, slots=True)
class Draft:
    """What the next part would hold."""

    pages: tuple[PageResult, ...]
    extents: tuple[Extent, ...]


@dataclass(slots=True)
class _Opened:
    facts: DocumentFacts
    started_at: datetime
    pages: dict[int, PageResult] = field(default_factory=dict)


class Collector:
    """Holds what is finished but not committed, by document and page.

    `position` is the first page that is not in the log: index of the document, page number.
    """

    def __init__(self, shard: Shard, position: tuple[int, int]) -> None:
        self._shard = shard
        self._documents: dict[int, _Opened] = {}
        self.position = position

    def opened(self, index: int, facts: DocumentFacts) -> None:
        """A document's facts are known; its pages may follow in any order.

        Whatever lies before `position` is in the log, by another writer, and is not kept.
        """
        if index < self.position[0]:
            return
        self._documents[index] = _Opened(facts, datetime.now(UTC))

    def finished(self, index: int, page: PageResult) -> None:
        """A page is done, well or not."""
        if (index, page.page_number) < self.position:
            return
        self._documents[index].pages[page.page_number] = page

    def pages_held(self) -> int:
        """Pages that are finished and not committed."""
        return sum(len(opened.pages) for opened in self._documents.values())

    def held(self) -> int:
        """Pages and page-less documents that are not committed: an upper bound of a draft."""
        return sum(max(len(opened.pages), 1) for opened in self._documents.values())

    def draft(self, most_pages: int) -> Draft:
        """The longest run of finished pages from `position`, of at most so many.

        Documents without pages count as one, so that a part of nothing but failures ends too.
        """
        pages: list[PageResult] = []
        extents: list[Extent] = []
        index, first = self.position
        room = most_pages
        while room > 0 and (opened := self._documents.get(index)) is not None:
            last = first
            while last - first < room and last in opened.pages:
                last += 1
            count = opened.facts.page_count
            if last == first and first <= count:
                break
            held = [opened.pages[number] for number in range(first, last)]
            pages += held
            extents.append(_extent(index, self._shard, opened, first, held))
            room -= max(len(held), 1)
            if last <= count:
                break
            index, first = index + 1, 1
        return Draft(tuple(pages), tuple(extents))

    def committed_up_to(self, position: tuple[int, int]) -> None:
        """Forget everything before `position`: it is in the log, by whomever."""
        self.position = position
        index, page_number = position
        for done in [known for known in self._documents if known < index]:
            del self._documents[done]
        if index in self._documents:
            held = self._documents[index].pages
            for number in [number for number in held if number < page_number]:
                del held[number]


def extent_of(
    index: int,
    document_id: str,
    facts: DocumentFacts,
    first_page: int,
    pages: Sequence[PageResult],
    started_at: datetime,
) -> Extent:
    """The extent that consecutive pages of one document make."""
    failures = [page for page in pages if page.status == "failed"]
    worst = min(failures, key=lambda page: page.error_code not in TRANSIENT, default=None)
    return Extent(
        index=index,
        document_id=document_id,
        first_page=first_page,
        last_page=first_page + len(pages) - 1,
        facts=facts,
        pages_ok=sum(page.status == "ok" for page in pages),
        pages_empty=sum(page.status == "empty" for page in pages),
        pages_failed=len(failures),
        error_code=worst.error_code if worst else facts.error_code,
        error_message=worst.error_message if worst else facts.error_message,
        started_at=started_at,
        finished_at=datetime.now(UTC),
    )


def _extent(
    index: int, shard: Shard, opened: _Opened, first: int, pages: Sequence[PageResult]
) -> Extent:
    document_id = shard.documents[index].document_id
    return extent_of(index, document_id, opened.facts, first, pages, opened.started_at)

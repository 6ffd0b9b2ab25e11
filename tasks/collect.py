"""Finished pages of a shard, put back in order where a part is cut."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime

from schemas.errors import TRANSIENT
from schemas.records import DocumentFacts, Extent, PageResult, Place


@dataclass(frozen=True, slots=True)
class Draft:
    """What the next part would hold; `full` if there is no room for more in it."""

    pages: tuple[PageResult, ...]
    extents: tuple[Extent, ...]
    full: bool


@dataclass(frozen=True, slots=True)
class Standing:
    """A document as it stands in its shard; the last two fields as in `Extent`."""

    place: Place
    document_id: str
    source_uri: str
    facts: DocumentFacts
    closes: bool = True
    container_sha256: str | None = None

    @property
    def next(self) -> Place:
        """The place of the document that follows."""
        index, member = self.place
        return (index + 1, 0) if self.closes else (index, member + 1)


class Disagreement(Exception):
    """Another writer has committed other content of a document than the one opened here."""


@dataclass(slots=True)
class _Opened:
    standing: Standing
    started_at: datetime
    pages: dict[int, PageResult] = field(default_factory=dict)


class Collector:
    """Holds what is finished but not committed, by document and page.

    Args:
        last: the extent that the log ends with; what follows it must be of the same content.
    """

    def __init__(self, last: Extent | None) -> None:
        self._documents: dict[Place, _Opened] = {}
        self._last = last

    @property
    def position(self) -> tuple[Place, int]:
        """The first page that is not in the log: the place of its document, page number."""
        return self._last.next_page if self._last else ((0, 0), 1)

    def opened(self, standing: Standing) -> None:
        """A document's facts are known; its pages may follow in any order.

        Whatever lies before `position` is in the log, by another writer, and is not kept.

        Raises:
            Disagreement: the log breaks off in another content of it.
        """
        self._expect(standing)
        if standing.place < self.position[0]:
            return
        self._documents[standing.place] = _Opened(standing, datetime.now(UTC))

    def finished(self, place: Place, page: PageResult) -> None:
        """A page is done, well or not."""
        if (place, page.page_number) < self.position:
            return
        self._documents[place].pages[page.page_number] = page

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
        place, first = self.position
        room = most_pages
        while room > 0 and (opened := self._documents.get(place)) is not None:
            last = first
            while last - first < room and last in opened.pages:
                last += 1
            count = opened.standing.facts.page_count
            if last == first and first <= count:
                break
            held = [opened.pages[number] for number in range(first, last)]
            pages += held
            extents.append(extent_of(opened.standing, first, held, opened.started_at))
            room -= max(len(held), 1)
            if last <= count:
                break
            place, first = opened.standing.next, 1
        return Draft(tuple(pages), tuple(extents), full=room <= 0)

    def committed_up_to(self, last: Extent) -> None:
        """Forget everything up to the extent that the log ends with, by whomever.

        Raises:
            Disagreement: another writer's, and it breaks off in other content than what is held.
        """
        self._last = last
        for opened in self._documents.values():
            self._expect(opened.standing)
        place, page_number = self.position
        for done in [known for known in self._documents if known < place]:
            del self._documents[done]
        if place in self._documents:
            held = self._documents[place].pages
            for number in [number for number in held if number < page_number]:
                del held[number]

    def _expect(self, standing: Standing) -> None:
        last = self._last
        if last is None or last.index != standing.place[0]:
            return
        place = self.position[0]
        if standing.place < place:
            if standing.closes and place[0] == last.index:
                raise Disagreement  # theirs goes on where ours has come to its end
            return
        ours, theirs = standing.facts, last.facts
        if last.place == standing.place and (
            ours.content_sha256 != theirs.content_sha256 or ours.page_count != theirs.page_count
        ):
            raise Disagreement
        container = standing.container_sha256 or ours.content_sha256  # its own, behind the members
        if not last.closes and container not in (None, last.container_sha256):
            raise Disagreement


def extent_of(
    standing: Standing, first_page: int, pages: Sequence[PageResult], started_at: datetime
) -> Extent:
    """The extent that consecutive pages of one document make."""
    failures = [page for page in pages if page.status == "failed"]
    worst = min(failures, key=lambda page: page.error_code not in TRANSIENT, default=None)
    facts = standing.facts
    return Extent(
        index=standing.place[0],
        member=standing.place[1],
        closes=standing.closes,
        uri=standing.source_uri if standing.container_sha256 else None,
        container_sha256=standing.container_sha256,
        document_id=standing.document_id,
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

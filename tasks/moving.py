"""The rows of several shards in the order of one: by address, the members of an archive behind its
own, and by page.

Nothing is held but the part that is being written and the one that is being read.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import groupby, islice

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from schemas.errors import ErrorCode, LakeError
from schemas.records import Extent, PageResult
from schemas.tables import BLOCKS, PAGES
from tasks.blank import is_blank
from tasks.collect import Standing, extent_of
from tasks.keyorder import Keyed, in_key_order
from tasks.shardlog import Entry
from tasks.store import Store, read_table

_PAGES = np.int64(1) << 32  # more than a document can have


@dataclass(frozen=True, slots=True)
class Moved:
    """A document on its way into another shard: where it is and how it will stand there."""

    shard_id: str
    row: int
    extents: tuple[Extent, ...]
    standing: Standing

    @property
    def pages(self) -> int:
        """How many rows it has in `pages`."""
        return self.standing.facts.page_count


Slice = tuple[int, int, int]
"""Of which of the moved documents, the first and the last page."""


def in_order(
    logs: Mapping[str, Sequence[Entry]], documents: Mapping[str, pa.Table], address: str
) -> list[Moved]:
    """The documents of some shards that still have rows, in the order of the new shard.

    Args:
        logs: the entries of each shard.
        documents: the `documents` rows of each shard.
        address: of the lake, for an error.

    Raises:
        LakeError: a document and its log do not agree.
    """
    planned = defaultdict[tuple[str, int], list[tuple[str, int, tuple[Extent, ...]]]](list)
    for shard_id, entries in logs.items():
        table = documents[shard_id]
        rows = {key: row for row, key in enumerate(table["document_id"].to_pylist())}
        uris = table["source_uri"].to_pylist()
        for extents in _by_place(entries):
            first = extents[0]
            if first.document_id in rows:
                row = rows.pop(first.document_id)
                planned[shard_id, first.index].append((uris[row], row, extents))
            elif first.facts.page_count and not is_blank(first):
                raise _torn(address, shard_id, first.document_id)
        for document_id in rows:
            raise _torn(address, shard_id, document_id)
    moved: list[Moved] = []
    # An archive's own address is what those of its members begin with, so it is the least.
    ordered = sorted(planned.items(), key=lambda each: (min(each[1])[0], each[0]))
    for index, ((shard_id, _), found) in enumerate(ordered):
        for uri, row, extents in found:
            standing = Standing(
                place=(index, extents[0].member),
                document_id=extents[0].document_id,
                source_uri=uri,
                facts=extents[0].facts,
                closes=extents[0].closes,
                container_sha256=extents[0].container_sha256,
            )
            moved.append(Moved(shard_id, row, extents, standing))
    return moved


def slices(moved: Sequence[Moved], most_pages: int) -> Iterator[list[Slice]]:
    """The documents cut into parts of at most so many pages."""
    part: list[Slice] = []
    room = most_pages
    for number, document in enumerate(moved):
        first = 1
        while True:
            if not room and first <= document.pages:
                yield part
                part, room = [], most_pages
            last = min(document.pages, first - 1 + room)
            part.append((number, first, last))
            room -= last - first + 1
            first = last + 1
            if first > document.pages:
                break
    if part:
        yield part


class Mover:
    """Reads the rows of parts of the new shard out of those of the old ones."""

    def __init__(
        self, store: Store, logs: Mapping[str, Sequence[Entry]], moved: Sequence[Moved]
    ) -> None:
        self._store = store
        self._logs = logs
        self._moved = moved
        self._numbers: dict[str, dict[str, int]] = {shard_id: {} for shard_id in logs}
        for number, document in enumerate(moved):
            self._numbers[document.shard_id][document.standing.document_id] = number

    def pages(self, part: Sequence[Slice]) -> pa.Table:
        """The rows of `pages`, in order.

        Raises:
            LakeError: they are not there.
        """
        rows, keys = self._rows(part, "pages", PAGES)
        wanted = [number * _PAGES + np.arange(first, last + 1) for number, first, last in part]
        if not np.array_equal(keys, np.concatenate(wanted)):
            shards = sorted({self._moved[number].shard_id for number, _, _ in part})
            raise LakeError(
                f"{self._store.address}: the pages of shards {', '.join(shards)} are not those "
                "that their log tells of; restore these files as they were"
            )
        return rows

    def blocks(self, part: Sequence[Slice]) -> pa.Table:
        """The rows of `blocks`, in order."""
        return self._rows(part, "blocks", BLOCKS)[0]

    def _rows(self, part: Sequence[Slice], table: str, schema: pa.Schema) -> Keyed:
        """The rows of a part and, for each, its document's number and its page in one."""
        low = part[0][0] * _PAGES + part[0][1]
        high = part[-1][0] * _PAGES + part[-1][2]
        found: list[Keyed] = []
        for shard_id, entries in self._logs.items():
            numbers = self._numbers[shard_id]
            for entry in entries:
                held = [numbers.get(extent.document_id, -1) for extent in entry.extents]
                key: str | None = getattr(entry, table)
                if key is None or not any(part[0][0] <= number <= part[-1][0] for number in held):
                    continue
                rows = read_table(self._store, key, schema)
                keys = _keys(rows, numbers)
                mine = np.flatnonzero((keys >= low) & (keys <= high))
                found.append((rows.take(pa.array(mine)), keys[mine]))
        return in_key_order(found, schema)


def extents_of(moved: Sequence[Moved], part: Sequence[Slice], pages: pa.Table) -> list[Extent]:
    """What a part holds of each document, by its rows of `pages`."""
    told = iter(pages.select(["status", "error_code", "error_message"]).to_pylist())
    made = []
    for number, first, last in part:
        standing, old = moved[number].standing, moved[number].extents
        rows = [
            PageResult(
                standing.document_id,
                standing.source_uri,
                page_number,
                row["status"],
                error_code=ErrorCode(row["error_code"]) if row["error_code"] else None,
                error_message=row["error_message"],
            )
            for page_number, row in enumerate(islice(told, last - first + 1), start=first)
        ]
        extent = extent_of(standing, first, rows, min(each.started_at for each in old))
        made.append(replace(extent, finished_at=max(each.finished_at for each in old)))
    return made


def _by_place(entries: Sequence[Entry]) -> Iterator[tuple[Extent, ...]]:
    """The extents of each document, in the order of the log."""
    extents = sorted(
        (extent for entry in entries for extent in entry.extents),
        key=lambda extent: (extent.place, extent.first_page),
    )
    for _, found in groupby(extents, lambda extent: extent.place):
        yield tuple(found)


def _keys(rows: pa.Table, numbers: Mapping[str, int]) -> np.ndarray:
    """For each row its document's number and its page in one; negative if it is not moved."""
    codes = pc.index_in(rows["document_id"], value_set=pa.array(list(numbers), pa.string()))
    known = np.append(np.fromiter(numbers.values(), np.int64, len(numbers)), -1)
    places = known[pc.fill_null(codes, len(numbers)).to_numpy()]
    return np.asarray(places * _PAGES + rows["page_number"].to_numpy())


def _torn(address: str, shard_id: str, document_id: str) -> LakeError:
    return LakeError(
        f"{address}: of document {document_id} in shard {shard_id} either the log or the row in "
        "documents is missing, so the shard cannot be merged; restore its files as they were"
    )

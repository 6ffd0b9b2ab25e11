"""Which shards of a lake are worth being merged into one.

Only shards that nobody will write to any more: their run is closed, and no open run is to mend
them or to take rows out of them.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import date
from itertools import groupby

from tasks.lakefiles import document_files, shard_of
from tasks.store import Store, StoredObject
from tasks.unfinished import unfinished

_DAY = "ingest_date="


@dataclass(frozen=True, slots=True)
class Group:
    """Shards of one date, in their order, with their parts."""

    ingest_date: date
    shards: tuple[str, ...]
    parts: tuple[StoredObject, ...]

    @property
    def size_bytes(self) -> int:
        """Of all parts together."""
        return sum(part.size_bytes for part in self.parts)

    def fewer(self, part_bytes: int) -> int:
        """How many parts they are to become: none smaller than `part_bytes`, if there is enough."""
        return max(1, self.size_bytes // part_bytes)

    def gains(self, part_bytes: int) -> bool:
        """Whether merging takes small parts away."""
        small = sum(_is_small(part, part_bytes) for part in self.parts)
        return small >= 2 and self.fewer(part_bytes) < len(self.parts)


def groups(store: Store, part_bytes: int) -> Iterator[Group]:
    """What is to be merged as the lake is now, one date after another.

    A shard with a part below half of `part_bytes` is taken into a group, until that is full.
    """
    complete = {shard_of(key) for key in document_files(store)}
    to_do = unfinished(store)
    for folder in store.folders("pages"):
        day = date.fromisoformat(folder.removeprefix(_DAY))
        shards = (
            Group(day, (shard_id,), parts)
            for shard_id, parts in _parts(store, folder)
            if shard_id in complete and not to_do.writes_to(shard_id)
        )
        yield from [each for each in _filled(shards, part_bytes) if each.gains(part_bytes)]


def _parts(store: Store, folder: str) -> Iterator[tuple[str, tuple[StoredObject, ...]]]:
    listed = store.objects(f"pages/{folder}/")
    for shard_id, parts in groupby(listed, lambda part: shard_of(part.key)):
        yield shard_id, tuple(parts)


def _filled(shards: Iterable[Group], part_bytes: int) -> Iterator[Group]:
    """Those of the shards that have a small part, put together until there is enough."""
    held: list[Group] = []
    for shard in shards:
        if not any(_is_small(part, part_bytes) for part in shard.parts):
            continue
        held.append(shard)
        if sum(each.size_bytes for each in held) >= part_bytes:
            yield _together(held)
            held = []
    if held:
        yield _together(held)


def _together(held: list[Group]) -> Group:
    return Group(
        held[0].ingest_date,
        tuple(shard_id for each in held for shard_id in each.shards),
        tuple(part for each in held for part in each.parts),
    )


def _is_small(part: StoredObject, part_bytes: int) -> bool:
    return part.size_bytes * 2 < part_bytes

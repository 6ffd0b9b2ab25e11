"""The end of a compaction: the shards that it merged are emptied, or what it wrote is removed.

Whoever takes the lake's lock next finishes here what a compaction that died has left.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from datetime import date, datetime, timedelta
from itertools import takewhile

from schemas.tables import DOCUMENTS, PAGES
from tasks.blank import blanked
from tasks.compaction import (
    Compaction,
    commit,
    give_up,
    note_emptied,
    noted,
    read_begun,
    remove_notes,
)
from tasks.lakefiles import shard_of
from tasks.lock import LakeLock
from tasks.rewrite import rewrite
from tasks.rows import parquet
from tasks.shardlog import entry_footer, read_entry
from tasks.store import Store, keys

KEPT = timedelta(days=7)
"""So long an empty part stands in for a merged one, in the way of a straggler's create."""


def settle_compactions(store: Store, lock: LakeLock) -> None:
    """Finish the compactions that have decided to commit, give up those that have not."""
    for shard_id, names in noted(store).items():
        if "begun" not in names or "emptied" in names:
            continue
        compaction = read_begun(store, shard_id)
        lock.check()
        if give_up(store, shard_id):
            empty(store, lock, compaction)
        else:
            remove_files(store, compaction.ingest_date, {shard_id})


def finish(store: Store, lock: LakeLock, compaction: Compaction) -> bool:
    """Let a compaction whose files are complete count, and empty the shards that it merged.

    Returns:
        False if another writer has given it up; then its files are gone.
    """
    lock.check()
    if not commit(store, compaction):
        remove_files(store, compaction.ingest_date, {compaction.shard_id})
        return False
    empty(store, lock, compaction)
    return True


def empty(store: Store, lock: LakeLock, compaction: Compaction) -> None:
    """Take the rows out of the merged shards, whatever is in them by now."""
    day, merged = compaction.ingest_date, frozenset(compaction.merged)
    for key in files_of(store, "documents", day, merged):
        rewrite(store, lock, key, _whatever(parquet(DOCUMENTS.empty_table())))
    for key in files_of(store, "pages", day, merged):
        extents = [blanked(extent) for extent in read_entry(store, key).extents]
        without_rows = parquet(PAGES.empty_table(), entry_footer(None, extents))
        rewrite(store, lock, key, _whatever(without_rows))
    for key in files_of(store, "blocks", day, merged):
        store.delete(key)
    lock.check()
    note_emptied(store, compaction.shard_id)


def remove_old(store: Store, lock: LakeLock, now: datetime) -> int:
    """Remove what is empty, or was given up, for longer than `KEPT`, with the notes of it.

    Returns:
        How many objects were removed that were part of the tables.
    """
    count = 0
    for shard_id, names in noted(store).items():
        if "begun" in names:
            compaction = read_begun(store, shard_id)
            if now - compaction.time < KEPT:
                continue
            lock.check()
            if "emptied" not in names and give_up(store, shard_id):
                continue
            gone = compaction.merged if "emptied" in names else (shard_id,)
            count += remove_files(store, compaction.ingest_date, frozenset(gone))
        lock.check()
        remove_notes(store, shard_id)
    return count


def remove_files(store: Store, day: date, shard_ids: Collection[str]) -> int:
    """Remove all that there is of some shards; how many objects that were."""
    found = [
        key
        for table in ("documents", "pages", "blocks")
        for key in files_of(store, table, day, shard_ids)
    ]
    for key in found:
        store.delete(key)
    return len(found)


def files_of(store: Store, table: str, day: date, shard_ids: Collection[str]) -> list[str]:
    """The keys of a table's objects that belong to some shards of one date."""
    ends = zip(min(shard_ids), max(shard_ids), strict=False)
    alike = "".join(one for one, _ in takewhile(lambda pair: pair[0] == pair[1], ends))
    listed = keys(store, f"{table}/ingest_date={day}/{alike}")
    return [key for key in listed if shard_of(key) in shard_ids]


def _whatever(new: bytes) -> Callable[[bytes], bytes]:
    """The change to these bytes, from any others."""
    return lambda old: new

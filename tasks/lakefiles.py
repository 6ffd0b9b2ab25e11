"""Which Parquet objects make up the lake right now, so that no row is seen twice or not at all.

Listing the tables is not enough: while a compaction runs, rows stand in the old files and in the
new; while failed pages are mended, in the old blocks object and in the new; and a worker that died
leaves a blocks object that no part names. This file knows the difference, for all who read.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial

from tasks.compaction import Overlay, overlay
from tasks.runs import open_runs
from tasks.shardlog import read_entry
from tasks.store import Store, StoredObject

_FOOTERS_AT_ONCE = 16


@dataclass(frozen=True, slots=True)
class LakeFiles:
    """The objects of each table that count."""

    documents: tuple[StoredObject, ...]
    pages: tuple[StoredObject, ...]
    blocks: tuple[StoredObject, ...]

    def keys(self, table: str) -> list[str]:
        """The keys of one table's objects."""
        found: Sequence[StoredObject] = getattr(self, table)
        return [each.key for each in found]

    def holds(self, earlier: LakeFiles) -> bool:
        """Whether everything that counted earlier still does, unchanged."""
        return all(
            set(getattr(earlier, table)) <= set(getattr(self, table))
            for table in ("documents", "pages", "blocks")
        )


def lake_files(store: Store) -> LakeFiles:
    """What a reader is to read."""
    hidden = overlay(store)
    # Pages before blocks, so that no page is without its blocks.
    documents, pages, blocks = (
        _counted(store, table, hidden) for table in ("documents", "pages", "blocks")
    )
    named = _named_blocks(store, pages, blocks)
    return LakeFiles(
        tuple(documents),
        tuple(pages),
        tuple(each for each in blocks if each.key in named.get(_part(each.key), (each.key,))),
    )


def document_files(store: Store) -> list[str]:
    """The keys of the `documents` objects that count."""
    return [found.key for found in _counted(store, "documents", overlay(store))]


def _counted(store: Store, table: str, hidden: Overlay) -> list[StoredObject]:
    found = (each for each in store.objects(f"{table}/") if each.key.endswith(".parquet"))
    return [each for each in found if hidden.shows(shard_of(each.key))]


def _named_blocks(
    store: Store, pages: Iterable[StoredObject], blocks: Iterable[StoredObject]
) -> dict[str, set[str]]:
    """For each part whose blocks object cannot be told by its name alone: the one it names."""
    by_part = defaultdict[str, int](int)
    for found in blocks:
        by_part[_part(found.key)] += 1
    unfinished = tuple(f"{run_id}-" for run_id in open_runs(store))
    there = {_part(found.key): found.key for found in pages}
    doubtful = {
        part
        for part, count in by_part.items()
        if count > 1 or (unfinished and part.rpartition("/")[2].startswith(unfinished))
    }
    known = sorted(doubtful & there.keys())
    with ThreadPoolExecutor(_FOOTERS_AT_ONCE, thread_name_prefix="footers") as pool:
        entries = pool.map(partial(read_entry, store), [there[part] for part in known])
    named = {part: {entry.blocks or ""} for part, entry in zip(known, entries, strict=True)}
    return {part: set() for part in doubtful} | named


def shard_of(key: str) -> str:
    """The shard whose files a key is one of: its run's id and its number in that."""
    folder, _, name = key.removesuffix(".parquet").rpartition("/")
    behind = {"pages": 1, "blocks": 2}.get(folder.partition("/")[0], 0)
    return name.rsplit("-", behind)[0]


def _part(key: str) -> str:
    """`ingest_date=…/<shard>-<seq>` of a pages or blocks object."""
    table, _, rest = key.removesuffix(".parquet").partition("/")
    return rest.rpartition("-")[0] if table == "blocks" else rest

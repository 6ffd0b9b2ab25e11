"""Objects that nothing names: left by a worker that died, or that lost a race and died then."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

from schemas.records import Shard
from tasks.shardlog import ShardLog, named_figures
from tasks.store import Store, keys

_LISTINGS_AT_ONCE = 16


def remove_orphans(
    store: Store,
    shard: Shard,
    log: ShardLog,
    contested: bool,
    check: Callable[[], None] = lambda: None,
) -> None:
    """Remove what no part of a finished shard names.

    Args:
        store: the lake.
        shard: the shard.
        log: of it, complete.
        contested: whether a worker died over the shard or several committed to it. Only then can
            there be figures too many, and looking for them costs a listing a document.
        check: raises if another may write by now: what nothing names may be the beginning of what
            he is about to commit. Called once it is known what is to go.
    """
    orphans = list(orphan_blocks(store, shard, log))
    if contested:
        orphans += orphan_figures(store, log)
    if orphans:
        check()
    for key in orphans:
        store.delete(key)


def orphan_blocks(store: Store, shard: Shard, log: ShardLog) -> Iterator[str]:
    """Blocks objects of a shard that no entry of its log names."""
    named = {entry.blocks for entry in log.entries}
    for key in keys(store, f"blocks/ingest_date={shard.ingest_date}/{shard.shard_id}-"):
        if key not in named:
            yield key


def orphan_figures(store: Store, log: ShardLog) -> Iterator[str]:
    """Figures of a shard's documents that no block names."""
    named = named_figures(store, log.entries)
    ids = {extents[0].document_id for extents in log.extents().values()}
    with ThreadPoolExecutor(_LISTINGS_AT_ONCE, thread_name_prefix="orphans") as pool:
        folders = (f"figures/{document_id}/" for document_id in sorted(ids))
        for found in pool.map(lambda folder: list(keys(store, folder)), folders):
            yield from (key for key in found if key not in named)

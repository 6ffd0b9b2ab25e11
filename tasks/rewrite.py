"""Objects of the lake written anew where they stand, if nobody else has changed them meanwhile."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass

import pyarrow as pa

from schemas.errors import LakeError
from schemas.records import Extent
from schemas.tables import BLOCKS, PAGES
from tasks.lock import LakeLock
from tasks.rows import parquet
from tasks.shardlog import Entry, entry_footer, put_blocks, read_entry
from tasks.store import Changed, Store, read_rows, read_table

_TRIES = 10
_NO_BLOCKS = "00000000"  # in place of a hash in the name of an object without rows


@dataclass(frozen=True, slots=True)
class Part:
    """A part as it was read: its entry in the log, its rows, and the tag of its pages object."""

    entry: Entry
    tag: str
    pages: pa.Table
    blocks: pa.Table


def rewrite(store: Store, lock: LakeLock, key: str, change: Callable[[bytes], bytes]) -> bool:
    """Write an object anew if `change` makes other bytes of it; whether it was.

    An object that is not there needs no change.

    Raises:
        LakeError: it never stayed the same for long enough.
    """
    for _ in range(_TRIES):
        try:
            old, tag = store.read(key)
        except FileNotFoundError:
            return False
        new = change(old)
        if new == old:
            return False
        lock.check()
        with suppress(Changed):
            store.replace(key, new, tag)
            return True
    raise keeps_changing(store, key)


def read_part(store: Store, key: str) -> Part:
    """A part with its rows.

    Raises:
        LakeError: its blocks are not there.
    """
    for _ in range(_TRIES):
        data, tag = store.read(key)
        entry = read_entry(store, key)
        blocks = BLOCKS.empty_table()
        if entry.blocks is not None:
            try:
                blocks = read_table(store, entry.blocks, BLOCKS)
            except FileNotFoundError:
                continue  # it may have just been rewritten
        return Part(entry, tag, read_rows(data, PAGES), blocks)
    raise LakeError(
        f"the blocks of {store.address}/{key} are not there; restore {entry.blocks}, or remove "
        "the lake and read its documents again"
    )


def write_part(
    store: Store,
    lock: LakeLock,
    part: Part,
    pages: pa.Table,
    blocks: pa.Table,
    extents: Sequence[Extent],
) -> bool:
    """Replace a part's rows: its new blocks first, then its pages; the old blocks go last.

    Returns:
        False if somebody else has changed the part since it was read: nothing of it was touched.
    """
    key, old = part.entry.pages, part.entry.blocks
    lock.check()
    # Two objects of one part make readers look which of them it names. So where there are no
    # blocks before or after, an object without rows stands for them.
    nothing = f"blocks/{key.removeprefix('pages/').removesuffix('.parquet')}-{_NO_BLOCKS}.parquet"
    if old is None and blocks.num_rows:
        store.put(nothing, parquet(BLOCKS.empty_table()))
        old = nothing
    new = put_blocks(store, key, blocks)
    if old is not None and new is None:
        store.put(nothing, parquet(BLOCKS.empty_table()))
        new = nothing
    try:
        store.replace(key, parquet(pages, entry_footer(new, extents)), part.tag)
    except Changed:
        named = read_entry(store, key).blocks
        for left in (new, nothing if old == nothing else None):
            if left is not None and left != named:
                store.delete(left)
        return False
    if old is not None and old != new:
        store.delete(old)
    return True


def keeps_changing(store: Store, key: str) -> LakeError:
    """Somebody writes who does not hold the lake's lock."""
    return LakeError(
        f"{store.address}/{key} was changed again and again while it was rewritten; see to it "
        "that nobody else writes to the lake, and run the command again"
    )

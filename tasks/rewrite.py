"""Objects of the lake written anew where they stand, if nobody else has changed them meanwhile."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass

import pyarrow as pa

from schemas.errors import LakeError
from schemas.records import Extent
from schemas.tables import BLOCKS, PAGES
from tasks.lock import LakeLock
from tasks.rows import parquet
from tasks.shardlog import Entry, entry_footer, read_entry
from tasks.store import Changed, Store, read_rows, read_table

_TRIES = 10


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
    mine = []
    lock.check()
    if blocks.equals(part.blocks):
        new = old
    else:
        if old is None:
            # With two objects of one part readers look which of them it names; with one they
            # believe it, and this part names none yet.
            old = _put_blocks(store, key, BLOCKS.empty_table())
            mine.append(old)
        new = _put_blocks(store, key, blocks)
        mine.append(new)
    try:
        store.replace(key, parquet(pages, entry_footer(new, extents)), part.tag)
    except Changed:
        for left in mine:
            store.delete(left)
        return False
    if old is not None and old != new:
        store.delete(old)
    return True


def _put_blocks(store: Store, pages_key: str, blocks: pa.Table) -> str:
    """Write a blocks object, even of no rows; its key.

    Its name was never used before, unlike one made of its content: so whoever wakes late and
    deletes an object that nobody named cannot hit one that somebody does.
    """
    stem = pages_key.removeprefix("pages/").removesuffix(".parquet")
    key = f"blocks/{stem}-{secrets.token_hex(4)}.parquet"
    store.create(key, parquet(blocks))
    return key


def keeps_changing(store: Store, key: str) -> LakeError:
    """Somebody writes who does not hold the lake's lock."""
    return LakeError(
        f"{store.address}/{key} was changed again and again while it was rewritten; see to it "
        "that nobody else writes to the lake, and run the command again"
    )

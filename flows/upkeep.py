"""`compact`, `forget` and `reparse`: what a lake needs besides new documents, under its lock."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import Any

from schemas.settings import CompactSettings, ForgetSettings, ReparseSettings, UpkeepSettings
from tasks.catalog import register_lake
from tasks.compact import compact
from tasks.forget import Forgotten, forget
from tasks.lock import LakeLock
from tasks.pool import WorkerPool
from tasks.reparse import reparse
from tasks.rows import storable
from tasks.runs import new_run_id
from tasks.settle import settle
from tasks.store import Store
from tasks.stores import open_lake, prepare


@dataclass(frozen=True, slots=True)
class _Held:
    """A lake that is ours alone; `forgotten` is what had been begun by somebody who died."""

    store: Store
    lock: LakeLock
    run_id: str
    forgotten: tuple[Forgotten, ...]


def run_compact(settings: CompactSettings) -> dict[str, Any]:
    """Many small parts to few large ones.

    Returns:
        How many `shards` were merged, their `parts_before` and `parts_after`, and how many empty
        files of earlier compactions were `removed`.

    Raises:
        LakeError: the lake is not there, or not what it should be.
        LakeLocked: another writer holds it.
    """
    with _held(settings) as lake:
        now = datetime.now(UTC)
        return asdict(compact(lake.store, lake.lock, lake.run_id, settings.part_bytes, now))


def run_forget(settings: ForgetSettings) -> dict[str, Any]:
    """A document out of every file of the lake; an archive with its members.

    Returns:
        The `uri`, and how many rows of `documents`, `pages` and `blocks`, and `figures`, have gone;
        what another had begun to forget counts from where it died.

    Raises:
        UsageError: the lake does not know the address.
        LakeError: an unfinished run has the document still to read; or as `run_compact`.
        LakeLocked: another writer holds the lake.
    """
    with _held(settings) as lake:
        for done in lake.forgotten:
            if done.uri == storable(settings.uri):
                return asdict(done)
        return asdict(forget(lake.store, lake.lock, settings.uri))


def run_reparse(settings: ReparseSettings) -> dict[str, Any]:
    """New Markdown, text and blocks out of what engines have said, by today's parser.

    Returns:
        The `parser_version`, and how many pages were `parsed`, `kept` because parsing them takes
        the image, and `failed`, which are as they were.

    Raises:
        LakeError: as `run_compact`.
        LakeLocked: another writer holds the lake.
    """
    with _held(settings) as lake, WorkerPool(settings.processes) as pool:
        done = asyncio.run(reparse(lake.store, lake.lock, pool, settings.page_timeout))
    return asdict(done)


@contextmanager
def _held(settings: UpkeepSettings) -> Iterator[_Held]:
    """A lake under its lock, with what those before us have left finished."""
    store = open_lake(settings.dest, settings.storage_option)
    prepare(store, settings.single_writer)
    run_id = new_run_id(store)
    with LakeLock(store, run_id, settings.take_over_after, settings.wait) as lock:
        store.sweep()
        yield _Held(store, lock, run_id, tuple(settle(store, lock)))
        if settings.catalog is not None:
            register_lake(store, settings.catalog, settings.namespace, settings.storage_option)

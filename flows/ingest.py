"""`ingest` and `plan`: the steps put together, with or without a Prefect server around them."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import chain
from typing import Any, TypeVar

from flows.engines import Engines
from flows.plan import check_recipe, listing_of, todos_of
from flows.stopping import stop_signals
from schemas.errors import Interrupted
from schemas.records import SourceObject
from schemas.settings import IngestSettings, Recipe
from tasks import plan
from tasks.catalog import register_lake
from tasks.discover import below
from tasks.engines.choice import recipe_of
from tasks.engines.meter import Meter
from tasks.fetch import Fetcher
from tasks.known import KnownDocuments
from tasks.lock import LakeLock
from tasks.pipeline import SHARDS_AT_ONCE, Flow
from tasks.pool import WorkerPool
from tasks.progress import Tally, Watcher
from tasks.readpage import PageReader
from tasks.runs import new_run_id, open_runs, write_summary
from tasks.samebytes import Originals
from tasks.settle import settle
from tasks.sources import Sources
from tasks.store import Store
from tasks.stores import prepare, store_of
from tasks.turns import Turns
from tasks.vanished import Seen, mark_deleted
from tasks.work import do_job

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a run ended: its summary, and the failures `(uri, page, code, message)`, bounded."""

    summary: dict[str, Any]
    failures: tuple[tuple[str, int | None, str, str], ...]
    any_failed: bool


def run_ingest(settings: IngestSettings, watcher: Watcher, meter: Meter | None = None) -> Outcome:
    """Bring the lake up to date with the source.

    A run that died is finished first, by its own plan; then the source is listed, and what the
    lake does not know yet is read. A meter measures what is asked of a model's engine.

    Raises:
        UsageError: the settings cannot be followed; nothing was written.
        RunError: the run failed or was interrupted; what it had committed stands.
    """
    recipe = recipe_of(settings)
    sources = Sources(settings.storage_option)
    listed_below = below(settings.source) if settings.mark_deleted else None
    listing = listing_of(settings, sources)
    store = store_of(settings.dest, settings.storage_option)
    prepare(store, settings.single_writer)
    run_id = new_run_id(store)
    with LakeLock(store, run_id, settings.take_over_after, settings.wait) as lock:
        store.sweep()
        settle(store, lock)
        run = _Run(settings, recipe, watcher, store, lock, meter, sources)
        if listed_below is None:
            asyncio.run(run.bring_up_to_date(listing, run_id))
        else:
            with Seen() as seen:
                asyncio.run(run.bring_up_to_date(seen.noting(listing), run_id))
                if seen.complete:
                    run.tally.deleted = mark_deleted(
                        store, lock, seen, listed_below, settings.include, settings.exclude
                    )
        if settings.catalog is not None:
            register_lake(store, settings.catalog, settings.namespace, settings.storage_option)
    summary = run.tally.summary(run_id) | {"finished": not open_runs(store)}
    return Outcome(summary, tuple(run.tally.failures), run.tally.any_failed)


class _Run:
    """One invocation: what it may write, and what it has done."""

    def __init__(
        self,
        settings: IngestSettings,
        recipe: Recipe,
        watcher: Watcher,
        store: Store,
        lock: LakeLock,
        meter: Meter | None,
        sources: Sources,
    ) -> None:
        self._meter = meter
        self._sources = sources
        self._settings, self._recipe, self._watcher = settings, recipe, watcher
        self._store, self._lock = store, lock
        self._stopping = asyncio.Event()
        self._under_way: set[asyncio.Timeout] = set()
        self.tally = Tally()

    async def bring_up_to_date(self, listing: Iterator[SourceObject], run_id: str) -> None:
        """Finish what was begun, then read what is new."""
        settings, store = self._settings, self._store
        under_way = self._under_way
        with (
            WorkerPool(settings.processes) as pool,
            Fetcher(self._sources, settings.max_document_bytes) as self._fetcher,
            stop_signals(self._stopping, pool, lambda: _give_up(under_way)) as received,
        ):
            async with Engines(settings, pool, self._meter) as engines:
                for begun in open_runs(store):
                    with KnownDocuments(store) as known:
                        segments = plan.read_segments(store, begun)
                        await self._finish(begun, segments, known, pool, engines)
                if not self._stopping.is_set():
                    await self._begin(listing, run_id, pool, engines)
        if received:
            raise Interrupted(
                f"stopped by {signal.Signals(received[0]).name}; "
                f"{sum(self.tally.pages.values())} pages of this run are in the lake, "
                "the same command goes on from there",
                received[0],
            )

    async def _begin(
        self, listing: Iterator[SourceObject], run_id: str, pool: WorkerPool, engines: Engines
    ) -> None:
        """Plan what the lake does not know, as the listing comes in, and read it."""
        settings, recipe = self._settings, self._recipe
        with KnownDocuments(self._store) as known:
            check_recipe(known, recipe, settings)
            todos = todos_of(known, listing, recipe, settings)
            first = await asyncio.to_thread(next, todos, None)
            if first is None:
                return
            # Before anything is planned: a wrong model would poison the lake.
            await engines.recognizer(recipe)
            jobs = plan.shards(
                chain([first], todos),
                run_id,
                datetime.now(UTC).date(),
                settings.shard_documents,
                settings.shard_bytes,
            )
            segments = plan.write_segments(self._store, jobs, run_id, recipe, settings)
            await self._finish(run_id, segments, known, pool, engines)

    async def _finish(
        self,
        run_id: str,
        segments: Iterator[plan.Segment],
        known: KnownDocuments,
        pool: WorkerPool,
        engines: Engines,
    ) -> None:
        """Do the jobs of a run that are not done, two at a time; close the run if all are."""
        first = await asyncio.to_thread(next, segments, None)
        if first is None:
            return
        flow = await self._flow(first, known, pool, engines)
        done = await asyncio.to_thread(plan.done_jobs, self._store, run_id)
        jobs = (job for segment in chain([first], segments) for job in segment.jobs)
        missing = (job for job in jobs if job.name not in done)
        complete = await _overlapping(
            lambda job: do_job(flow, run_id, job), missing, SHARDS_AT_ONCE, self._stopping
        )
        if flow.lost is not None:
            raise flow.lost
        if complete:
            write_summary(self._store, run_id, self.tally.summary(run_id))

    async def _flow(
        self, segment: plan.Segment, known: KnownDocuments, pool: WorkerPool, engines: Engines
    ) -> Flow:
        settings = self._settings
        reader = PageReader(
            pool=pool,
            recognizer=await engines.recognizer(segment.recipe),
            text_layer=segment.recipe.text_layer,
            with_layout=segment.recipe.layout == "full",
            fallback=segment.recipe.fallback or "none",
            page_timeout=settings.page_timeout,
            read_timeout=settings.read_timeout,
        )
        return Flow(
            store=self._store,
            lock=self._lock,
            pool=pool,
            fetcher=self._fetcher,
            reader=reader,
            describer=await engines.describer(segment.recipe),
            originals=Originals(known, segment.recipe.recipe_id),
            settings=settings,
            part_pages=segment.part_pages,
            recipe_id=segment.recipe.recipe_id,
            tally=self.tally,
            watcher=self._watcher,
            window=asyncio.Semaphore(settings.in_flight(engines.count())),
            stopping=self._stopping,
            under_way=self._under_way,
            turns=Turns(),
        )


def _give_up(under_way: set[asyncio.Timeout]) -> None:
    now = asyncio.get_running_loop().time()
    for scope in under_way:
        scope.reschedule(now)


async def _overlapping(
    do: Callable[[plan.Job], Any],
    jobs: Iterator[plan.Job],
    at_once: int,
    stopping: asyncio.Event,
) -> bool:
    """Do jobs as they are planned, so many at once; whether all were done."""
    slots = asyncio.Semaphore(at_once)
    done: list[asyncio.Task[bool]] = []
    try:
        async with asyncio.TaskGroup() as group:
            while True:
                await slots.acquire()
                job = None if stopping.is_set() else await asyncio.to_thread(next, jobs, None)
                if job is None:
                    break
                task = group.create_task(do(job))
                task.add_done_callback(lambda _: slots.release())
                done.append(task)
    except* Exception as failures:
        raise _first(failures) from None
    return not stopping.is_set() and all(task.result() for task in done)


def _first(failures: BaseExceptionGroup[BaseException]) -> BaseException:
    """The first error of a group: the others are what it led to."""
    error: BaseException = failures
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error

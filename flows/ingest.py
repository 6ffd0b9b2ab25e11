"""`ingest` and `plan`: the steps put together, with or without a Prefect server around them."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import chain, islice
from typing import Any, TypeVar

from flows.engines import Engines
from flows.stopping import stop_signals
from schemas.errors import Interrupted, RecipeMismatch, SourceError
from schemas.records import SourceObject
from schemas.settings import IngestSettings, PlanSettings, Recipe
from tasks import plan
from tasks.discover import discover
from tasks.engines.choice import recipe_of
from tasks.engines.meter import Meter
from tasks.known import KnownDocuments, Todo
from tasks.lock import LakeLock
from tasks.mend import Mender
from tasks.pipeline import SHARDS_AT_ONCE, Flow
from tasks.pool import WorkerPool
from tasks.progress import Tally, Watcher
from tasks.readpage import PageReader
from tasks.samebytes import Originals
from tasks.shardlog import ShardLog, orphans
from tasks.shardreader import ShardReader
from tasks.store import LocalStore

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
    listing = _listing(settings)
    store = LocalStore(settings.dest)
    store.prepare()
    run_id = plan.new_run_id()
    with LakeLock(store, run_id, settings.take_over_after, settings.wait) as lock:
        store.sweep()
        run = _Run(settings, recipe, watcher, store, lock, meter)
        asyncio.run(run.bring_up_to_date(listing, run_id))
    summary = run.tally.summary(run_id) | {"finished": not plan.open_runs(store)}
    return Outcome(summary, tuple(run.tally.failures), run.tally.any_failed)


def run_plan(settings: PlanSettings) -> dict[str, Any]:
    """What `run_ingest` would read; nothing is written.

    Raises:
        UsageError: as `run_ingest`.
    """
    count = 0

    def counted() -> Iterator[SourceObject]:
        nonlocal count
        for found in _listing(settings):
            count += 1
            yield found

    recipe = recipe_of(settings)
    store = LocalStore(settings.dest)
    new = again = size = 0
    with KnownDocuments(store) as known:
        _check_recipe(known, recipe, settings)
        for todo in _todo(known, counted(), recipe, settings):
            new, again = new + (todo.stored is None), again + (todo.stored is not None)
            size += todo.document.size_bytes
    return {
        "listed": count,
        "new": new,
        "again": again,
        "bytes": size,
        "unfinished_runs": plan.open_runs(store),
        "recipe": {"recipe_id": recipe.recipe_id, **recipe.model_dump(exclude_none=True)},
    }


class _Run:
    """One invocation: what it may write, and what it has done."""

    def __init__(
        self,
        settings: IngestSettings,
        recipe: Recipe,
        watcher: Watcher,
        store: LocalStore,
        lock: LakeLock,
        meter: Meter | None,
    ) -> None:
        self._meter = meter
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
            stop_signals(self._stopping, pool, lambda: _give_up(under_way)) as received,
        ):
            async with Engines(settings, pool, self._meter) as engines:
                for begun in plan.open_runs(store):
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
            _check_recipe(known, recipe, settings)
            todos = _todo(known, listing, recipe, settings)
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
        jobs = (job for segment in chain([first], segments) for job in segment.jobs)
        complete = await _overlapping(
            lambda job: self._do(flow, run_id, job), jobs, SHARDS_AT_ONCE, self._stopping
        )
        if flow.lost is not None:
            raise flow.lost
        if complete:
            plan.write_summary(self._store, run_id, self.tally.summary(run_id))

    async def _do(self, flow: Flow, run_id: str, job: plan.Job) -> bool:
        if plan.is_done(self._store, run_id, job):
            return True
        reader = Mender(flow, job.shard) if job.mends else ShardReader(flow, job.shard)
        if not await reader.read():
            return False
        for key in orphans(self._store, job.shard, ShardLog(self._store, job.shard).entries):
            self._store.delete(key)
        plan.mark_done(self._store, run_id, job)
        return True

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


def _listing(settings: PlanSettings) -> Iterator[SourceObject]:
    """The source's objects; the first is asked for here, so that an empty source shows at once."""
    found = discover(settings.source, settings.include, settings.exclude, settings.dest)
    first = next(found, None)
    if first is None:
        raise SourceError(
            f"nothing to read in {settings.source}: no file matches; "
            "check the folder and --include and --exclude"
        )
    return chain([first], found)


def _todo(
    known: KnownDocuments, listing: Iterator[SourceObject], recipe: Recipe, settings: PlanSettings
) -> Iterator[Todo]:
    return islice(known.todo(listing, recipe.recipe_id, settings.retry_failed), settings.limit)


def _check_recipe(known: KnownDocuments, recipe: Recipe, settings: PlanSettings) -> None:
    newest = known.newest_recipe()
    if newest in (None, recipe.recipe_id) or settings.new_recipe:
        return
    told = ", ".join(
        f"{name} {value}" for name, value in recipe.model_dump(exclude_none=True).items()
    )
    raise RecipeMismatch(
        f"the lake was read by recipe {newest}, this run would use {recipe.recipe_id} "
        f"({told}) and "
        f"read {known.pages_of_other_recipes(recipe.recipe_id)} pages again; "
        "pass --new-recipe to do that, or the options of the earlier run"
    )

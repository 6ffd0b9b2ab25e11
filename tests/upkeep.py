"""Lakes of several runs, what their readers see of them, and writers that die or freeze."""

from __future__ import annotations

import io
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from datetime import date
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from schemas.errors import ErrorCode, LockLost
from schemas.records import PageResult, PlannedDocument, Shard
from schemas.settings import IngestSettings, Recipe, document_id
from tasks.collect import Collector, Standing
from tasks.lakefiles import lake_files
from tasks.localstore import LocalStore
from tasks.lock import KEY, LakeLock
from tasks.plan import Job, mark_done, write_segments
from tasks.rows import documents_table, parquet
from tasks.runs import write_summary
from tasks.shardlog import ShardLog, documents_key, read_entry
from tasks.store import keys
from tasks.stores import prepare
from tests.shards import DAY, Content, page_of, standings_of

RECIPE = Recipe(model="m", render="r", text_layer="auto", layout="full")
SETTINGS = IngestSettings(source="/in", dest="/lake")
PART_PAGES = 2

Row = dict[str, Any]
Page = Callable[[Standing, int], PageResult]


def page_by_a_worker(standing: Standing, number: int) -> PageResult:
    """A page; the fourth of a document fails."""
    page = page_of(standing, number, "w")
    if number == 4:
        page = replace(page, status="failed", error_code=ErrorCode.LOOP, error_message="again")
    return page


@pytest.fixture(autouse=True, scope="module")
def quick_disk() -> Iterator[None]:
    """No test here takes the power away; without `fsync` they take a tenth of the time."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("tasks.localstore.os.fsync", lambda file: None)
        yield


def new_lake(folder: Path) -> LocalStore:
    store = LocalStore(folder)
    prepare(store, False)
    return store


def write_run(
    store: LocalStore,
    number: int,
    shards: Sequence[Mapping[str, Content]],
    *,
    day: date = DAY,
    page: Page = page_by_a_worker,
    recipe: Recipe = RECIPE,
    unfinished: int = 0,
) -> list[Shard]:
    """A run over documents, by address, of so many pages; the last shards may be still to do."""
    run_id = f"202603{number:02d}T000000Z-abcdef"
    made = []
    for at, contents in enumerate(shards, start=1):
        documents = tuple(
            PlannedDocument(document_id(uri, f"v{number}", recipe.recipe_id), uri, f"v{number}", 10)
            for uri in contents
        )
        made.append(Shard(f"{run_id}-{at:05d}", run_id, day, documents))
    jobs = [Job(shard, mends=False) for shard in made]
    list(write_segments(store, jobs, run_id, recipe, SETTINGS))
    for job, contents in list(zip(jobs, shards, strict=True))[: len(jobs) - unfinished]:
        write_shard(store, job.shard, list(contents.values()), page, recipe)
        mark_done(store, run_id, job)
    if not unfinished:
        write_summary(store, run_id, {})
    return made


def write_shard(
    store: LocalStore, shard: Shard, contents: Sequence[Content], page: Page, recipe: Recipe
) -> None:
    log, collector = ShardLog(store, shard), Collector(None)
    for index, content in enumerate(contents):
        for standing in standings_of(shard, index, content, f"sha of {shard.documents[index].uri}"):
            collector.opened(standing)
            for number in range(1, standing.facts.page_count + 1):
                collector.finished(standing.place, page(standing, number))
    while (draft := collector.draft(PART_PAGES)).extents:
        log.append(draft.pages, draft.extents)
        collector.committed_up_to(log.entries[-1].extents[-1])
    table = documents_table(shard, log.extents(), recipe.recipe_id)
    store.create(documents_key(shard), parquet(table))


@dataclass(frozen=True)
class Seen:
    """All rows by their keys, without the shard that holds them."""

    documents: dict[Any, Row]
    pages: dict[Any, Row]
    blocks: dict[Any, Row]

    def without(self, ids: set[str]) -> Seen:
        """As it is once some documents are forgotten."""
        tables = (self.documents, self.pages, self.blocks)
        return Seen(
            *(
                {k: row for k, row in each.items() if row["document_id"] not in ids}
                for each in tables
            )
        )


@dataclass
class Readers:
    """Whoever reads a lake through the list of files that count; fails if a row is there twice."""

    store: LocalStore
    _read: dict[tuple[str, str], list[Row]] = field(default_factory=dict)

    def look(self) -> Seen:
        files = lake_files(self.store)
        seen = Seen(
            self._table(files.keys("documents"), "document_id"),
            self._table(files.keys("pages"), "document_id", "page_number"),
            self._table(files.keys("blocks"), "document_id", "page_number", "block_number"),
        )
        assert {key[:2] for key in seen.blocks} <= seen.pages.keys(), "blocks without their page"
        return seen

    def _table(self, names: list[str], *key: str) -> dict[Any, Row]:
        found: dict[Any, Row] = {}
        for name in names:
            data, tag = self.store.read(name)
            if (name, tag) not in self._read:
                rows = pq.read_table(io.BytesIO(data)).to_pylist()
                self._read[name, tag] = rows
            for row in self._read[name, tag]:
                of = tuple(row[column] for column in key)
                assert of not in found, f"twice: {of}"
                assert row["shard_id"] in name
                found[of] = {column: row[column] for column in row if column != "shard_id"}
        return found


def expect_tidy(store: LocalStore) -> None:
    """Nothing is in the lake that nothing names, and the logs agree with the rows."""
    expect_whole(store)
    named = {row["figure_uri"] for row in Readers(store).look().blocks.values()} - {None}
    assert named == set(keys(store, "figures/"))


def expect_whole(store: LocalStore) -> None:
    """The logs agree with the rows, and blocks are in no file that no part names."""
    seen = Readers(store).look()
    counted = lake_files(store)
    entries = [read_entry(store, key) for key in keys(store, "pages/")]
    assert {entry.blocks for entry in entries} - {None} == set(keys(store, "blocks/"))
    told = [
        (extent.document_id, number)
        for key in counted.keys("pages")
        for extent in read_entry(store, key).extents
        for number in range(extent.first_page, extent.last_page + 1)
        if extent.document_id
    ]
    assert sorted(told) == sorted(seen.pages)
    for row in seen.documents.values():
        pages = [page for page in seen.pages.values() if page["document_id"] == row["document_id"]]
        states = [page["status"] for page in pages]
        assert len(pages) == row["page_count"]
        for status in ("ok", "empty", "failed"):
            assert states.count(status) == row[f"pages_{status}"], row
    assert not list(keys(store, "_runs/forgetting/"))


class Killed(Exception):
    """The writer was killed."""


class Stepped(LocalStore):
    """A store that tells of every write: `before` is called with its number, and `after` it."""

    def __init__(
        self,
        root: Path,
        before: Callable[[int], object] = lambda number: None,
        after: Callable[[], object] = lambda: None,
    ) -> None:
        super().__init__(root)
        self.writes = 0
        self._before, self._after = before, after

    def create(self, key: str, data: bytes) -> str:
        with self._step():
            return super().create(key, data)

    def put(self, key: str, data: bytes) -> None:
        with self._step():
            super().put(key, data)

    def replace(self, key: str, data: bytes, tag: str) -> str:
        with self._step():
            return super().replace(key, data, tag)

    def delete(self, key: str, tag: str | None = None) -> None:
        with self._step():
            super().delete(key, tag)

    @contextmanager
    def _step(self) -> Iterator[None]:
        self._before(self.writes)
        self.writes += 1
        yield
        self._after()


@contextmanager
def locked(folder: Path) -> Iterator[LakeLock]:
    with LakeLock(LocalStore(folder), "upkeep", 60, wait=False) as lock:
        yield lock


Work = Callable[[LocalStore, LakeLock], object]


def writes_of(folder: Path, work: Work, after: Callable[[], object] = lambda: None) -> int:
    """Do it undisturbed; how many writes it takes."""
    store = Stepped(folder, after=after)
    with locked(folder) as lock:
        work(store, lock)
    return store.writes


def killed_at(folder: Path, work: Work, number: int) -> None:
    """Do it until it would make its write of this number."""

    def die(at: int) -> None:
        if at == number:
            raise Killed

    with locked(folder) as lock:
        try:
            work(Stepped(folder, die), lock)
        except Killed:
            return
    raise AssertionError(f"there is no write {number}")


def frozen_at(
    folder: Path, work: Work, number: int, others: Work, after: Callable[[], object]
) -> None:
    """Do it, but frozen just before a write until others have done theirs under a new lock.

    `after` is called after every write from then on.
    """
    awake = False

    def freeze(at: int) -> None:
        nonlocal awake
        if at == number:
            awake = True
            LocalStore(folder).delete(KEY)  # as if it had been silent for too long
            with locked(folder) as lock:
                others(LocalStore(folder), lock)

    with locked(folder) as lock, suppress(LockLost):
        work(Stepped(folder, freeze, lambda: after() if awake else None), lock)
    assert awake, f"there is no write {number}"


def copies_of(lake: Path, folder: Path, count: int) -> Iterator[tuple[int, Path]]:
    """The same lake again and again, each with its number; gone when the next is asked for."""
    for number in range(count):
        copy = folder / f"copy{number}"
        shutil.copytree(lake, copy)
        yield number, copy
        shutil.rmtree(copy)

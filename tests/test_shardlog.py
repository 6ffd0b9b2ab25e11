"""However a shard is read - in whatever order, part size, by however many workers that die or
race - every page ends in the lake exactly once."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from datetime import UTC, date, datetime
from pathlib import Path

import duckdb
import pandas as pd
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from schemas.errors import ErrorCode
from schemas.records import Block, DocumentFacts, PageResult, PlannedDocument, Shard
from schemas.tables import BLOCKS, DOCUMENTS, PAGES
from tasks.collect import Collector
from tasks.rows import blocks_table, documents_table, pages_from, pages_table, parquet
from tasks.shardlog import Entry, ShardLog, orphans
from tasks.store import LocalStore

DAY = date(2026, 3, 1)


class Killed(Exception):
    """The worker was killed just before it would have written."""


class FusedStore(LocalStore):
    """A store whose writer dies when it is about to make its `fuse`-th write."""

    fuse: int | None = None

    def create(self, key: str, data: bytes) -> str:
        self._burn()
        return super().create(key, data)

    def put(self, key: str, data: bytes) -> None:
        self._burn()
        super().put(key, data)

    def _burn(self) -> None:
        if self.fuse is not None:
            self.fuse -= 1
            if self.fuse < 0:
                raise Killed


def shard_of(page_counts: Sequence[int]) -> Shard:
    documents = tuple(
        PlannedDocument(f"d{number}", f"/in/{number}.pdf", "1", 10, 0)
        for number in range(len(page_counts))
    )
    return Shard("run-00001", "run", DAY, documents)


def facts_of(page_count: int) -> DocumentFacts:
    if page_count == 0:
        return DocumentFacts(error_code=ErrorCode.CORRUPT, error_message="no")
    return DocumentFacts("abc", "application/pdf", 10, page_count, page_count)


def page_of(shard: Shard, index: int, number: int, worker: str) -> PageResult:
    """A page as `worker` read it; some have blocks, and some of those a figure."""
    planned = shard.documents[index]
    blocks = tuple(
        Block("text", "text", f"{index}/{number}/{n} by {worker}", (1.0, 2.0, 3.0, 4.0))
        for n in range((index + number) % 3)
    )
    uri = f"figures/{planned.document_id}/{number}-1.webp"
    return PageResult(
        planned.document_id,
        planned.uri,
        number,
        "ok" if blocks else "empty",
        text=f"{index}/{number}",
        engine=worker,
        blocks=blocks,
        figures={uri: b"picture"} if len(blocks) == 2 else {},
    )


def work(
    store: LocalStore, shard: Shard, counts: Sequence[int], name: str, data: st.DataObject
) -> Iterator[None]:
    """A worker that reads what is missing; it stops after every step for others to go on."""
    log = ShardLog(store, shard)
    collector = Collector(shard, log.position())
    index, first = log.position()
    steps = [
        (document, page)
        for document in range(index, len(counts))
        for page in range(first if document == index else 1, max(counts[document], 1) + 1)
    ]
    opened: set[int] = set()
    for document, page in data.draw(st.permutations(steps)):
        if document not in opened:
            opened.add(document)
            collector.opened(document, log.facts(document) or facts_of(counts[document]))
        if counts[document]:
            collector.finished(document, page_of(shard, document, page, name))
        yield
        if data.draw(st.booleans()):
            commit(log, collector, data.draw(st.integers(1, 6)))
            yield
    while commit(log, collector, data.draw(st.integers(1, 6))):
        yield


def commit(log: ShardLog, collector: Collector, most_pages: int) -> bool:
    draft = collector.draft(most_pages)
    assert sum(max(extent.last_page - extent.first_page + 1, 1) for extent in draft.extents) <= (
        most_pages
    )
    if draft.extents:
        log.append(draft.pages, draft.extents)
        collector.committed_up_to(log.position())
    return bool(draft.extents)


def expect_complete(store: LocalStore, shard: Shard, counts: Sequence[int]) -> None:
    """All that the design promises of a shard's log once its last part is in."""
    log = ShardLog(store, shard)
    assert log.position() == (len(counts), 1)
    rows: list[tuple[str, int]] = []
    told: list[tuple[str, int]] = []
    for entry in log.entries:
        table = pq.read_table(store.path(entry.pages))
        rows += zip(*_keys(table), strict=True)
        for extent in entry.extents:
            pages = range(extent.first_page, extent.last_page + 1)
            told += [(extent.document_id, number) for number in pages]
        expect_blocks(store, entry, table)
    wanted = [(f"d{d}", page) for d, count in enumerate(counts) for page in range(1, count + 1)]
    assert rows == told == wanted
    extents = log.extents()
    assert sorted(extents) == list(range(len(counts)))
    for index, parts in extents.items():
        firsts, lasts = [p.first_page for p in parts], [p.last_page for p in parts]
        assert firsts == [1, *(last + 1 for last in lasts[:-1])]
        assert parts[-1].complete and not any(part.complete for part in parts[:-1])
        assert [part.facts for part in parts] == [facts_of(counts[index])] * len(parts)
        assert sum(part.pages_ok + part.pages_empty for part in parts) == counts[index]
    documents = documents_table(shard, extents, "recipe").to_pylist()
    assert [row["page_count"] for row in documents] == list(counts)
    assert [row["status"] for row in documents] == ["ok" if n else "failed" for n in counts]


def expect_blocks(store: LocalStore, entry: Entry, pages: pa.Table) -> None:
    """The blocks object is there, and holds the blocks of just these pages by the same worker."""
    number = sum(
        (int(document_id[1:]) + page_number) % 3
        for document_id, page_number in zip(
            pages["document_id"].to_pylist(), pages["page_number"].to_pylist(), strict=True
        )
    )
    if entry.blocks is None:
        assert number == 0
        return
    blocks = pq.read_table(store.path(entry.blocks))
    assert blocks.num_rows == number
    by = dict(zip(zip(*_keys(pages), strict=True), pages["engine"].to_pylist(), strict=True))
    for *key, text in zip(*_keys(blocks), blocks["text"].to_pylist(), strict=True):
        assert text.endswith(f" by {by[tuple(key)]}")


def _keys(table: pa.Table) -> list[list[object]]:
    return [table[name].to_pylist() for name in ("document_id", "page_number")]


def blocks_files(store: LocalStore) -> set[str]:
    return set(store.keys("blocks"))


# Shrinking would write thousands of lakes: a failure is told in seconds, if at more length.
@settings(max_examples=60, deadline=None, phases=(Phase.explicit, Phase.reuse, Phase.generate))
@given(st.data(), st.lists(st.integers(0, 5), min_size=1, max_size=5))
def test_every_page_is_committed_once_and_in_order(data: st.DataObject, counts: list[int]) -> None:
    shard = shard_of(counts)
    with tempfile.TemporaryDirectory() as folder:
        LocalStore(folder).prepare()
        for attempt in range(data.draw(st.integers(0, 3), label="attempts that die")):
            workers = []
            for name in "AB"[: data.draw(st.integers(1, 2), label="workers")]:
                fused = FusedStore(folder)
                fused.fuse = data.draw(st.integers(0, 8), label="writes before death")
                workers.append(work(fused, shard, counts, f"{name}{attempt}", data))
            while workers:
                worker = workers[data.draw(st.integers(0, len(workers) - 1))]
                try:
                    next(worker)
                except (StopIteration, Killed):
                    workers.remove(worker)
        store = LocalStore(folder)
        for _ in work(store, shard, counts, "last", data):
            pass
        expect_complete(store, shard, counts)
        entries = ShardLog(store, shard).entries
        named = {entry.blocks for entry in entries if entry.blocks}
        assert set(orphans(store, shard, entries)) == blocks_files(store) - named
        assert named <= blocks_files(store)


def test_who_loses_the_race_leaves_nothing_and_goes_on(tmp_path: Path) -> None:
    store, counts = LocalStore(tmp_path), [2, 4]
    store.prepare()
    shard = shard_of(counts)
    logs = {name: ShardLog(store, shard) for name in ("quick", "slow")}
    drafts = {}
    for name, size in (("quick", 3), ("slow", 5)):
        collector = Collector(shard, (0, 1))
        for index, count in enumerate(counts):
            collector.opened(index, facts_of(count))
            for number in range(1, count + 1):
                collector.finished(index, page_of(shard, index, number, name))
        drafts[name] = (collector, collector.draft(size))
    assert logs["quick"].append(drafts["quick"][1].pages, drafts["quick"][1].extents)
    assert not logs["slow"].append(drafts["slow"][1].pages, drafts["slow"][1].extents)
    assert blocks_files(store) == {logs["quick"].entries[0].blocks}
    assert logs["slow"].position() == (1, 2)
    drafts["slow"][0].committed_up_to((1, 2))
    rest = drafts["slow"][0].draft(5)
    assert logs["slow"].append(rest.pages, rest.extents)
    assert not logs["quick"].append(rest.pages, rest.extents), "part 1 is taken"
    assert all(store.exists(str(entry.blocks)) for entry in logs["quick"].entries)
    expect_complete(store, shard, counts)


def test_blocks_without_their_pages_are_an_orphan_of_their_shard(tmp_path: Path) -> None:
    store, counts = FusedStore(tmp_path), [4]
    store.prepare()
    shard = shard_of(counts)
    store.fuse = 2  # the figure of page 2 and the blocks are written, the pages are not
    collector = Collector(shard, (0, 1))
    collector.opened(0, facts_of(4))
    for number in range(1, 5):
        collector.finished(0, page_of(shard, 0, number, "dies"))
    with pytest.raises(Killed):
        commit(ShardLog(store, shard), collector, 4)
    (left,) = blocks_files(store)
    neighbour = Shard("run-0000", "run", DAY, ())
    assert list(orphans(store, neighbour, [])) == []
    assert list(orphans(store, shard, ShardLog(store, shard).entries)) == [left]
    assert ShardLog(store, shard).position() == (0, 1)


def test_finished_pages_are_counted_until_they_are_committed() -> None:
    shard = shard_of([3, 0, 2])
    collector = Collector(shard, (0, 1))
    assert (collector.pages_held(), collector.held(), collector.draft(9).pages) == (0, 0, ())
    collector.opened(0, facts_of(3))
    collector.finished(0, page_of(shard, 0, 2, "w"))
    assert collector.draft(9).extents == (), "page 1 is missing"
    collector.finished(0, page_of(shard, 0, 1, "w"))
    collector.opened(1, facts_of(0))
    assert (collector.pages_held(), collector.held()) == (2, 3)
    assert [extent.last_page for extent in collector.draft(9).extents] == [2]
    collector.finished(0, page_of(shard, 0, 3, "w"))
    assert [(e.index, e.last_page) for e in collector.draft(9).extents] == [(0, 3), (1, 0)]
    collector.committed_up_to((0, 3))
    assert (collector.pages_held(), collector.draft(1).pages[0].page_number) == (1, 3)
    collector.committed_up_to((2, 1))
    assert (collector.pages_held(), collector.held()) == (0, 0)


def test_what_another_worker_has_committed_meanwhile_is_dropped() -> None:
    """After a lost race, our own readings of those pages and documents still come in."""
    shard = shard_of([2, 2, 2])
    collector = Collector(shard, (0, 1))
    collector.opened(0, facts_of(2))
    collector.finished(0, page_of(shard, 0, 1, "slow"))
    collector.committed_up_to((2, 2))
    collector.finished(0, page_of(shard, 0, 2, "slow"))
    collector.opened(1, facts_of(2))
    collector.finished(1, page_of(shard, 1, 1, "slow"))
    collector.opened(2, facts_of(2))
    collector.finished(2, page_of(shard, 2, 1, "slow"))
    assert (collector.pages_held(), collector.held()) == (0, 1), "held for ever, it blocks reading"
    collector.finished(2, page_of(shard, 2, 2, "slow"))
    assert [page.page_number for page in collector.draft(9).pages] == [2]


def test_an_entry_keeps_what_it_was_told(tmp_path: Path) -> None:
    store, shard = LocalStore(tmp_path), shard_of([2])
    store.prepare()
    facts = DocumentFacts("abc", "image/tiff", 7, 2, 3, metadata={"title": "Żółć “ł”\n"})
    collector = Collector(shard, (0, 1))
    collector.opened(0, facts)
    collector.finished(0, page_of(shard, 0, 1, "w"))
    bad = PageResult("d0", "/in/0.pdf", 2, "failed", ErrorCode.LOOP, "said it again")
    collector.finished(0, bad)
    draft = collector.draft(9)
    assert ShardLog(store, shard).append(draft.pages, draft.extents)
    assert tuple(ShardLog(store, shard).entries[0].extents) == draft.extents
    told = ShardLog(store, shard).extents()[0][0]
    assert (told.pages_ok, told.pages_failed, told.error_code) == (1, 1, ErrorCode.LOOP)
    assert (told.facts, told.started_at.tzinfo) == (facts, UTC)


# -- rows ----------------------------------------------------------------------------------------

texts = st.text(max_size=20)
floats = st.floats(-1e4, 1e4, width=32)
scores = st.floats(0, 1, width=32)
boxes = st.tuples(floats, floats, floats, floats)
blocks = st.builds(
    Block,
    kind=st.sampled_from(["text", "table", "figure"]),
    label=texts,
    text=texts,
    box=st.none() | boxes,
    html=st.none() | texts,
    boxes=st.lists(boxes, max_size=2).map(tuple),
    confidence=st.none() | scores,
    figure_uri=st.none() | texts,
)
pages = st.builds(
    PageResult,
    document_id=st.sampled_from(["a", "b"]),
    source_uri=texts,
    page_number=st.integers(1, 2**31 - 1),
    status=st.sampled_from(["ok", "empty", "failed"]),
    error_code=st.none() | st.sampled_from(ErrorCode),
    error_message=st.none() | texts,
    origin=st.none() | st.sampled_from(["ocr", "text_layer"]),
    width_pt=st.none() | floats,
    height_pt=st.none() | floats,
    rotation=st.sampled_from([0, 90, 180, 270]),
    markdown=st.none() | texts,
    text=st.none() | texts,
    raw_output=st.none() | texts,
    prompt_tokens=st.none() | st.integers(0, 2**31 - 1),
    attempts=st.integers(0, 100),
    flags=st.lists(texts, max_size=3).map(tuple),
    render_ms=st.none() | scores,
    blocks=st.lists(blocks, max_size=3).map(tuple),
)
some_pages = st.lists(
    pages, max_size=4, unique_by=lambda page: (page.document_id, page.page_number)
)


@settings(max_examples=100, deadline=None)
@given(some_pages)
def test_rows_become_the_records_they_were_made_from(made: list[PageResult]) -> None:
    shard = shard_of([])
    with tempfile.TemporaryDirectory() as folder:
        paths = [f"{folder}/pages", f"{folder}/blocks"]
        for path, table in zip(paths, (pages_table, blocks_table), strict=True):
            Path(path).write_bytes(parquet(table(made, shard)))
        assert pages_from(*(pq.read_table(path) for path in paths)) == made


@pytest.fixture(scope="module")
def three_tables(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[str, pa.Schema]]:
    folder = tmp_path_factory.mktemp("tables")
    shard = shard_of([3, 0])
    made = [page_of(shard, 0, number, "w") for number in range(1, 4)]
    collector = Collector(shard, (0, 1))
    collector.opened(0, DocumentFacts("abc", "application/pdf", 10, 3, 3, metadata={"title": "é"}))
    for page in made:
        collector.finished(0, page)
    collector.opened(1, facts_of(0))
    extents = {extent.index: [extent] for extent in collector.draft(9).extents}
    tables = {
        "pages": (pages_table(made, shard), PAGES),
        "blocks": (blocks_table(made, shard), BLOCKS),
        "documents": (documents_table(shard, extents, "recipe"), DOCUMENTS),
    }
    written = {}
    for name, (table, schema) in tables.items():
        (folder / f"{name}.parquet").write_bytes(parquet(table, {"more": "told"}))
        written[name] = (str(folder / f"{name}.parquet"), schema)
    return written


@pytest.mark.parametrize("name", ["pages", "blocks", "documents"])
def test_every_reader_finds_the_schema(
    three_tables: dict[str, tuple[str, pa.Schema]], name: str
) -> None:
    path, schema = three_tables[name]
    found = pq.read_schema(path)
    assert found.equals(schema, check_metadata=False)
    assert found.metadata[b"pagelake.table"] == name.encode()
    assert found.metadata[b"pagelake.schema_version"] == b"1"
    assert found.metadata[b"more"] == b"told"
    assert all(found.field(column).metadata[b"description"] for column in schema.names)
    rows = pq.read_table(path).num_rows
    assert rows == {"pages": 3, "blocks": 3, "documents": 2}[name]
    assert pq.ParquetFile(path).metadata.row_group(0).column(0).compression == "ZSTD"

    described = duckdb.execute(f"DESCRIBE SELECT * FROM '{path}'").fetchall()
    types = {column: kind for column, kind, *_ in described}
    assert list(types) == schema.names
    assert types.get("page_number", "INTEGER") == "INTEGER"
    assert types.get("metadata", "MAP(VARCHAR, VARCHAR)") == "MAP(VARCHAR, VARCHAR)"
    assert types.get("boxes", "FLOAT[][]") == "FLOAT[][]"
    assert types.get("started_at", "TIMESTAMP WITH TIME ZONE") == "TIMESTAMP WITH TIME ZONE"
    ids = pq.read_table(path)["document_id"].to_pylist()
    assert duckdb.execute(f"SELECT document_id FROM '{path}'").fetchall() == [(x,) for x in ids]

    frame = pl.read_parquet(path)
    assert (frame.columns, frame.height) == (schema.names, rows)
    assert frame["document_id"].to_list() == ids
    if name == "documents":
        assert frame.schema["started_at"] == pl.Datetime("us", "UTC")
        assert abs((datetime.now(UTC) - frame["finished_at"][0]).total_seconds()) < 600

    panda = pd.read_parquet(path)
    assert (list(panda.columns), len(panda)) == (schema.names, rows)
    assert panda["document_id"].tolist() == ids

"""However a shard is read - in whatever order, part size, by however many workers that die or
race - every page ends in the lake exactly once."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from datetime import UTC
from pathlib import Path

import pyarrow as pa
import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from schemas.errors import ErrorCode
from schemas.records import DocumentFacts, PageResult, Shard
from tasks.collect import Collector
from tasks.localstore import LocalStore
from tasks.rows import documents_table
from tasks.shardlog import Entry, ShardLog, orphans
from tests.shards import DAY, facts_of, page_of, shard_of


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


def work(
    store: LocalStore, shard: Shard, counts: Sequence[int], name: str, data: st.DataObject
) -> Iterator[None]:
    """A worker that reads what is missing; it stops after every step for others to go on."""
    log = ShardLog(store, shard)
    collector = Collector(log.last())
    (index, _), first = log.position()
    steps = [
        (document, page)
        for document in range(index, len(counts))
        for page in range(first if document == index else 1, max(counts[document], 1) + 1)
    ]
    opened: set[int] = set()
    for document, page in data.draw(st.permutations(steps)):
        if document not in opened:
            opened.add(document)
            collector.opened(standing(shard, document, facts_of(counts[document])))
        if counts[document]:
            collector.finished((document, 0), page_of(shard, document, page, name))
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
        collector.committed_up_to(last_of(log))
    return bool(draft.extents)


def expect_complete(store: LocalStore, shard: Shard, counts: Sequence[int]) -> None:
    """All that the design promises of a shard's log once its last part is in."""
    log = ShardLog(store, shard)
    assert log.position() == ((len(counts), 0), 1)
    rows: list[tuple[str, int]] = []
    told: list[tuple[str, int]] = []
    for entry in log.entries:
        table = read_table(store, entry.pages, PAGES)
        rows += zip(*_keys(table), strict=True)
        for extent in entry.extents:
            pages = range(extent.first_page, extent.last_page + 1)
            told += [(extent.document_id, number) for number in pages]
        expect_blocks(store, entry, table)
    wanted = [(f"d{d}", page) for d, count in enumerate(counts) for page in range(1, count + 1)]
    assert rows == told == wanted
    extents = log.extents()
    assert sorted(extents) == [(index, 0) for index in range(len(counts))]
    for (index, _), parts in extents.items():
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
    blocks = read_table(store, entry.blocks, BLOCKS)
    assert blocks.num_rows == number
    by = dict(zip(zip(*_keys(pages), strict=True), pages["engine"].to_pylist(), strict=True))
    for *key, text in zip(*_keys(blocks), blocks["text"].to_pylist(), strict=True):
        assert text.endswith(f" by {by[tuple(key)]}")


def _keys(table: pa.Table) -> list[list[object]]:
    return [table[name].to_pylist() for name in ("document_id", "page_number")]


def blocks_files(store: LocalStore) -> set[str]:
    return set(keys(store, "blocks/"))


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
        assert set(orphan_blocks(store, shard, ShardLog(store, shard))) == blocks_files(store) - named
        assert named <= blocks_files(store)


def test_who_loses_the_race_leaves_nothing_and_goes_on(tmp_path: Path) -> None:
    store, counts = LocalStore(tmp_path), [2, 4]
    store.prepare()
    shard = shard_of(counts)
    logs = {name: ShardLog(store, shard) for name in ("quick", "slow")}
    drafts = {}
    for name, size in (("quick", 3), ("slow", 5)):
        collector = Collector(None)
        for index, count in enumerate(counts):
            collector.opened(standing(shard, index, facts_of(count)))
            for number in range(1, count + 1):
                collector.finished((index, 0), page_of(shard, index, number, name))
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
    collector = Collector(None)
    collector.opened(standing(shard, 0, facts_of(4)))
    for number in range(1, 5):
        collector.finished((0, 0), page_of(shard, 0, number, "dies"))
    with pytest.raises(Killed):
        commit(ShardLog(store, shard), collector, 4)
    (left,) = blocks_files(store)
    neighbour = Shard("run-0000", "run", DAY, ())
    assert list(orphans(store, neighbour, [])) == []
    assert list(orphans(store, shard, ShardLog(store, shard).entries)) == [left]
    assert ShardLog(store, shard).position() == (0, 1)


def test_finished_pages_are_counted_until_they_are_committed() -> None:
    shard = shard_of([3, 0, 2])
    collector = Collector(None)
    assert (collector.pages_held(), collector.held(), collector.draft(9).pages) == (0, 0, ())
    collector.opened(standing(shard, 0, facts_of(3)))
    collector.finished((0, 0), page_of(shard, 0, 2, "w"))
    assert collector.draft(9).extents == (), "page 1 is missing"
    collector.finished((0, 0), page_of(shard, 0, 1, "w"))
    collector.opened(standing(shard, 1, facts_of(0)))
    assert (collector.pages_held(), collector.held()) == (2, 3)
    assert [extent.last_page for extent in collector.draft(9).extents] == [2]
    collector.finished((0, 0), page_of(shard, 0, 3, "w"))
    assert [(e.index, e.last_page) for e in collector.draft(9).extents] == [(0, 3), (1, 0)]
    collector.committed_up_to((0, 3))
    assert (collector.pages_held(), collector.draft(1).pages[0].page_number) == (1, 3)
    collector.committed_up_to((2, 1))
    assert (collector.pages_held(), collector.held()) == (0, 0)


def test_what_another_worker_has_committed_meanwhile_is_dropped() -> None:
    """After a lost race, our own readings of those pages and documents still come in."""
    shard = shard_of([2, 2, 2])
    collector = Collector(None)
    collector.opened(standing(shard, 0, facts_of(2)))
    collector.finished((0, 0), page_of(shard, 0, 1, "slow"))
    collector.committed_up_to((2, 2))
    collector.finished((0, 0), page_of(shard, 0, 2, "slow"))
    collector.opened(standing(shard, 1, facts_of(2)))
    collector.finished((1, 0), page_of(shard, 1, 1, "slow"))
    collector.opened(standing(shard, 2, facts_of(2)))
    collector.finished((2, 0), page_of(shard, 2, 1, "slow"))
    assert (collector.pages_held(), collector.held()) == (0, 1), "held for ever, it blocks reading"
    collector.finished((2, 0), page_of(shard, 2, 2, "slow"))
    assert [page.page_number for page in collector.draft(9).pages] == [2]


def test_an_entry_keeps_what_it_was_told(tmp_path: Path) -> None:
    store, shard = LocalStore(tmp_path), shard_of([2])
    store.prepare()
    facts = DocumentFacts("abc", "image/tiff", 7, 2, 3, metadata={"title": "Żółć “ł”\n"})
    collector = Collector(None)
    collector.opened(standing(shard, 0, facts))
    collector.finished((0, 0), page_of(shard, 0, 1, "w"))
    bad = PageResult("d0", "/in/0.pdf", 2, "failed", ErrorCode.LOOP, "said it again")
    collector.finished((0, 0), bad)
    draft = collector.draft(9)
    assert ShardLog(store, shard).append(draft.pages, draft.extents)
    assert tuple(ShardLog(store, shard).entries[0].extents) == draft.extents
    told = ShardLog(store, shard).extents()[0][0]
    assert (told.pages_ok, told.pages_failed, told.error_code) == (1, 1, ErrorCode.LOOP)
    assert (told.facts, told.started_at.tzinfo) == (facts, UTC)

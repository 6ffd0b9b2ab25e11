"""However a shard is read - in whatever order, part size, by however many workers that die, race or
see different things - every page ends in the lake exactly once."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from random import Random

import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from schemas.errors import ErrorCode
from schemas.records import DocumentFacts, Extent, PageResult, Place, Shard
from schemas.tables import BLOCKS, PAGES
from tasks.collect import Collector, Disagreement, Standing, extent_of
from tasks.orphans import orphan_blocks, remove_orphans
from tasks.rows import documents_table
from tasks.shardlog import Entry, ShardLog
from tasks.store import Store, keys, read_table
from tests.memorystore import Bucket, Call, Fate, Killed, MemoryStore
from tests.shards import DAY, Content, page_of, shard_of, standings_of


@dataclass(frozen=True)
class Seen:
    """What a worker sees of a planned document: its content, and the hash of that."""

    sha256: str
    content: Content


def dying(bucket: Bucket, fuse: int) -> MemoryStore:
    """A store whose process dies when it is about to make its `fuse`-th write, from 0."""
    left = fuse

    def gate(call: Call) -> Fate:
        nonlocal left
        left -= call.writes
        if left < 0:
            raise Killed
        return Fate.DONE

    return MemoryStore(bucket, gate)


def missing(
    shard: Shard, sees: Sequence[Seen], last: Extent | None
) -> Iterator[tuple[Standing, bool]]:
    """What follows the extent that a log ends with, and whether it can be read: a document of which
    a part was read must still be the same."""
    index, member = last.next_page[0] if last else (0, 0)
    if last is not None and last.index == index:
        planned, seen = shard.documents[index], sees[index]
        found = standings_of(shard, index, seen.content, seen.sha256)
        if last.container_sha256 is None:
            as_it_was = Standing(last.place, planned.document_id, planned.uri, last.facts)
            yield as_it_was, found == [as_it_was]
        elif last.container_sha256 == seen.sha256:
            yield from ((standing, True) for standing in found[member:])
        else:
            if not last.complete:
                uri = last.uri or ""
                container = {"closes": False, "container_sha256": last.container_sha256}
                yield Standing(last.place, last.document_id, uri, last.facts, **container), False
            changed = DocumentFacts(error_code=ErrorCode.SOURCE_CHANGED, error_message="changed")
            place = (index, last.member + 1)
            yield Standing(place, planned.document_id, planned.uri, changed), False
        index += 1
    for number in range(index, len(shard.documents)):
        seen = sees[number]
        for standing in standings_of(shard, number, seen.content, seen.sha256):
            yield standing, True


def read_on(
    store: Store, shard: Shard, sees: Sequence[Seen], name: str, chance: Random
) -> Iterator[None]:
    """A worker that reads what is missing; it stops after every step for others to go on."""
    log = ShardLog(store, shard)
    collector = Collector(log.last())
    position = log.position()
    steps = [
        (standing, number, good)
        for standing, good in missing(shard, sees, log.last())
        for number in range(1, max(standing.facts.page_count, 1) + 1)
        if (standing.place, number) >= position
    ]
    opened: set[Place] = set()
    if chance.random() < 0.5:
        chance.shuffle(steps)
    for standing, number, good in steps:
        if standing.place not in opened:
            opened.add(standing.place)
            collector.opened(standing)
        if standing.facts.page_count:
            page = page_of(standing, number, name) if good else lost_page(standing, number)
            collector.finished(standing.place, page)
        yield
        if chance.random() < 0.5:
            commit(log, collector, chance.randint(1, 4))
            yield
    while commit(log, collector, chance.randint(1, 4)):
        yield
    assert log.position() == ((len(shard.documents), 0), 1), "it has done all it knows of"


def work(
    store: Store, shard: Shard, sees: Sequence[Seen], name: str, chance: Random
) -> Iterator[None]:
    """A worker that begins anew where another was quicker and saw something else."""
    while True:
        try:
            yield from read_on(store, shard, sees, name, chance)
            return
        except Disagreement:
            yield


def lost_page(standing: Standing, number: int) -> PageResult:
    changed = ErrorCode.SOURCE_CHANGED
    return PageResult(standing.document_id, standing.source_uri, number, "failed", changed)


def commit(log: ShardLog, collector: Collector, most_pages: int) -> bool:
    draft = collector.draft(most_pages)
    assert sum(max(extent.last_page - extent.first_page + 1, 1) for extent in draft.extents) <= (
        most_pages
    )
    if draft.extents:
        log.append(draft.pages, draft.extents)
        last = log.last()
        assert last is not None
        collector.committed_up_to(last)
    return bool(draft.extents)


def expect_complete(store: Store, shard: Shard, could_see: Sequence[set[Seen]]) -> None:
    """All that the design promises of a shard's log once its last part is in.

    Args:
        could_see: of each planned document, what one or the other worker saw.
    """
    log = ShardLog(store, shard)
    assert log.position() == ((len(shard.documents), 0), 1)
    rows: list[tuple[str, int]] = []
    told: list[tuple[str, int]] = []
    for entry in log.entries:
        pages = read_table(store, entry.pages, PAGES).to_pylist()
        rows += [(page["document_id"], page["page_number"]) for page in pages]
        for extent in entry.extents:
            numbers = range(extent.first_page, extent.last_page + 1)
            told += [(extent.document_id, number) for number in numbers]
        expect_of_one_content(entry, pages)
        expect_blocks(store, entry, pages)
    extents = log.extents()
    assert list(extents) == sorted(extents)
    wanted = [
        (parts[0].document_id, page)
        for parts in extents.values()
        for page in range(1, parts[0].facts.page_count + 1)
    ]
    assert rows == told == wanted
    assert len(set(wanted)) == len(wanted)
    for parts in extents.values():
        firsts, lasts = [p.first_page for p in parts], [p.last_page for p in parts]
        assert firsts == [1, *(last + 1 for last in lasts[:-1])]
        assert parts[-1].complete and not any(part.complete for part in parts[:-1])
        assert len({(part.document_id, part.facts.content_sha256) for part in parts}) == 1
        assert [part.facts for part in parts] == [parts[0].facts] * len(parts)
        counted = sum(part.pages_ok + part.pages_empty + part.pages_failed for part in parts)
        assert counted == parts[0].facts.page_count
    documents = documents_table(shard, extents, "recipe").to_pylist()
    assert [row["page_count"] for row in documents] == [
        parts[0].facts.page_count for parts in extents.values()
    ]
    for index, seen in enumerate(could_see):
        found = [parts for place, parts in extents.items() if place[0] == index]
        status = [
            row["status"]
            for row, place in zip(documents, extents, strict=True)
            if place[0] == index
        ]
        expect_seen(shard, index, seen, found, status)


def expect_seen(
    shard: Shard, index: int, seen: set[Seen], found: Sequence[list[Extent]], status: Sequence[str]
) -> None:
    """A planned document is in the log as some worker saw it: all of it, if all saw the same."""
    wanted = {each: standings_of(shard, index, each.content, each.sha256) for each in seen}
    logged = [
        Standing(
            place=parts[0].place,
            document_id=parts[0].document_id,
            source_uri=parts[0].uri or shard.documents[index].uri,
            facts=parts[0].facts,
            closes=parts[0].closes,
            container_sha256=parts[0].container_sha256,
        )
        for parts in found
    ]
    failures = sum(part.pages_failed for parts in found for part in parts)
    if logged in wanted.values() and not failures:
        sees = next(each for each, standings in wanted.items() if standings == logged)
        counts = sees.content if isinstance(sees.content, tuple) else (sees.content,)
        read = ["ok" if count else "failed" for count in counts]
        archive = isinstance(sees.content, tuple)
        assert list(status) == read + ["ok" if all(counts) else "partial"] * archive
        return
    assert len(seen) > 1, "all saw the same"
    *members, last = logged
    assert last.closes and not any(member.closes for member in members)
    assert last.place == (index, len(members))
    if not members:
        assert logged in wanted.values() and failures
        return
    whole = next(each for each in wanted.values() if each[0] == members[0])
    assert members == whole[: len(members)]
    assert last == whole[-1] or last.facts.error_code is ErrorCode.SOURCE_CHANGED


def expect_of_one_content(entry: Entry, pages: Sequence[dict[str, object]]) -> None:
    """No page that was read of one content stands among those of another."""
    read_of = {extent.document_id: extent.facts.content_sha256 for extent in entry.extents}
    for page in pages:
        if page["status"] == "failed":
            assert page["error_code"] == "source_changed"
        else:
            assert page["text"] == f"page {page['page_number']} of {read_of[page['document_id']]}"


def expect_blocks(store: Store, entry: Entry, pages: Sequence[dict[str, object]]) -> None:
    """The blocks object is there, and holds the blocks of just these pages by the same worker."""
    places = {extent.document_id: extent.place for extent in entry.extents}
    wanted = [
        f"{place}/{page['page_number']}/{n} by {page['engine']}"
        for page in pages
        if page["status"] != "failed"
        for place in [places[page["document_id"]]]
        for n in range((sum(place) + page["page_number"]) % 3)
    ]
    found = read_table(store, entry.blocks, BLOCKS)["text"].to_pylist() if entry.blocks else []
    assert found == wanted
    assert bool(wanted) == (entry.blocks is not None)


def blocks_files(store: Store) -> set[str]:
    return set(keys(store, "blocks/"))


# Shrinking would write thousands of lakes: a failure is told in seconds, if at more length.
@settings(
    max_examples=200,
    deadline=None,
    phases=(Phase.explicit, Phase.reuse, Phase.generate),
)
@given(st.integers(0, 2**32 - 1))
def test_every_page_is_committed_once_and_in_order(seed: int) -> None:
    """Whatever two workers see, of a document that is no longer what it was planned as."""
    chance = Random(seed)
    planned = [(content(chance), content(chance)) for _ in range(chance.randint(1, 3))]
    changes = [chance.random() < 0.5 for _ in planned]
    shard = shard_of(planned)
    could_see: list[set[Seen]] = [set() for _ in planned]

    def look() -> list[Seen]:
        sees = []
        for index, (was, became) in enumerate(planned):
            changed = changes[index] and chance.random() < 0.5
            sees.append(Seen(f"{index} then", became) if changed else Seen(f"{index}", was))
            could_see[index].add(sees[-1])
        return sees

    bucket = Bucket()
    for attempt in range(chance.randint(0, 3)):
        workers = []
        for name in "ABC"[: chance.randint(1, 3)]:
            store = dying(bucket, fuse=chance.randint(0, 20))
            workers.append(work(store, shard, look(), f"{name}{attempt}", chance))
        while workers:
            worker = chance.choice(workers)
            try:
                next(worker)
            except (StopIteration, Killed):
                workers.remove(worker)
    store = MemoryStore(bucket)
    for _ in read_on(store, shard, look(), "last", chance):
        pass
    expect_complete(store, shard, could_see)
    log = ShardLog(store, shard)
    named = {entry.blocks for entry in log.entries if entry.blocks}
    assert set(orphan_blocks(store, shard, log)) == blocks_files(store) - named
    assert named <= blocks_files(store)


def content(chance: Random) -> Content:
    if chance.random() < 0.5:
        return chance.randint(0, 5)
    return tuple(chance.randint(0, 3) for _ in range(chance.randint(0, 4)))


def collected(shard: Shard, contents: Sequence[Content], name: str) -> Collector:
    """The collector of a worker that has read all of a shard, and committed nothing."""
    collector = Collector(None)
    for index, content in enumerate(contents):
        for standing in standings_of(shard, index, content):
            collector.opened(standing)
            for number in range(1, standing.facts.page_count + 1):
                collector.finished(standing.place, page_of(standing, number, name))
    return collector


def extent(standing: Standing, last_page: int) -> Extent:
    """What another worker has committed of a document: its pages up to this one."""
    pages = [page_of(standing, number, "other") for number in range(1, last_page + 1)]
    return extent_of(standing, 1, pages, datetime.now(UTC))


def test_who_loses_the_race_leaves_nothing_and_goes_on() -> None:
    store, counts = MemoryStore(Bucket()), [2, 4]
    shard = shard_of(counts)
    logs = {name: ShardLog(store, shard) for name in ("quick", "slow")}
    quick, slow = (collected(shard, counts, name) for name in logs)
    quicker, slower = quick.draft(3), slow.draft(5)
    assert logs["quick"].append(quicker.pages, quicker.extents)
    assert not logs["slow"].append(slower.pages, slower.extents)
    assert (logs["quick"].contested, logs["slow"].contested) == (False, True)
    assert blocks_files(store) == {logs["quick"].entries[0].blocks}
    assert logs["slow"].position() == ((1, 0), 2)
    slow.committed_up_to(logs["slow"].last())
    rest = slow.draft(5)
    assert logs["slow"].append(rest.pages, rest.extents)
    quick.committed_up_to(logs["quick"].last())
    late = quick.draft(5)
    assert not logs["quick"].append(late.pages, late.extents), "part 1 is taken"
    assert all(store.exists(str(entry.blocks)) for entry in logs["quick"].entries)
    expect_complete(store, shard, [{Seen("abc", count)} for count in counts])


def test_blocks_without_their_pages_are_an_orphan_of_their_shard() -> None:
    bucket, counts = Bucket(), [4]
    shard = shard_of(counts)
    # The figure of page 2 and the blocks are written, the pages are not.
    with pytest.raises(Killed):
        commit(ShardLog(dying(bucket, 2), shard), collected(shard, counts, "dies"), 4)
    store = MemoryStore(bucket)
    (left,) = blocks_files(store)
    neighbour = Shard("run-0000", "run", DAY, ())
    assert list(orphan_blocks(store, neighbour, ShardLog(store, neighbour))) == []
    log = ShardLog(store, shard)
    assert log.position() == ((0, 0), 1)
    assert list(orphan_blocks(store, shard, log)) == [left]
    commit(log, collected(shard, counts, "lives"), 4)
    assert list(orphan_blocks(store, shard, log)) == [left]
    remove_orphans(store, shard, log, contested=False)
    assert blocks_files(store) == {log.entries[0].blocks}


@pytest.mark.parametrize("contested", [False, True])
def test_figures_that_no_block_names_go_if_several_have_worked(contested: bool) -> None:
    store, counts = MemoryStore(Bucket()), [2, 5]
    shard = shard_of(counts)
    log = ShardLog(store, shard)
    commit(log, collected(shard, counts, "w"), 9)
    ours = {"figures/d0/2-1.webp", "figures/d1/1-1.webp", "figures/d1/4-1.webp"}
    assert set(keys(store, "figures/")) == ours
    others = {"figures/d1/4-2.webp", "figures/d1/5-1.webp"}
    strange = {"figures/d10/1-1.webp"}
    for key in others | strange:
        store.put(key, b"picture")
    remove_orphans(store, shard, log, contested)
    assert set(keys(store, "figures/")) == ours | strange | (set() if contested else others)


def test_finished_pages_are_counted_until_they_are_committed() -> None:
    shard = shard_of([3, 0, 2])
    first, second, _ = (standings_of(shard, n, count)[0] for n, count in enumerate([3, 0, 2]))
    collector = Collector(None)
    assert (collector.pages_held(), collector.held(), collector.draft(9).pages) == (0, 0, ())
    collector.opened(first)
    collector.finished((0, 0), page_of(first, 2, "w"))
    assert collector.draft(9).extents == (), "page 1 is missing"
    collector.finished((0, 0), page_of(first, 1, "w"))
    collector.opened(second)
    assert (collector.pages_held(), collector.held()) == (2, 3)
    assert [extent.last_page for extent in collector.draft(9).extents] == [2]
    collector.finished((0, 0), page_of(first, 3, "w"))
    assert [(e.index, e.last_page) for e in collector.draft(9).extents] == [(0, 3), (1, 0)]
    assert [collector.draft(most).full for most in (3, 4, 5)] == [True, True, False]
    collector.committed_up_to(extent(first, 2))
    assert collector.position == ((0, 0), 3)
    assert (collector.pages_held(), collector.draft(1).pages[0].page_number) == (1, 3)
    collector.committed_up_to(extent(second, 0))
    assert collector.position == ((2, 0), 1)
    assert (collector.pages_held(), collector.held()) == (0, 0)


def test_what_another_worker_has_committed_meanwhile_is_dropped() -> None:
    """After a lost race, our own readings of those pages and documents still come in."""
    shard = shard_of([2, 2, 2])
    found = [standings_of(shard, index, 2)[0] for index in range(3)]
    collector = Collector(None)
    collector.opened(found[0])
    collector.finished((0, 0), page_of(found[0], 1, "slow"))
    collector.committed_up_to(extent(found[2], 1))
    collector.finished((0, 0), page_of(found[0], 2, "slow"))
    collector.opened(found[1])
    collector.finished((1, 0), page_of(found[1], 1, "slow"))
    collector.opened(found[2])
    collector.finished((2, 0), page_of(found[2], 1, "slow"))
    assert (collector.pages_held(), collector.held()) == (0, 1), "held for ever, it blocks reading"
    collector.finished((2, 0), page_of(found[2], 2, "slow"))
    assert [page.page_number for page in collector.draft(9).pages] == [2]


ARCHIVE = (2, 0, 3)


def standing(content: Content, sha256: str, member: int = 0) -> Standing:
    """The only planned document of a shard, or what has number `member` in it."""
    return standings_of(shard_of([content]), 0, content, sha256)[member]


@pytest.mark.parametrize(
    ("theirs", "up_to", "ours"),
    [
        (standing(3, "old"), 2, standing(3, "new")),
        (standing(3, "old"), 2, standing(4, "old")),
        (standing(3, "old"), 2, standing(0, "")),
        (standing(ARCHIVE, "old", 0), 1, standing(ARCHIVE, "new", 0)),
        (standing(ARCHIVE, "old", 0), 2, standing(ARCHIVE, "new", 1)),
        (standing(ARCHIVE, "old", 0), 2, standing(ARCHIVE, "new", 2)),
        (standing(ARCHIVE, "old", 1), 0, standing((2, 0), "new", 2)),
        (standing(ARCHIVE, "old", 1), 0, standing((2,), "new", 1)),
        (standing(ARCHIVE, "old", 0), 1, standing(0, "")),
        (standing(ARCHIVE, "old", 0), 2, standing(0, "")),
        (standing(ARCHIVE, "old", 0), 2, standing(2, "old.0")),
    ],
    ids=[
        "another content",
        "other pages",
        "no document",
        "a member of another archive",
        "the next member, of another archive",
        "a later member, of another archive",
        "the end of another archive",
        "the end of a shorter archive",
        "no archive, at its first member",
        "no archive, behind its first member",
        "no archive but what is in it",
    ],
)
@pytest.mark.parametrize("opened", ["before", "after"])
def test_what_another_has_committed_half_of_must_be_the_same(
    theirs: Standing, up_to: int, ours: Standing, opened: str
) -> None:
    """Who sees something else begins anew, from what the log says, instead of mixing the two."""
    collector = Collector(None)
    if opened == "before":
        collector.opened(ours)
        with pytest.raises(Disagreement):
            collector.committed_up_to(extent(theirs, up_to))
    else:
        collector.committed_up_to(extent(theirs, up_to))
        with pytest.raises(Disagreement):
            collector.opened(ours)


@pytest.mark.parametrize(
    ("theirs", "up_to", "ours"),
    [
        (standing(3, "old"), 2, standing(3, "old")),
        (standing(3, "old"), 3, standing(4, "new")),
        (standing(ARCHIVE, "old", 3), 0, standing((4, 4), "new", 1)),
        (standing(ARCHIVE, "old", 3), 0, standing(0, "")),
        (standing(ARCHIVE, "old", 1), 0, standing(ARCHIVE, "old", 2)),
        (standing(ARCHIVE, "old", 2), 3, standing(ARCHIVE, "old", 3)),
    ],
    ids=[
        "the same",
        "another that is complete",
        "another archive that is complete",
        "an archive that is complete",
        "the next member of the same archive",
        "the end of the same archive",
    ],
)
def test_what_is_the_same_or_complete_is_no_disagreement(
    theirs: Standing, up_to: int, ours: Standing
) -> None:
    before, after = Collector(None), Collector(extent(theirs, up_to))
    before.opened(ours)
    before.committed_up_to(extent(theirs, up_to))
    after.opened(ours)
    assert before.held() == after.held() == int(ours.place >= after.position[0])


def test_the_members_of_an_archive_stand_before_it() -> None:
    content = (2, 0, 1)
    store, shard = MemoryStore(Bucket()), shard_of([content, 1])
    log, collector = ShardLog(store, shard), collected(shard, [content, 1], "w")
    positions = []
    while commit(log, collector, 1):
        positions.append(log.position())
    members = [((0, 0), 2), ((0, 1), 1), ((0, 2), 1), ((0, 3), 1)]
    assert positions == [*members, ((1, 0), 1), ((2, 0), 1)]
    rows = documents_table(shard, ShardLog(store, shard).extents(), "recipe").to_pylist()
    told = [(row["source_uri"], row["status"], row["error_code"]) for row in rows]
    assert told == [
        ("/in/0!/0", "ok", None),
        ("/in/0!/1", "failed", "corrupt"),
        ("/in/0!/2", "ok", None),
        ("/in/0", "partial", "corrupt"),
        ("/in/1", "ok", None),
    ]
    assert [dict(row["metadata"]).get("members") for row in rows] == [None, None, None, "3", None]


def test_an_entry_keeps_what_it_was_told() -> None:
    store, shard = MemoryStore(Bucket()), shard_of([2])
    facts = DocumentFacts("abc", "image/tiff", 7, 2, 3, metadata={"title": "Żółć “ł”\n"})
    found = replace(standings_of(shard, 0, 2)[0], facts=facts)
    collector = Collector(None)
    collector.opened(found)
    collector.finished((0, 0), page_of(found, 1, "w"))
    bad = PageResult("d0", "/in/0", 2, "failed", ErrorCode.LOOP, "said it again")
    collector.finished((0, 0), bad)
    draft = collector.draft(9)
    assert ShardLog(store, shard).append(draft.pages, draft.extents)
    assert tuple(ShardLog(store, shard).entries[0].extents) == draft.extents
    told = ShardLog(store, shard).extents()[0, 0][0]
    assert (told.pages_ok, told.pages_failed, told.error_code) == (1, 1, ErrorCode.LOOP)
    assert (told.facts, told.started_at.tzinfo) == (facts, UTC)

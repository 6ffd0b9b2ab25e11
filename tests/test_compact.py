"""Whatever happens to a compaction, and whenever: every row is read once, and once only."""

from __future__ import annotations

import io
from base64 import b64encode
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from random import Random
from zipfile import ZipFile

import pyarrow.parquet as pq
import pytest

from flows.upkeep import run_compact
from schemas.errors import LakeError
from schemas.records import PageResult, PlannedDocument, Shard
from schemas.settings import CompactSettings
from tasks.collect import Standing
from tasks.compact import Compacted, compact
from tasks.compaction import FOLDER, noted, read_begun
from tasks.lakefiles import lake_files, shard_of
from tasks.localstore import LocalStore
from tasks.lock import LakeLock
from tasks.plan import Job, write_segments
from tasks.query import run_query
from tasks.replaced import remove_rows
from tasks.rows import parquet
from tasks.runs import new_run_id
from tasks.settle import settle
from tasks.shardlog import ShardLog, documents_key, entry_footer, read_entry
from tasks.store import AlreadyExists, keys
from tests.conftest import Ended
from tests.shards import DAY
from tests.standin import Said, StandIn, by_shade, standing_in, write_shades
from tests.upkeep import (
    RECIPE,
    SETTINGS,
    Readers,
    Seen,
    Stepped,
    copies_of,
    expect_tidy,
    frozen_at,
    killed_at,
    locked,
    new_lake,
    page_by_a_worker,
    quick_disk,
    write_run,
    writes_of,
)

__all__ = ["quick_disk"]

NOW = datetime(2026, 3, 9, tzinfo=UTC)
LATER = DAY + timedelta(days=1)
LARGE = 1 << 20


def merge(store: LocalStore, lock: LakeLock, part_bytes: int = LARGE) -> Compacted:
    settle(store, lock)
    return compact(store, lock, new_run_id(store), part_bytes, NOW)


def merge_alone(lake: Path, part_bytes: int = LARGE, now: datetime = NOW) -> Compacted:
    store = LocalStore(lake)
    with locked(lake) as lock:
        settle(store, lock)
        return compact(store, lock, new_run_id(store), part_bytes, now)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("made") / "lake"
    store = new_lake(folder)
    write_run(store, 1, [{"/in/m.pdf": 3, "/in/a.zip": (2, 0, 1), "/in/b.pdf": 0}])
    write_run(store, 2, [{"/in/z.pdf": 5}, {"/in/a.pdf": 2, "/in/c.pdf": 1}])
    write_run(store, 3, [{"/in/2.pdf": 2}, {"/in/1.pdf": 1}], day=LATER)
    return folder


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A lake that takes few steps to merge."""
    folder = tmp_path_factory.mktemp("small") / "lake"
    store = new_lake(folder)
    write_run(store, 1, [{"/in/m.pdf": 1, "/in/a.zip": (2, 0)}])
    write_run(store, 2, [{"/in/c.pdf": 2, "/in/z.pdf": 0}])
    return folder


@pytest.fixture
def lake(made: Path, tmp_path: Path) -> Path:
    return next(copies_of(made, tmp_path, 1))[1]


@pytest.fixture(scope="module")
def whole(made: Path) -> Seen:
    """What readers see of the lake before anything is merged, and ever after."""
    return Readers(LocalStore(made)).look()


def test_small_parts_become_one_a_day_in_the_order_of_addresses(lake: Path, whole: Seen) -> None:
    store = LocalStore(lake)
    assert merge_alone(lake) == Compacted(shards=5, parts_before=12, parts_after=2)
    assert Readers(store).look() == whole
    expect_tidy(store)
    files = lake_files(store)
    assert [len(files.keys(table)) for table in ("documents", "pages", "blocks")] == [2, 2, 2]
    first = [row for key in files.keys("pages")[:1] for row in rows(lake, key)]
    assert [(row["source_uri"], row["page_number"]) for row in first] == [
        *(("/in/a.pdf", 1), ("/in/a.pdf", 2)),
        *(("/in/a.zip!/0", 1), ("/in/a.zip!/0", 2), ("/in/a.zip!/2", 1)),
        ("/in/c.pdf", 1),
        *(("/in/m.pdf", number) for number in range(1, 4)),
        *(("/in/z.pdf", number) for number in range(1, 6)),
    ]
    documents = [row["source_uri"] for row in rows(lake, files.keys("documents")[0])]
    assert documents[:5] == [
        *("/in/a.pdf", "/in/a.zip!/0", "/in/a.zip!/1", "/in/a.zip!/2", "/in/a.zip"),
    ]
    assert {row["shard_id"] for row in first} == {shard_of(files.keys("pages")[0])}
    assert len({row["run_id"] for row in first}) == 2, "they keep the run that read them"


def rows(lake: Path, key: str) -> list[dict[str, object]]:
    found: list[dict[str, object]] = pq.read_table(lake / key, partitioning=None).to_pylist()
    return found


def test_the_new_shard_has_a_log_as_any_other(lake: Path) -> None:
    merge_alone(lake)
    store = LocalStore(lake)
    key = lake_files(store).keys("pages")[0]
    log = ShardLog(store, Shard(shard_of(key), "", DAY, ()))
    assert [entry.seq for entry in log.entries] == [0]
    extents = log.entries[0].extents
    places = [extent.place for extent in extents]
    assert places == [(0, 0), (1, 0), (1, 1), (1, 2), (1, 3), (2, 0), (3, 0), (4, 0), (5, 0)]
    assert [extent.last_page for extent in extents] == [2, 2, 0, 1, 0, 0, 1, 3, 5]
    assert [extent.closes for extent in extents[1:5]] == [False, False, False, True]
    assert [extent.container_sha256 for extent in extents[1:5]] == ["sha of /in/a.zip"] * 3 + [None]
    assert extents[2].error_code == "corrupt"
    (long,) = [extent for extent in extents if extent.facts.page_count == 5]
    assert (long.first_page, long.last_page) == (1, 5)
    assert (long.pages_ok, long.pages_empty, long.pages_failed) == (3, 1, 1)
    assert (long.error_code, long.error_message) == ("loop", "again")
    assert log.position() == ((6, 0), 1)


def test_there_is_nothing_more_to_do(lake: Path, whole: Seen) -> None:
    merge_alone(lake)
    before = sorted(LocalStore(lake).objects(""), key=lambda found: found.key)
    assert merge_alone(lake) == Compacted()
    assert sorted(LocalStore(lake).objects(""), key=lambda found: found.key) == before


def long_page(standing: Standing, number: int) -> PageResult:
    """A page of 24 KB that no compression makes smaller."""
    words = Random(f"{standing.source_uri} {number}").randbytes(18_000)
    return replace(page_by_a_worker(standing, number), text=b64encode(words).decode())


def test_much_becomes_several_parts(tmp_path: Path) -> None:
    store = new_lake(tmp_path)
    write_run(store, 1, [{"/in/b.pdf": 7, "/in/a.pdf": 5, "/in/c.pdf": 0}], page=long_page)
    whole = Readers(store).look()
    part_bytes = 120_000
    done = merge_alone(tmp_path, part_bytes)
    assert done == Compacted(shards=1, parts_before=7, parts_after=2)
    assert merge_alone(tmp_path, part_bytes) == Compacted()
    assert Readers(store).look() == whole
    expect_tidy(store)
    found = [
        (extent.first_page, extent.last_page, extent.complete)
        for key in lake_files(store).keys("pages")
        for extent in read_entry(store, key).extents
    ]
    assert found == [(1, 5, True), (1, 1, False), (2, 7, True), (1, 0, True)]
    for part in lake_files(store).pages:
        assert part.size_bytes > part_bytes / 2


def test_large_parts_are_left_alone(tmp_path: Path) -> None:
    store = new_lake(tmp_path)
    write_run(store, 1, [{"/in/a.pdf": 2}, {"/in/b.pdf": 2}], page=long_page)
    assert merge_alone(tmp_path, 60_000) == Compacted()
    write_run(store, 2, [{"/in/c.pdf": 1}])
    assert merge_alone(tmp_path, 60_000) == Compacted(), "one small part has nothing to join"


def test_readers_see_every_row_at_every_step(lake: Path, whole: Seen) -> None:
    readers = Readers(LocalStore(lake))
    count = "SELECT count(*), count(DISTINCT (document_id, page_number)) FROM pages_all"

    def look() -> None:
        assert readers.look() == whole
        assert run_query(str(lake), count)[1] == [(len(whole.pages),) * 2]

    assert writes_of(lake, merge, look) > 30


def test_killed_anywhere_it_is_finished_or_given_up(small: Path, tmp_path: Path) -> None:
    whole = Readers(LocalStore(small)).look()
    calm = next(copies_of(small, tmp_path, 1))[1]
    writes = writes_of(calm, merge)
    for number, lake in copies_of(small, tmp_path / "killed", writes):
        readers = Readers(LocalStore(lake))
        killed_at(lake, merge, number)
        assert readers.look() == whole
        merge_alone(lake)
        assert readers.look() == whole
        expect_tidy(LocalStore(lake))
        assert sizes(lake) == sizes(calm)


def sizes(lake: Path) -> list[tuple[str, int]]:
    """The table of each file that counts, and how many rows it has."""
    files = lake_files(LocalStore(lake))
    tables = ("documents", "pages", "blocks")
    return [(name, len(rows(lake, key))) for name in tables for key in files.keys(name)]


def test_whoever_finishes_it_may_be_killed_too(small: Path, tmp_path: Path) -> None:
    whole = Readers(LocalStore(small)).look()
    half = next(copies_of(small, tmp_path, 1))[1]
    killed_at(half, merge, 5)  # the files of one shard stand, and the decision
    assert [len(names) for names in noted(LocalStore(half)).values()] == [2]
    counted = next(copies_of(half, tmp_path / "counted", 1))[1]
    writes = writes_of(counted, settle)
    assert writes > 8
    for number, lake in copies_of(half, tmp_path / "killed", writes):
        readers = Readers(LocalStore(lake))
        killed_at(lake, settle, number)
        assert readers.look() == whole
        merge_alone(lake)
        assert readers.look() == whole
        expect_tidy(LocalStore(lake))


def test_a_zombie_does_no_harm_whenever_it_wakes(small: Path, tmp_path: Path) -> None:
    whole = Readers(LocalStore(small)).look()
    writes = writes_of(next(copies_of(small, tmp_path, 1))[1], merge)
    for number, lake in copies_of(small, tmp_path / "frozen", writes):
        readers = Readers(LocalStore(lake))

        def look(readers: Readers = readers) -> None:
            assert readers.look() == whole

        frozen_at(lake, merge, number, merge, look)
        merge_alone(lake)
        look()
        expect_tidy(LocalStore(lake))


def test_a_straggler_still_finds_its_place_taken(lake: Path, whole: Seen) -> None:
    store = LocalStore(lake)
    taken = [key for table in ("pages", "documents") for key in keys(store, f"{table}/")]
    merge_alone(lake)
    for key in taken:
        with pytest.raises(AlreadyExists):
            store.create(key, b"late")
    left = "20260301T000000Z-abcdef-00001-0000"
    store.put(f"blocks/ingest_date={DAY}/{left}-12345678.parquet", b"left by one that died")
    assert Readers(store).look() == whole


def test_what_a_zombie_wrote_into_a_merged_shard_is_emptied(lake: Path, whole: Seen) -> None:
    """Its readers have the rows that were read when the shards were merged."""
    store = LocalStore(lake)
    key = next(keys(store, "pages/"))

    def write_late(number: int) -> None:
        if number == 7:
            data, tag = store.read(key)
            store.replace(key, data + b"", tag)
            entry = read_entry(store, key)
            table = pq.read_table(io.BytesIO(data))
            store.replace(key, parquet(table.slice(1), entry_footer(None, entry.extents)), tag)

    with locked(lake) as lock:
        merge(Stepped(lake, write_late), lock)
    assert Readers(store).look() == whole
    assert rows(lake, key) == []


def test_empties_go_after_a_week(lake: Path, whole: Seen) -> None:
    store = LocalStore(lake)
    killed_at(lake, merge, 3)
    merge_alone(lake)
    assert sorted(len(names) for names in noted(store).values()) == [2, 3, 3]
    almost = NOW + timedelta(days=7, seconds=-1)
    assert merge_alone(lake, now=almost) == Compacted()
    done = merge_alone(lake, now=NOW + timedelta(days=7))
    assert done == Compacted(removed=5 + 12)
    assert list(keys(store, FOLDER)) == []
    assert Readers(store).look() == whole
    expect_tidy(store)
    for table in ("documents", "pages", "blocks"):
        assert list(keys(store, f"{table}/")) == lake_files(store).keys(table)


def test_removing_empties_may_be_killed_too(small: Path, tmp_path: Path) -> None:
    whole = Readers(LocalStore(small)).look()
    merged = next(copies_of(small, tmp_path, 1))[1]
    killed_at(merged, merge, 3)
    merge_alone(merged)

    def tidy(store: LocalStore, lock: LakeLock) -> None:
        settle(store, lock)
        compact(store, lock, new_run_id(store), LARGE, NOW + timedelta(days=8))

    writes = writes_of(next(copies_of(merged, tmp_path / "calm", 1))[1], tidy)
    for number, lake in copies_of(merged, tmp_path / "killed", writes):
        readers = Readers(LocalStore(lake))
        killed_at(lake, tidy, number)
        assert readers.look() == whole
        writes_of(lake, tidy)
        assert readers.look() == whole
        assert list(keys(LocalStore(lake), FOLDER)) == []


def test_what_open_runs_want_is_left_alone(lake: Path, whole: Seen) -> None:
    store = LocalStore(lake)
    first, second, third = sorted(
        {shard_of(key) for key in keys(store, f"documents/ingest_date={DAY}/")}
    )
    (begun, *_) = write_run(store, 4, [{"/in/y.pdf": 1}, {"/in/x.pdf": 1}], unfinished=1)
    mends = Job(Shard(first, "20260305T000000Z-abcdef", DAY, ()), mends=True)
    old = documents_key(Shard(third, "", DAY, ()))
    anew = PlannedDocument("id", "/in/c.pdf", "v2", 10, 1, replaces=old)
    reads = Job(Shard("20260305T000000Z-abcdef-00001", "run", DAY, (anew,)), mends=False)
    list(write_segments(store, [mends, reads], "20260305T000000Z-abcdef", RECIPE, SETTINGS))
    whole = Readers(store).look()
    assert merge_alone(lake) == Compacted(shards=3, parts_before=5, parts_after=2)
    merged = {name for names in hidden(store).values() for name in names}
    assert second in merged and merged.isdisjoint({first, third, begun.shard_id})
    assert Readers(store).look() == whole


def hidden(store: LocalStore) -> dict[str, tuple[str, ...]]:
    return {shard_id: read_begun(store, shard_id).merged for shard_id in noted(store)}


def test_documents_that_were_read_anew_elsewhere_are_dropped(lake: Path) -> None:
    store = LocalStore(lake)
    shard = next(keys(store, "documents/"))
    (bad,) = [row for row in rows(lake, shard) if row["source_uri"] == "/in/b.pdf"]
    remove_rows(store, [PlannedDocument(str(bad["document_id"]), "", "", 0, replaces=shard)])
    whole = Readers(store).look()
    merge_alone(lake)
    assert Readers(store).look() == whole
    entry = read_entry(store, lake_files(store).keys("pages")[0])
    assert bad["document_id"] not in {extent.document_id for extent in entry.extents}
    expect_tidy(store)


def test_merged_again_with_what_came_later(lake: Path, whole: Seen) -> None:
    store = LocalStore(lake)
    merge_alone(lake)
    write_run(store, 4, [{"/in/aa.pdf": 2, "/in/zz.zip": (1, 1)}])
    whole = Readers(store).look()
    assert merge_alone(lake) == Compacted(shards=2, parts_before=4, parts_after=1)
    assert Readers(store).look() == whole
    expect_tidy(store)
    assert merge_alone(lake, now=NOW + timedelta(days=7)).removed == 5 + 12 + 2 + 4
    assert Readers(store).look() == whole


def test_a_shard_that_is_not_what_its_log_says_is_not_merged(lake: Path) -> None:
    store = LocalStore(lake)
    key = next(keys(store, "pages/"))
    data, tag = store.read(key)
    entry = read_entry(store, key)
    fewer = pq.read_table(io.BytesIO(data)).slice(1)
    store.replace(key, parquet(fewer, entry_footer(entry.blocks, entry.extents)), tag)
    before = rows_that_count(lake)
    for _ in range(2):
        with pytest.raises(LakeError, match="are not those that their log tells of"):
            merge_alone(lake)
        assert rows_that_count(lake) == before
    store.delete(str(entry.blocks))
    with pytest.raises(LakeError, match="is missing, so its shard cannot be merged"):
        merge_alone(lake)


def rows_that_count(lake: Path) -> list[tuple[str, list[dict[str, object]]]]:
    files = lake_files(LocalStore(lake))
    return [(key, rows(lake, key)) for name in ("documents", "pages") for key in files.keys(name)]


# -- what comes after, by the command ------------------------------------------------------------

QUICK = ("--text-layer", "ignore", "--attempts", "1", "--shard-documents", "1", "--processes", "1")
FAILING = (60, 70)


def test_documents_of_a_merged_shard_are_mended_copied_and_forgotten(
    pagelake: Callable[..., Ended], tmp_path: Path
) -> None:
    source, lake = tmp_path / "in", tmp_path / "lake"
    write_shades(source / "a.pdf", [200, 60, 210])
    write_shades(source / "b.pdf", [220])
    write_shades(tmp_path / "m.pdf", [70, 230])
    with ZipFile(source / "c.zip", "w") as packed:
        packed.write(tmp_path / "m.pdf", "m.pdf")
        packed.write(source / "b.pdf", "copied.pdf")
    stand_in = StandIn(
        answer=lambda q: Said("cut", "length") if q.shade in FAILING else by_shade(q)
    )
    with standing_in(stand_in):
        read = ("ingest", source, lake, *QUICK, "--engine-url", stand_in.url, "--json")
        assert pagelake(*read).code == 3
        before = Readers(LocalStore(lake)).look()
        assert pagelake("compact", lake).out == "3 parts of 3 shards became 1\n"
        assert run_compact(CompactSettings(dest=str(lake)))["shards"] == 0
        assert Readers(LocalStore(lake)).look() == before

        stand_in.answer = by_shade
        mended = pagelake(*read, "--retry-failed")
        assert (mended.code, mended.told["pages"]["total"], mended.told["pages"]["ok"]) == (0, 2, 2)
        (source / "d.pdf").write_bytes((source / "a.pdf").read_bytes())
        copied = pagelake(*read)
        assert (copied.code, copied.told["pages_copied"]) == (0, 3)
    expect_tidy(LocalStore(lake))
    assert texts(lake) == {
        **{("a.pdf", number): shade for number, shade in enumerate((200, 60, 210), start=1)},
        ("b.pdf", 1): 220,
        ("c.zip!/copied.pdf", 1): 220,
        **{("c.zip!/m.pdf", number): shade for number, shade in enumerate((70, 230), start=1)},
        **{("d.pdf", number): shade for number, shade in enumerate((200, 60, 210), start=1)},
    }
    assert pagelake("forget", lake, source / "c.zip").code == 0
    told = run_compact(CompactSettings(dest=str(lake)))
    assert (told["shards"], told["parts_after"]) == (2, 1)
    expect_tidy(LocalStore(lake))
    assert {name for name, _ in texts(lake)} == {"a.pdf", "b.pdf", "d.pdf"}


def texts(lake: Path) -> dict[tuple[str, int], int]:
    """The shade that each page was read to have."""
    return {
        (row["source_uri"].partition("/in/")[2], row["page_number"]): int(row["text"].split()[-1])
        for row in Readers(LocalStore(lake)).look().pages.values()
    }

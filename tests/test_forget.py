"""A document that is forgotten is in no file any more, and nothing else is touched."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from zipfile import ZipFile

import pyarrow.parquet as pq
import pytest

from flows.upkeep import run_forget
from schemas.errors import LakeError, UsageError
from schemas.records import Shard
from schemas.settings import ForgetSettings
from tasks.compact import compact
from tasks.forget import Forgotten, forget
from tasks.lakefiles import lake_files
from tasks.localstore import LocalStore
from tasks.lock import LakeLock
from tasks.runs import new_run_id
from tasks.settle import settle
from tasks.shardlog import ShardLog, read_entry
from tasks.store import keys
from tests.conftest import Ended
from tests.shards import DAY
from tests.standin import Said, StandIn, by_shade, standing_in, write_shades
from tests.upkeep import (
    Readers,
    Seen,
    Work,
    copies_of,
    expect_tidy,
    frozen_at,
    killed_at,
    locked,
    new_lake,
    quick_disk,
    write_run,
    writes_of,
)

__all__ = ["quick_disk"]

ZIP = "/in/a.zip"
PDF = "/in/z.pdf"


def take_out(uri: str) -> Work:
    def work(store: LocalStore, lock: LakeLock) -> None:
        settle(store, lock)
        forget(store, lock, uri)

    return work


def forget_alone(lake: Path, uri: str) -> Forgotten:
    store = LocalStore(lake)
    with locked(lake) as lock:
        settle(store, lock)
        return forget(store, lock, uri)


def merge_alone(lake: Path) -> None:
    store = LocalStore(lake)
    with locked(lake) as lock:
        settle(store, lock)
        compact(store, lock, new_run_id(store), 1 << 20, datetime(2026, 3, 9, tzinfo=UTC))


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A PDF in two versions, an archive, and neighbours in their shards and parts."""
    folder = tmp_path_factory.mktemp("made") / "lake"
    store = new_lake(folder)
    write_run(store, 1, [{"/in/m.pdf": 3, ZIP: (2, 0, 1), PDF: 5}, {"/in/z.pdf.bak": 1}])
    write_run(store, 2, [{PDF: 1, "/in/c.pdf": 1, "/in/d.pdf": 0}])
    return folder


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A lake in which it takes few steps."""
    folder = tmp_path_factory.mktemp("small") / "lake"
    store = new_lake(folder)
    write_run(store, 1, [{PDF: 3, ZIP: (1, 2)}])
    write_run(store, 2, [{PDF: 1, "/in/c.pdf": 1}])
    return folder


@pytest.fixture
def lake(made: Path, tmp_path: Path) -> Path:
    return next(copies_of(made, tmp_path, 1))[1]


@pytest.fixture(scope="module")
def whole(made: Path) -> Seen:
    return Readers(LocalStore(made)).look()


def ids_of(whole: Seen, uri: str) -> set[str]:
    rows = whole.documents.values()
    return {row["document_id"] for row in rows if f"{row['source_uri']}!/".startswith(f"{uri}!/")}


def expect_gone(lake: Path, uri: str, ids: set[str]) -> None:
    """Neither the address nor an id is in any object, be it a table, a footer, a plan or a note."""
    for path in lake.rglob("*"):
        if path.is_dir():
            continue
        told = path.read_bytes().decode("latin-1") + str(path)
        if path.suffix == ".parquet":
            told += json.dumps(pq.read_table(path, partitioning=None).to_pylist(), default=str)
        for word in (uri, *ids):
            assert word not in told.replace(f"{uri}.bak", ""), f"{word} is in {path}"


@pytest.mark.parametrize("uri", [PDF, ZIP])
@pytest.mark.parametrize("merged", [False, True])
def test_nothing_of_it_is_left(lake: Path, whole: Seen, uri: str, merged: bool) -> None:
    store, ids = LocalStore(lake), ids_of(whole, uri)
    if merged:
        merge_alone(lake)
    figures = [key for each in ids for key in keys(store, f"figures/{each}/")]
    after = whole.without(ids)
    done = forget_alone(lake, uri)
    assert done == Forgotten(
        uri,
        documents=len(ids),
        pages=len(whole.pages) - len(after.pages),
        blocks=len(whole.blocks) - len(after.blocks),
        figures=len(figures),
    )
    assert len(figures) >= 1
    assert Readers(store).look() == after
    expect_gone(lake, uri, ids)
    expect_tidy(store)


def test_a_second_time_there_is_nothing(lake: Path) -> None:
    forget_alone(lake, PDF)
    before = list(LocalStore(lake).objects(""))
    for _ in range(2):
        with pytest.raises(UsageError, match=r"nothing in .* has the address /in/z\.pdf; did you"):
            forget_alone(lake, PDF)
    assert list(LocalStore(lake).objects("")) == before


@pytest.mark.parametrize(
    ("typed", "meant"),
    [("/in/y.pdf", "/in/c.pdf or /in/d.pdf or /in/m.pdf"), ("z.pdf", "/in/z.pdf"), ("/no", None)],
)
def test_an_address_that_is_none(lake: Path, typed: str, meant: str | None) -> None:
    with pytest.raises(UsageError) as refused:
        forget_alone(lake, typed)
    hint = f"did you mean {meant}?" if meant else "see source_uri in documents"
    assert str(refused.value) == f"nothing in {lake} has the address {typed}; {hint}"


def test_a_member_of_an_archive_alone(lake: Path, whole: Seen) -> None:
    ids = ids_of(whole, f"{ZIP}!/0")
    assert len(ids) == 1
    assert forget_alone(lake, f"{ZIP}!/0").pages == 2
    assert Readers(LocalStore(lake)).look() == whole.without(ids)
    expect_tidy(LocalStore(lake))


def test_the_log_still_adds_up(lake: Path, whole: Seen) -> None:
    store, ids = LocalStore(lake), ids_of(whole, PDF)
    shard = Shard("20260301T000000Z-abcdef-00001", "", DAY, ())
    before = ShardLog(store, shard)
    forget_alone(lake, PDF)
    after = ShardLog(store, shard)
    assert after.position() == before.position()
    for old, new in zip(before.extents().items(), after.extents().items(), strict=True):
        assert old[0] == new[0]
        pages = [[(each.first_page, each.last_page) for each in place] for _, place in (old, new)]
        assert pages[0] == pages[1]
        if old[1][0].document_id not in ids:
            assert old == new


def test_it_is_not_in_what_it_is_merged_into(lake: Path, whole: Seen) -> None:
    store, ids = LocalStore(lake), ids_of(whole, PDF)
    forget_alone(lake, PDF)
    merge_alone(lake)
    assert Readers(store).look() == whole.without(ids)
    entries = [read_entry(store, key) for key in lake_files(store).keys("pages")]
    assert all(extent.document_id for entry in entries for extent in entry.extents)
    expect_gone(lake, PDF, ids)
    expect_tidy(store)


def test_a_shard_of_nothing_else_is_merged_away(tmp_path: Path) -> None:
    store = new_lake(tmp_path)
    write_run(store, 1, [{PDF: 3}])
    forget_alone(tmp_path, PDF)
    merge_alone(tmp_path)
    assert Readers(store).look() == Seen({}, {}, {})
    assert lake_files(store).keys("pages") == []


def test_what_a_run_has_still_to_read_is_not_forgotten(lake: Path, whole: Seen) -> None:
    store = LocalStore(lake)
    shards = write_run(store, 4, [{"/in/done.pdf": 1}, {PDF: 1, "/in/e.zip": (1,)}], unfinished=1)
    for uri in (PDF, "/in/e.zip", "/in/e.zip!/0"):
        with pytest.raises(LakeError, match="run 20260304T000000Z-abcdef is unfinished and has"):
            forget_alone(lake, uri)
    expect = Readers(store).look().without({shards[0].documents[0].document_id})
    assert forget_alone(lake, "/in/done.pdf").documents == 1
    assert Readers(store).look() == expect == whole


def looking(lake: Path, whole: Seen, ids: set[str]) -> Iterator[None]:
    """At each turn: what is to stay is there once, and of what goes at most what was there."""
    readers, stays = Readers(LocalStore(lake)), whole.without(ids)
    while True:
        seen = readers.look()
        assert seen.without(ids) == stays
        for now, before in ((seen.pages, whole.pages), (seen.blocks, whole.blocks)):
            assert all(before[key] == row for key, row in now.items())
        yield


def test_the_same_command_again_finishes_what_was_begun(lake: Path, whole: Seen) -> None:
    settings = ForgetSettings(dest=str(lake), uri=PDF)
    killed_at(lake, take_out(PDF), 8)
    done = run_forget(settings)
    assert done["uri"] == PDF and 0 < done["pages"] < 6
    assert Readers(LocalStore(lake)).look() == whole.without(ids_of(whole, PDF))
    with pytest.raises(UsageError):
        run_forget(settings)


@pytest.mark.parametrize("uri", [PDF, ZIP])
def test_readers_miss_nothing_else_at_any_step(lake: Path, whole: Seen, uri: str) -> None:
    look = looking(lake, whole, ids_of(whole, uri))
    assert writes_of(lake, take_out(uri), lambda: next(look)) > 10


def test_killed_anywhere_the_next_writer_finishes(small: Path, tmp_path: Path) -> None:
    whole = Readers(LocalStore(small)).look()
    ids = ids_of(whole, PDF)
    writes = writes_of(next(copies_of(small, tmp_path, 1))[1], take_out(PDF))
    for number, lake in copies_of(small, tmp_path / "killed", writes):
        look = looking(lake, whole, ids)
        killed_at(lake, take_out(PDF), number)
        next(look)
        writes_of(lake, settle, lambda look=look: next(look))  # type: ignore[misc]
        gone = Readers(LocalStore(lake)).look()
        assert gone == (whole.without(ids) if number else whole), "before the note nothing is begun"
        if number:
            expect_gone(lake, PDF, ids)
            expect_tidy(LocalStore(lake))


def test_a_zombie_does_no_harm_whenever_it_wakes(small: Path, tmp_path: Path) -> None:
    whole = Readers(LocalStore(small)).look()
    ids = ids_of(whole, PDF)
    work = take_out(PDF)
    writes = writes_of(next(copies_of(small, tmp_path, 1))[1], work)

    def others(store: LocalStore, lock: LakeLock) -> None:
        settle(store, lock)
        compact(store, lock, new_run_id(store), 1 << 20, datetime(2026, 3, 9, tzinfo=UTC))

    for number, lake in copies_of(small, tmp_path / "frozen", writes):
        look = looking(lake, whole, ids)
        frozen_at(lake, work, number, others, lambda look=look: next(look))  # type: ignore[misc]
        with locked(lake) as lock:
            settle(LocalStore(lake), lock)
        assert Readers(LocalStore(lake)).look() == whole.without(ids)
        expect_gone(lake, PDF, ids)
        expect_tidy(LocalStore(lake))


def test_a_forgotten_member_does_not_come_back_when_the_archive_is_mended(
    pagelake: Callable[..., Ended], tmp_path: Path
) -> None:
    source, lake = tmp_path / "in", tmp_path / "lake"
    write_shades(source / "a.pdf", [200])
    write_shades(tmp_path / "m.pdf", [70])
    with ZipFile(source / "c.zip", "w") as packed:
        packed.write(source / "a.pdf", "gone.pdf")
        packed.write(tmp_path / "m.pdf", "m.pdf")
    with standing_in(StandIn(answer=lambda question: Said("cut", "length"))) as stand_in:
        read = ("ingest", source, lake, "--text-layer", "ignore", "--attempts", "1")
        read = (*read, "--processes", "1", "--engine-url", stand_in.url)
        assert pagelake(*read).code == 3
        whole = Readers(LocalStore(lake)).look()
        uri = f"{source}/c.zip!/gone.pdf"
        forget_alone(lake, uri)
        stand_in.answer = by_shade
        assert pagelake(*read, "--retry-failed").code == 0
    rows = Readers(LocalStore(lake)).look().documents.values()
    told = {row["source_uri"]: (row["status"], dict(row["metadata"])) for row in rows}
    assert told == {
        f"{source}/a.pdf": ("ok", {}),
        f"{source}/c.zip!/m.pdf": ("ok", {}),
        f"{source}/c.zip": ("ok", {"members": "1"}),
    }
    expect_gone(lake, uri, ids_of(whole, uri))

"""Objects that appear whole or not at all."""

from __future__ import annotations

import os
import threading
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import pyarrow as pa
import pytest

from schemas.errors import LakeError
from schemas.tables import PAGES
from tasks.localstore import LocalStore
from tasks.rows import parquet
from tasks.store import AlreadyExists, Changed, keys, read_table


@pytest.fixture
def store(tmp_path: Path) -> LocalStore:
    made = LocalStore(tmp_path / "lake")
    made.prepare()
    return made


def race_to_create(root: str, key: str, body: bytes) -> bool:
    try:
        LocalStore(root).create(key, body)
    except AlreadyExists:
        return False
    return True


def leftovers(store: LocalStore) -> list[str]:
    return list(keys(store, "_runs/tmp"))


def test_create_refuses_a_second_write_and_leaves_the_first(store: LocalStore) -> None:
    tag = store.create("pages/one.parquet", b"first")
    with pytest.raises(AlreadyExists):
        store.create("pages/one.parquet", b"second")
    assert store.read("pages/one.parquet") == (b"first", tag)
    assert leftovers(store) == []


@pytest.mark.parametrize("kind", ["threads", "processes"])
def test_one_of_eight_creators_wins(store: LocalStore, kind: str) -> None:
    pool = (
        ThreadPoolExecutor(8)
        if kind == "threads"
        else ProcessPoolExecutor(8, get_context("forkserver"))
    )
    with pool:
        for round_number in range(10):
            key, bodies = f"a/{round_number}/key", [bytes([65 + n]) * 50_000 for n in range(8)]
            won = list(pool.map(race_to_create, [str(store.root)] * 8, [key] * 8, bodies))
            assert won.count(True) == 1
            assert store.read(key)[0] == bodies[won.index(True)]
    assert leftovers(store) == []


def test_replace_and_delete_want_the_state_they_were_told_of(store: LocalStore) -> None:
    first = store.create("key", b"1")
    second = store.replace("key", b"2", first)
    with pytest.raises(Changed):
        store.replace("key", b"3", first)
    with pytest.raises(Changed):
        store.delete("key", first)
    assert store.read("key") == (b"2", second)
    store.delete("key", second)
    assert not store.exists("key")
    with pytest.raises(Changed):
        store.replace("key", b"4", second)
    with pytest.raises(Changed):
        store.delete("key", second)
    store.delete("key")  # without a tag there is nothing to refuse
    assert leftovers(store) == []


def test_no_update_is_lost_between_eight_writers(store: LocalStore) -> None:
    store.create("counter", b"0")

    def count_up(_: int) -> None:
        for _ in range(5):
            while True:
                data, tag = store.read("counter")
                try:
                    store.replace("counter", str(int(data) + 1).encode(), tag)
                    break
                except Changed:
                    continue

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(count_up, range(8)))
    assert store.read("counter")[0] == b"40"


def test_readers_see_whole_objects_only(store: LocalStore) -> None:
    bodies = [bytes([65 + n]) * 400_000 for n in range(4)]
    seen: list[bytes] = []
    done = threading.Event()

    def watch() -> None:
        while not done.is_set():
            if store.exists("whole"):
                seen.append(store.read("whole")[0])

    watcher = threading.Thread(target=watch)
    watcher.start()
    tag = store.create("whole", bodies[0])
    for number in range(20):
        tag = store.replace("whole", bodies[number % 4], tag)
        store.put("whole", bodies[(number + 1) % 4])
        tag = store.read("whole")[1]
    done.set()
    watcher.join()
    assert len(seen) > 3
    assert set(seen) <= set(bodies)


def test_sweep_removes_what_a_killed_writer_left(store: LocalStore) -> None:
    store.create("pages/kept.parquet", b"kept")
    half = Path(store.uri("_runs/tmp/half"))
    half.write_bytes(b"ha")
    store.sweep()
    assert leftovers(store) == ["_runs/tmp/half"]  # it may be another's that is being written
    os.utime(half, (0, 0))
    store.sweep()
    assert leftovers(store) == []
    assert store.read("pages/kept.parquet")[0] == b"kept"


def test_sweep_does_not_break_a_create_that_is_under_way(
    store: LocalStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A run that queues for the lock writes it again and again; the holder sweeps when it likes."""
    write, sweeps = store._write_tmp, iter([True])

    def write_and_be_swept(data: bytes) -> Path:
        written = write(data)
        if next(sweeps, False):
            LocalStore(store.root).sweep()
        return written

    monkeypatch.setattr(store, "_write_tmp", write_and_be_swept)
    store.create("key", b"data")
    assert store.read("key")[0] == b"data"


def test_list_gives_keys_that_begin_alike_at_any_depth_in_order(store: LocalStore) -> None:
    for key in (
        "pages/d=2/b",
        "pages/d=1/c",
        "pages/d=1/a-1",
        "pages/d=1/a-10",
        "blocks/x",
        "q/b",
        "q/a/z",
        "q/a-1/z",
    ):
        store.create(key, b"")
    pages = ["pages/d=1/a-1", "pages/d=1/a-10", "pages/d=1/c", "pages/d=2/b"]
    assert list(keys(store, "pages/")) == list(keys(store, "p")) == pages
    assert list(keys(store, "pages/d=1/a-1")) == pages[:2]
    assert list(keys(store, "pages/d=1/a-1/")) == []
    assert list(keys(store, "q")) == ["q/a-1/z", "q/a/z", "q/b"]
    assert store.folders("pages") == ["d=1", "d=2"]
    assert list(keys(store, "nothing")) == store.folders("nothing") == []


def test_a_listing_tells_size_and_changes_with_the_content(store: LocalStore) -> None:
    tag = store.create("pages/a", b"one")
    (before,) = store.objects("pages/")
    assert (before.key, before.size_bytes) == ("pages/a", 3)
    assert list(store.objects("pages/")) == [before]
    store.replace("pages/a", b"and one more", tag)
    (after,) = store.objects("pages/")
    assert (after.key, after.size_bytes) == ("pages/a", 12)
    assert after.version != before.version


def test_a_table_is_read_by_todays_schema(store: LocalStore) -> None:
    """A lake's older files have fewer columns, in another order perhaps."""
    old = pa.table({"text": ["b", "a"], "page_number": pa.array([2, 1], pa.int32())})
    store.create("pages/old.parquet", parquet(old))
    found = read_table(store, "pages/old.parquet", PAGES)
    assert found.schema.equals(PAGES, check_metadata=False)
    assert found.select(["page_number", "text", "engine"]).to_pylist() == [
        {"page_number": 2, "text": "b", "engine": None},
        {"page_number": 1, "text": "a", "engine": None},
    ]
    with pytest.raises(FileNotFoundError):
        read_table(store, "pages/new.parquet", PAGES)


def test_a_place_that_cannot_be_written_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(LakeError, match="cannot write to"):
        LocalStore(tmp_path / "file").prepare()

"""What the lake's durability stands on: objects that appear whole, and one writer at a time."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import pytest

from schemas.errors import LakeError, LakeLocked, LockLost
from tasks.lock import KEY, LakeLock
from tasks.store import AlreadyExists, Changed, LocalStore

QUICKLY = 5.0  # seconds within which "at once" must have happened on a busy machine

HOLDER = """
import sys, time
from tasks.lock import LakeLock
from tasks.store import LocalStore
with LakeLock(LocalStore(sys.argv[1]), "run-of-another-process", 60, wait=False):
    print("held", flush=True)
    time.sleep(60)
"""


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
    return list(store.keys("_runs/tmp"))


def until(true: Callable[[], bool]) -> None:
    deadline = time.monotonic() + QUICKLY
    while not true():
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(0.02)


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
    half = Path(store.path("_runs/tmp/half"))
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


def test_list_gives_keys_at_any_depth_in_order(store: LocalStore) -> None:
    for key in ("pages/d=2/b", "pages/d=1/c", "pages/d=1/a", "blocks/x"):
        store.create(key, b"")
    assert list(store.keys("pages")) == ["pages/d=1/a", "pages/d=1/c", "pages/d=2/b"]
    assert store.folders("pages") == ["d=1", "d=2"]
    assert list(store.keys("nothing")) == store.folders("nothing") == []


def test_a_place_that_cannot_be_written_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(LakeError, match="cannot write to"):
        LocalStore(tmp_path / "file").prepare()


# -- the lock ------------------------------------------------------------------------------------


@pytest.fixture
def held_elsewhere(store: LocalStore) -> Iterator[subprocess.Popen[str]]:
    """Another process of this host, holding the lock."""
    with subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(store.root)],
        stdout=subprocess.PIPE,
        text=True,
        cwd=Path(__file__).parent.parent,
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n"
        yield process
        process.kill()


def holder(store: LocalStore) -> dict[str, Any]:
    return dict(json.loads(store.read(KEY)[0]))


def play_another_host(store: LocalStore, **changes: object) -> None:
    """Write the lock as another machine would."""
    told = {"run_id": "theirs", "host": "far-away", "boot": "x", "pid": 1, "pid_started": "1"}
    told |= {"since": "2026-01-01T00:00:00+00:00", "epoch": 7, "renewals": 0}
    store.put(KEY, json.dumps(told | changes).encode())


def lock(
    store: LocalStore, run_id: str = "ours", after: float = 0.4, wait: bool = False
) -> LakeLock:
    return LakeLock(store, run_id, after, wait)


def test_a_second_holder_is_told_who_holds_it(store: LocalStore) -> None:
    with lock(store, "the-first-run", after=60):
        with pytest.raises(LakeLocked) as refused, lock(store, "the-second-run", after=60):
            pass
        line = str(refused.value)
        assert "the-first-run" in line and socket.gethostname() in line and "--wait" in line
        assert len(line.splitlines()) == 1
        assert holder(store)["run_id"] == "the-first-run"


def test_release_removes_the_file_and_the_next_begins_anew(store: LocalStore) -> None:
    for _ in range(2):
        with lock(store) as held:
            held.check()
            assert holder(store)["epoch"] == 1
        assert not store.exists(KEY)


def test_a_holder_that_was_killed_is_replaced_at_once(
    store: LocalStore, held_elsewhere: subprocess.Popen[str]
) -> None:
    with pytest.raises(LakeLocked, match="run-of-another-process"), lock(store, after=60):
        pass
    held_elsewhere.send_signal(signal.SIGKILL)
    held_elsewhere.wait()
    began = time.monotonic()
    with lock(store, after=60) as held:
        assert time.monotonic() - began < QUICKLY
        assert (holder(store)["epoch"], holder(store)["run_id"]) == (2, "ours")
        held.check()


def test_a_killed_holder_that_nobody_buried_is_dead_all_the_same(
    store: LocalStore, held_elsewhere: subprocess.Popen[str]
) -> None:
    """In a container whose first process reaps no children, the dead stay as zombies."""
    held_elsewhere.send_signal(signal.SIGKILL)
    stat = Path(f"/proc/{held_elsewhere.pid}/stat")
    until(lambda: ") Z " in stat.read_text())
    with lock(store, after=60):
        assert holder(store)["epoch"] == 2


def test_a_pid_that_was_given_to_another_process_is_not_the_holder(store: LocalStore) -> None:
    with lock(store) as first:
        told = holder(store) | {"pid_started": "1"}
        store.put(KEY, json.dumps(told).encode())
        with lock(store, "second", after=60) as second:
            second.check()
            with pytest.raises(LockLost):
                first.check()


def test_another_host_that_shows_life_is_left_alone(store: LocalStore) -> None:
    play_another_host(store)
    renewal = threading.Timer(0.2, play_another_host, (store,), {"renewals": 1})
    renewal.start()
    with pytest.raises(LakeLocked, match=r"theirs on far-away"), lock(store, after=30):
        pass
    renewal.join()
    assert holder(store)["epoch"] == 7


def test_another_host_that_is_silent_is_taken_over(store: LocalStore) -> None:
    play_another_host(store)
    began = time.monotonic()
    with lock(store, after=0.4) as held:
        assert time.monotonic() - began >= 0.4
        assert (holder(store)["epoch"], holder(store)["run_id"]) == (8, "ours")
        held.check()


def test_one_who_was_taken_over_commits_no_more(store: LocalStore) -> None:
    with lock(store) as held:
        play_another_host(store, epoch=2)
        with pytest.raises(LockLost, match="run ours"):
            held.check()
    assert holder(store)["run_id"] == "theirs", "the new holder's lock is not ours to remove"
    store.delete(KEY)
    with lock(store) as held:
        store.delete(KEY)
        with pytest.raises(LockLost):
            held.check()


def test_renewal_changes_the_file_and_keeps_the_right(store: LocalStore) -> None:
    with lock(store, after=0.2) as held:
        until(lambda: holder(store)["renewals"] >= 4)
        held.check()
        assert holder(store)["epoch"] == 1
    assert not store.exists(KEY)


def test_renewal_survives_a_full_disk(store: LocalStore, monkeypatch: pytest.MonkeyPatch) -> None:
    """What passes by itself must not make a live holder fall silent."""
    replace, failures = store.replace, iter([OSError(28, "No space left on device")] * 2)

    def replace_or_fail(key: str, data: bytes, tag: str) -> str:
        if (failure := next(failures, None)) is not None:
            raise failure
        return replace(key, data, tag)

    monkeypatch.setattr(store, "replace", replace_or_fail)
    with lock(store, after=0.2) as held:
        until(lambda: holder(store)["renewals"] >= 3)
        held.check()


def test_wait_queues_until_the_holder_is_done(store: LocalStore) -> None:
    order: list[str] = []

    def second() -> None:
        with lock(store, "second", after=30, wait=True):
            order.append("second begins")

    waiter = threading.Thread(target=second)
    with lock(store, "first", after=30):
        waiter.start()
        time.sleep(0.7)
        order.append("first ends")
    waiter.join(QUICKLY)
    assert order == ["first ends", "second begins"]


def test_who_waits_less_long_does_not_rob_who_renews_less_often(store: LocalStore) -> None:
    """Two runs may have been given different --take-over-after: the holder's must count too."""

    def impatient() -> None:
        with lock(store, "impatient", after=0.1, wait=True):
            pass

    waiter = threading.Thread(target=impatient)
    with lock(store, "patient", after=60) as patient:
        waiter.start()
        time.sleep(1.2)
        try:
            patient.check()
        finally:
            store.delete(KEY)
            waiter.join(QUICKLY)

"""One writer a lake, whoever dies, freezes or comes late."""

from __future__ import annotations

import json
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from schemas.errors import LakeLocked, LockLost
from tasks.localstore import LocalStore
from tasks.lock import KEY, LakeLock

QUICKLY = 5.0  # seconds within which "at once" must have happened on a busy machine

HOLDER = """
import sys, time
from tasks.lock import LakeLock
from tasks.localstore import LocalStore
with LakeLock(LocalStore(sys.argv[1]), "run-of-another-process", 60, wait=False):
    print("held", flush=True)
    time.sleep(60)
"""


@pytest.fixture
def store(tmp_path: Path) -> LocalStore:
    made = LocalStore(tmp_path / "lake")
    made.prepare()
    return made


def until(true: Callable[[], bool]) -> None:
    deadline = time.monotonic() + QUICKLY
    while not true():
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(0.02)


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

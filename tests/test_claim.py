"""One worker a shard, whoever dies, freezes or comes late; and the document that kills is found."""

from __future__ import annotations

import asyncio
import json
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from schemas.errors import ClaimHeld, ClaimLost
from schemas.records import Place
from tasks.claim import Claim
from tasks.localstore import LocalStore

QUICKLY = 10.0  # seconds within which "at once" must have happened on a busy machine
NAME = "run-00001"
KEY = f"_runs/run/claims/{NAME}"

WORKER = """
import asyncio, json, sys, time
from tasks.claim import Claim
from tasks.localstore import LocalStore

async def main(root, name, place):
    async with Claim(LocalStore(root), "run", name, "writer", 60) as claim:
        if claim.careful:
            claim.note(tuple(json.loads(place)))
        print(claim.taken_over, claim.careful, claim.fatal(), flush=True)
        time.sleep(60)

asyncio.run(main(*sys.argv[1:]))
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


def claim(store: LocalStore, writer: str = "writer", after: float = 60) -> Claim:
    return Claim(store, "run", NAME, writer, after)


@contextmanager
def holding(taken: Claim) -> Iterator[Claim]:
    """The claim, held: its context without a loop that runs all the time."""
    with asyncio.Runner() as runner:
        runner.run(taken.__aenter__())
        try:
            yield taken
        finally:
            runner.run(taken.__aexit__(None, None, None))


def holder(store: LocalStore) -> dict[str, Any]:
    return dict(json.loads(store.read(KEY)[0]))


def play_another_host(store: LocalStore, **changes: object) -> None:
    """Write the claim as a worker on another machine would."""
    told = {"writer": "writer", "host": "far-away", "boot": "x", "pid": 1, "pid_started": "then"}
    told |= {"since": "2026-01-01T00:00:00+00:00", "epoch": 7, "renewals": 0}
    store.put(KEY, json.dumps(told | changes).encode())


def play_the_dead(store: LocalStore, deaths: int, **noted: object) -> None:
    """Leave the claim of the last of so many workers that died on this machine."""
    boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    play_another_host(store, host=socket.gethostname(), boot=boot, epoch=deaths, **noted)


Start = Callable[[Place], tuple[subprocess.Popen[str], str]]


@pytest.fixture
def start(store: LocalStore) -> Iterator[Start]:
    """Starts a worker, another process of this host, and gives what it found in its claim."""
    started: list[subprocess.Popen[str]] = []

    def start(place: Place) -> tuple[subprocess.Popen[str], str]:
        process = subprocess.Popen(
            [sys.executable, "-c", WORKER, str(store.root), NAME, json.dumps(place)],
            stdout=subprocess.PIPE,
            text=True,
            cwd=Path(__file__).parent.parent,
        )
        started.append(process)
        assert process.stdout is not None
        return process, process.stdout.readline().strip()

    yield start
    for process in started:
        process.kill()
        process.communicate()


def test_a_second_worker_is_told_who_reads_the_shard(store: LocalStore) -> None:
    with holding(claim(store)) as first:
        with pytest.raises(ClaimHeld) as refused, holding(claim(store)):
            pass
        line = str(refused.value)
        assert NAME in line and socket.gethostname() in line and holder(store)["since"] in line
        assert len(line.splitlines()) == 1
        first.check()
        with holding(Claim(store, "run", "run-00002", "writer", 60)) as other:
            other.check()
        with holding(Claim(store, "another-run", NAME, "writer", 60)) as other:
            other.check()


def test_release_removes_the_claim_and_the_next_begins_anew(store: LocalStore) -> None:
    for _ in range(4):
        with holding(claim(store)) as held:
            held.check()
            held.note((3, 1))
            assert (held.taken_over, held.careful, held.fatal()) == (False, False, None)
        assert not store.exists(KEY)


def test_a_worker_that_fails_gives_the_claim_back(store: LocalStore) -> None:
    async def fail() -> None:
        async with claim(store):
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        asyncio.run(fail())
    assert not store.exists(KEY)


def test_a_document_that_kills_two_careful_workers_is_found(
    store: LocalStore, start: Start
) -> None:
    found = []
    for place in ((9, 9), (9, 9), (9, 9), (4, 2), (4, 2)):
        process, told = start(place)
        found.append(told)
        with pytest.raises(ClaimHeld, match=f"pid {process.pid}"), holding(claim(store)):
            pass
        process.send_signal(signal.SIGKILL)
        process.wait()
    careful = ["True True None"] * 3
    assert found == ["False False None", "True False None", *careful]
    began = time.monotonic()
    with holding(claim(store)) as held:
        assert time.monotonic() - began < QUICKLY
        held.check()
        assert (held.taken_over, held.careful, held.fatal()) == (True, True, (4, 2))


@pytest.mark.parametrize(
    ("deaths", "noted", "careful", "fatal"),
    [
        (1, {}, False, None),
        (1, {"place": [4, 2]}, False, None),
        (2, {}, True, None),
        (2, {"place": [4, 2]}, True, None),
        (3, {}, True, None),
        (3, {"place": [4, 2], "tries": 1}, True, None),
        (4, {"place": [0, 0], "tries": 2}, True, (0, 0)),
        (6, {"place": [4, 2], "tries": 2}, True, (4, 2)),
    ],
)
def test_only_two_careful_workers_that_had_begun_name_what_killed_them(
    store: LocalStore, deaths: int, noted: dict[str, Any], careful: bool, fatal: Place | None
) -> None:
    play_the_dead(store, deaths, **noted)
    with holding(claim(store)) as held:
        assert (held.taken_over, held.careful, held.fatal()) == (True, careful, fatal)
        assert holder(store)["epoch"] == deaths + 1


def test_a_worker_that_is_careful_says_what_it_reads_next(store: LocalStore) -> None:
    play_the_dead(store, 4, place=[1, 0], tries=2)
    with holding(claim(store, after=0.2)) as held:
        assert "place" not in holder(store), "what the dead one was reading is not ours"
        for place in ((1, 1), (2, 0)):
            held.note(place)
            assert (holder(store)["place"], holder(store)["tries"]) == (list(place), 1)
        until(lambda: holder(store)["renewals"] >= 3)
        assert holder(store)["place"] == [2, 0]
        held.check()
        assert held.fatal() == (1, 0)


def test_a_claim_under_another_writer_is_void_at_once_however_alive_its_worker(
    store: LocalStore,
) -> None:
    """Whoever took the lake over need not wait for those who may not write any more."""
    began = time.monotonic()
    with holding(claim(store, "before")) as before:
        with holding(claim(store, "after")) as after:
            assert holder(store)["writer"] == "after"
            after.check()
            assert after.taken_over
            for act in (before.check, lambda: before.note((0, 0))):
                with pytest.raises(ClaimLost, match=NAME):
                    act()
        assert not store.exists(KEY)
    play_another_host(store, writer="before")
    with holding(claim(store, "after")) as after:
        assert holder(store)["epoch"] == 8
        after.check()
    assert time.monotonic() - began < QUICKLY


def test_one_who_was_taken_over_does_no_more(store: LocalStore) -> None:
    with holding(claim(store)) as held:
        play_another_host(store)
        for act in (held.check, lambda: held.note((1, 0))):
            with pytest.raises(ClaimLost, match=NAME):
                act()
    assert holder(store)["host"] == "far-away", "the new holder's claim is not ours to remove"
    store.delete(KEY)
    with holding(claim(store)) as held:
        store.delete(KEY)
        for act in (held.check, lambda: held.note((1, 0))):
            with pytest.raises(ClaimLost, match=NAME):
                act()
    assert not store.exists(KEY)


def test_a_worker_elsewhere_that_shows_life_is_left_alone(store: LocalStore) -> None:
    play_another_host(store)
    refused = threading.Event()

    def renew() -> None:
        renewals = 0
        while not refused.wait(0.1):
            renewals += 1
            play_another_host(store, renewals=renewals)

    renewing = threading.Thread(target=renew)
    renewing.start()
    try:
        with pytest.raises(ClaimHeld, match="far-away"), holding(claim(store, after=30)):
            pass
    finally:
        refused.set()
        renewing.join()
    assert holder(store)["epoch"] == 7


def test_a_worker_elsewhere_that_is_silent_is_taken_over(store: LocalStore) -> None:
    play_another_host(store, epoch=1)
    began = time.monotonic()
    with holding(claim(store, after=0.4)) as held:
        assert time.monotonic() - began >= 0.4
        assert (held.taken_over, held.careful) == (True, False)
        held.check()


@pytest.mark.parametrize("deaths", [0, 2])
def test_one_of_eight_workers_gets_the_shard(store: LocalStore, deaths: int) -> None:
    if deaths:
        play_the_dead(store, deaths)
    all_tried = threading.Barrier(8)

    def try_it(_: int) -> int:
        try:
            with holding(claim(store)):
                all_tried.wait(QUICKLY)
                return int(holder(store)["epoch"])
        except ClaimHeld:
            all_tried.wait(QUICKLY)
            return 0

    with ThreadPoolExecutor(8) as pool:
        epochs = list(pool.map(try_it, range(8)))
    assert sorted(epochs) == [0] * 7 + [deaths + 1]

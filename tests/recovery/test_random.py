"""SIGKILL to the whole tree at moments drawn by chance, against S3 and in a folder."""

from __future__ import annotations

import os
import random
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.faultproxy import Call, Request
from tests.recovery.command import Command, Launcher
from tests.recovery.conftest import Calm, NewScene
from tests.recovery.contents import Contents
from tests.recovery.cycle import Cost, expect_pages_once, expect_recovery, expect_same
from tests.recovery.letters import PAGES, letters, read
from tests.recovery.pairs import Pairs, in_pairs
from tests.recovery.scene import OPTIONS
from tests.standin import Question, Said, StandIn, standing_in

SEEDS = range(40)
DELAY = 0.06  # seconds at most: another request mostly comes sooner


@pytest.fixture(scope="module")
def cycles(new_scene: NewScene, calm: Calm) -> Iterator[Pairs[int, Cost]]:
    def cycle(seed: int) -> Cost:
        dice = random.Random(f"moment {seed}")
        number, delay = dice.randint(1, calm.requests), dice.uniform(0, DELAY)
        with new_scene() as scene:
            came = 0

            def count(_: Request) -> None:
                nonlocal came
                came += 1
                if came == number:
                    threading.Timer(delay, lambda: command.kill()).start()

            scene.proxy.on(lambda _: True, Call(count, before=True), times=None)
            command = scene.start()
            ended = command.wait()
            scene.proxy.clear()
            assert ended.code in (-9, 3), ended
            return expect_recovery(scene, calm.contents, scene.ingest)

    with in_pairs(SEEDS, cycle) as pairs:
        yield pairs


@pytest.mark.parametrize("seed", SEEDS)
def test_killed_at_a_random_moment(
    seed: int, cycles: Pairs[int, Cost], record_property: Callable[[str, object], None]
) -> None:
    record_property("read_again", cycles.of(seed).read_again)


@pytest.mark.parametrize("seed", range(5))
def test_killed_while_it_writes_to_a_folder(seed: int, folder: Folder, tmp_path: Path) -> None:
    """Files appear by link and rename, not by conditional requests."""
    dice = random.Random(f"folder {seed}")
    number, delay = dice.randint(1, PAGES), dice.uniform(0, 4 * DELAY)
    lake = tmp_path / "lake"
    with standing_in(StandIn(slots=1)) as stand_in:

        def read_or_die(question: Question) -> Said:
            if len(stand_in.asked) == number:
                threading.Timer(delay, lambda: command.kill()).start()
            return read(question)

        stand_in.answer = read_or_die
        command = folder.ingest(stand_in, lake)
        assert command.wait().code in (-9, 3)
        expect_pages_once(Contents.of_folder(lake))
        for left in (lake / "_runs" / "tmp").iterdir():
            os.utime(left, (0, 0))  # it goes once it is old enough to be nobody's any more
        stand_in.answer = read
        assert folder.ingest(stand_in, lake).wait().code in (0, 3)
    expect_same(Contents.of_folder(lake), folder.calm)


class Folder:
    """The same documents on this machine, and the lake that an undisturbed run makes of them."""

    def __init__(self, launcher: Launcher, at: Path) -> None:
        self._launcher = launcher
        self.source = at / "source"
        for name, data in letters().items():
            (self.source / name).parent.mkdir(parents=True, exist_ok=True)
            (self.source / name).write_bytes(data)
        with standing_in(StandIn(answer=read, slots=1)) as stand_in:
            assert self.ingest(stand_in, at / "calm").wait().code == 3
        self.calm = Contents.of_folder(at / "calm")

    def ingest(self, stand_in: StandIn, lake: Path) -> Command:
        arguments = ["ingest", str(self.source), str(lake), "--engine-url", stand_in.url]
        return self._launcher.start("flows.cli", [*arguments, *OPTIONS], {})


@pytest.fixture(scope="module")
def folder(launcher: Launcher, tmp_path_factory: pytest.TempPathFactory) -> Folder:
    return Folder(launcher, tmp_path_factory.mktemp("folder"))

"""Two that write at once: without any right to, and after one was taken for dead and is not."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from functools import partial

import pytest

from tests.conftest import Ended
from tests.faultproxy import Call, Match, Request, deletes, puts
from tests.recovery.command import Command
from tests.recovery.conftest import Calm, NewScene
from tests.recovery.contents import Contents
from tests.recovery.cycle import expect_taken_over
from tests.recovery.letters import read, read_otherwise
from tests.recovery.pairs import Pairs, in_pairs
from tests.recovery.scene import IN_FLIGHT, PART_PAGES, Scene
from tests.standin import StandIn, standing_in

# -- two workers on each shard ---------------------------------------------------------------------


@pytest.mark.parametrize("part_pages", [PART_PAGES, 3])
def test_two_workers_on_the_same_shards(part_pages: int, new_scene: NewScene, calm: Calm) -> None:
    """One sees a figure more on each page, and may cut parts otherwise."""
    both = threading.Barrier(2, timeout=60)

    def meet(_: Request) -> None:
        both.wait()

    with new_scene() as scene, standing_in(StandIn(answer=read_otherwise)) as second:
        assert scene.kill_at(puts("/blocks/"), True, scene.start)
        assert any("/plan-00002" in key for key in scene.server.keys(scene.bucket))
        first_part = puts("/pages/.*-00001-0000[.]")
        scene.proxy.on(first_part, Call(meet, before=True), times=2)
        rivals = [rival(scene, scene.stand_in, PART_PAGES), rival(scene, second, part_pages)]
        for each in rivals:
            ended = each.wait()
            assert ended.code == 0, ended.err
        committed = [each.key for each in scene.proxy.requests if puts("/pages/")(each)]
        assert len(committed) > len(set(committed)), "somebody lost a race"
        assert scene.ingest().code == 0
        expect_same_words(scene.contents(), calm.contents)


def rival(scene: Scene, stand_in: StandIn, part_pages: int) -> Command:
    settings = {
        "source": scene.source,
        "dest": scene.lake,
        "engine_url": [stand_in.url],
        "text_layer": "ignore",
        "mode": "global",
        "processes": 1,
        "max_in_flight": IN_FLIGHT,
    }
    return scene.start_module("tests.recovery.rival", str(part_pages), json.dumps(settings))


def expect_same_words(contents: Contents, calm: Contents) -> None:
    """The same lake, but for the figures that one has seen and another has not."""
    assert contents.twice() == []
    assert contents.not_accounted_for() == set()
    assert contents.documents == calm.documents
    assert [row[:-1] for row in contents.pages] == [row[:-1] for row in calm.pages]


# -- one that wakes when another has taken over ----------------------------------------------------

STEPS: dict[str, tuple[Match, int]] = {
    "figure": (puts("/figures/"), 8),
    "blocks": (puts("/blocks/"), 2),
    "pages": (puts("/pages/"), 2),
    "documents": (puts("/documents/"), 1),
    "done": (puts("/done/"), 1),
    "last documents": (puts("/documents/"), 3),
    "summary": (puts("/summaries/"), 1),
    "lock gone": (deletes("_runs/lock$"), 1),
}
NOTHING_TO_COMMIT = ("last documents", "summary", "lock gone")


@pytest.fixture(scope="module")
def wakings(new_scene: NewScene, calm: Calm) -> Iterator[Pairs[str, Ended]]:
    def cycle(step: str) -> Ended:
        match, number = STEPS[step]
        with new_scene() as scene:
            scene.stand_in.answer = read_otherwise
            start = partial(scene.start, elsewhere=("far-away", 0))
            sleeper, wake = scene.freeze_at(match, start, number)
            scene.stand_in.answer = read
            ended = scene.ingest()
            assert ended.code in (0, 3), ended.err
            expect_same_words(before := scene.contents(), calm.contents)
            wake()
            woken = sleeper.wait()
            expect_same_words(after := scene.contents(), calm.contents)
            assert after.rows == before.rows
            return woken

    with in_pairs(list(STEPS), cycle) as pairs:
        yield pairs


@pytest.mark.parametrize("step", STEPS)
def test_a_run_that_wakes_after_it_was_taken_over(step: str, wakings: Pairs[str, Ended]) -> None:
    ended = wakings.of(step)
    if step in NOTHING_TO_COMMIT:
        assert ended.code == 3, ended.err
    else:
        expect_taken_over(ended)

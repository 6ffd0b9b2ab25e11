"""SIGKILL to the whole tree at each named step of `ingest`, before and after the store did it."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from tests.faultproxy import Match, deletes, puts
from tests.recovery.conftest import Calm, NewScene
from tests.recovery.cycle import Cost, expect_recovery, expect_same
from tests.recovery.letters import read, read_otherwise
from tests.recovery.pairs import Pairs, in_pairs
from tests.recovery.scene import first, renewing

Case = tuple[str, bool]

STEPS: dict[str, tuple[Match, int]] = {
    "probe": (puts("_runs/probe-"), 1),
    "probe gone": (deletes("_runs/probe-"), 1),
    "lake mark": (puts("_runs/lake.json"), 1),
    "lock": (first(puts("_runs/lock$")), 1),
    "plan": (puts("/plan-00001"), 1),
    "plan goes on": (puts("/plan-00002"), 1),
    "claim": (first(puts("/claims/")), 1),
    "figure": (puts("/figures/"), 8),
    "first blocks": (puts("/blocks/"), 1),
    "blocks": (puts("/blocks/"), 4),
    "first pages": (puts("/pages/"), 1),
    "pages": (puts("/pages/"), 4),
    "documents": (puts("/documents/"), 1),
    "last documents": (puts("/documents/"), 3),
    "done": (puts("/done/"), 1),
    "claim gone": (deletes("/claims/"), 1),
    "summary": (puts("/summaries/"), 1),
    "lock gone": (deletes("_runs/lock$"), 1),
    "lock renewal": (renewing(puts("_runs/lock$")), 1),
    "claim renewal": (renewing(puts("/claims/")), 1),
}
CASES = [(step, before) for step in STEPS for before in (True, False)]
IDS = [f"{'before' if before else 'after'} {step}" for step, before in CASES]


@pytest.fixture(scope="module")
def cycles(new_scene: NewScene, calm: Calm) -> Iterator[Pairs[Case, Cost]]:
    def cycle(case: Case) -> Cost:
        (match, number), before = STEPS[case[0]], case[1]
        with new_scene() as scene:
            assert scene.kill_at(match, before, scene.start, number)
            return expect_recovery(scene, calm.contents, scene.ingest)

    with in_pairs(CASES, cycle) as pairs:
        yield pairs


@pytest.mark.parametrize("case", CASES, ids=IDS)
def test_killed_at_a_step(
    case: Case, cycles: Pairs[Case, Cost], record_property: Callable[[str, object], None]
) -> None:
    record_property("read_again", cycles.of(case).read_again)


ORPHANS = {"blocks": deletes("/blocks/"), "figure": deletes("/figures/")}


@pytest.mark.parametrize("before", [True, False], ids=["before", "after"])
@pytest.mark.parametrize("orphan", ORPHANS)
def test_killed_when_orphans_are_removed(
    orphan: str, before: bool, new_scene: NewScene, calm: Calm
) -> None:
    """A first death leaves blocks that no part will name, as the model sees otherwise next time."""
    with new_scene() as scene:
        scene.stand_in.answer = read_otherwise
        assert scene.kill_at(puts("/pages/"), True, scene.start)
        scene.stand_in.answer = read
        assert scene.kill_at(ORPHANS[orphan], before, scene.start)
        ended = scene.ingest()
        assert ended.code in (0, 3), ended
        expect_same(scene.contents(), calm.contents)

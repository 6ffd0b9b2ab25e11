"""SIGKILL while `compact` and `forget` write a lake anew, at each kind of their writes."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.faultproxy import Match, deletes, puts
from tests.recovery.command import Command
from tests.recovery.conftest import Calm, NewScene
from tests.recovery.contents import Contents
from tests.recovery.cycle import expect_same
from tests.recovery.pairs import Pairs, in_pairs
from tests.recovery.scene import Scene, first, renewing
from tests.recovery.test_clocks import shown

Case = tuple[str, bool]

COMPACT: dict[str, Match] = {
    "begun": puts("/begun$"),
    "new blocks": puts("/blocks/"),
    "new pages": first(puts("/pages/")),
    "new documents": first(puts("/documents/")),
    "decision": puts("/decision$"),
    "no documents": renewing(puts("/documents/")),
    "no pages": renewing(puts("/pages/")),
    "blocks gone": deletes("/blocks/"),
    "emptied": puts("/emptied$"),
}
FORGET: dict[str, Match] = {
    "note": puts("/forgetting/"),
    "blocks": puts("/blocks/"),
    "pages": puts("/pages/"),
    "old blocks gone": deletes("/blocks/"),
    "figure gone": deletes("/figures/"),
    "documents": puts("/documents/"),
    "plan": puts("/plan-"),
    "note gone": deletes("/forgetting/"),
}
ROWS = "SELECT source_uri, page_number, text FROM pages ORDER BY ALL"


def cases(steps: dict[str, Match]) -> list[Case]:
    return [(step, before) for step in steps for before in (True, False)]


def told(case: Case) -> str:
    return f"{'before' if case[1] else 'after'} {case[0]}"


@pytest.fixture(scope="module")
def compactions(new_scene: NewScene, calm: Calm) -> Iterator[Pairs[Case, None]]:
    def cycle(case: Case) -> None:
        with new_scene() as scene:
            scene.fill(calm.contents)
            rows = shown(scene, ROWS)

            def compact() -> Command:
                return scene.start_module("flows.cli", "compact", scene.lake)

            assert scene.kill_at(COMPACT[case[0]], case[1], compact)
            assert shown(scene, ROWS) == rows, "nobody reads a row twice, or misses one"
            ended = compact().wait()
            assert ended.code == 0, ended.err
            contents = scene.contents()
            expect_same(contents, calm.contents)
            assert len(contents.parts()) == 1
            assert shown(scene, ROWS) == rows

    with in_pairs(cases(COMPACT), cycle) as pairs:
        yield pairs


@pytest.mark.parametrize("case", cases(COMPACT), ids=told)
def test_killed_while_it_compacts(case: Case, compactions: Pairs[Case, None]) -> None:
    compactions.of(case)


@pytest.fixture(scope="module")
def forgotten(new_scene: NewScene, calm: Calm) -> Contents:
    """The lake without its longest document, which stood in several parts."""
    with new_scene() as scene:
        scene.fill(calm.contents)
        ended = forget(scene).wait()
        assert ended.code == 0, ended.err
        contents = scene.contents()
    expect_same(contents, contents)
    assert len(contents.pages) == len(calm.contents.pages) - 12
    assert len(contents.documents) == len(calm.contents.documents) - 1
    return contents


def forget(scene: Scene) -> Command:
    return scene.start_module("flows.cli", "forget", scene.lake, f"{scene.source}b/1.pdf")


@pytest.fixture(scope="module")
def forgettings(
    new_scene: NewScene, calm: Calm, forgotten: Contents
) -> Iterator[Pairs[Case, None]]:
    def cycle(case: Case) -> None:
        with new_scene() as scene:
            scene.fill(calm.contents)
            assert scene.kill_at(FORGET[case[0]], case[1], lambda: forget(scene))
            ended = forget(scene).wait()
            assert ended.code == 0 or "nothing in" in ended.err, ended.err
            contents = scene.contents()
            expect_same(contents, forgotten)
            assert contents.mentions("b/1.pdf") == []

    with in_pairs(cases(FORGET), cycle) as pairs:
        yield pairs


@pytest.mark.parametrize("case", cases(FORGET), ids=told)
def test_killed_while_it_forgets(case: Case, forgettings: Pairs[Case, None]) -> None:
    forgettings.of(case)


@pytest.mark.parametrize("step", ["new pages", "decision", "no pages"])
def test_ingest_finishes_what_a_compaction_left(step: str, new_scene: NewScene, calm: Calm) -> None:
    with new_scene() as scene:
        scene.fill(calm.contents)

        def compact() -> Command:
            return scene.start_module("flows.cli", "compact", scene.lake)

        assert scene.kill_at(COMPACT[step], False, compact)
        assert scene.ingest().code == 0
        expect_same(scene.contents(), calm.contents)
        assert not scene.stand_in.asked

"""However a lake is written - by runs that die, freeze, wake, race and lose the store's answers, of
a source that changes under them - nobody ever reads a row twice, or misses one, or sees it change;
and once somebody finishes in peace, every page is there and nothing else.

The real `run_ingest`, `run_compact` and `run_forget` run here, in processes that are simulated.
`PAGELAKE_HISTORIES` says how many histories to try; one that fails is printed call by call.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from tests.madeup import Change, Content, Deadly, Gone, Troubled, Written, from_here
from tests.memorystore import Fate
from tests.simulation import in_simulation
from tests.world import Blow, World

HISTORIES = int(os.environ.get("PAGELAKE_HISTORIES", "40"))
MOST_MACHINES = 4

URIS = st.sampled_from(["/in/a.pdf", "/in/b.pdf", "/in/c.pdf", "/in/d.zip"])
CONTENTS = st.builds(Content, salt=st.integers(0, 3), pages=st.integers(0, 5))
ARCHIVES = st.builds(
    Content, salt=st.just(9), members=st.lists(CONTENTS, min_size=1, max_size=4).map(tuple)
)
PAGES = st.frozensets(st.tuples(st.integers(0, 3), st.integers(1, 5)), min_size=1)
CHANGES = st.one_of(
    st.builds(Written, uri=URIS, content=CONTENTS, same_version=st.booleans()),
    st.builds(Gone, uri=URIS),
    st.builds(Troubled, pages=PAGES),
    st.builds(Deadly, uri=URIS, times=st.integers(1, 4)),
)
COMMANDS = st.sampled_from(["ingest", "ingest", "retry", "compact", "forget"])
SKEWS = st.sampled_from([0, 3600, -3600])
HOSTS = st.sampled_from(["one", "two"])
AFTER = st.sampled_from([0, 1, 2, 3, 5, 8, 13, 21, 34, 55])
PICK = st.integers(0, 7)
FATES = st.sampled_from([*Fate, Fate.LOST])
STEPS = st.sampled_from(
    [
        *("put figures/", "put blocks/", "create pages/", "create documents/", "/done/"),
        *("/summaries/", "/claims/", "_runs/lock", "/plan-", "replace pages/"),
        *("replace documents/", "delete blocks/", "delete figures/"),
        *("/begun", "/decision", "/emptied", "/forgetting/"),
    ]
)
ANY_WRITE = st.tuples(st.just(""), st.integers(0, 15))
WRITES = st.one_of(ANY_WRITE, ANY_WRITE, st.tuples(STEPS, st.integers(0, 2)))
BLOWS = st.sampled_from([Blow.FREEZE, Blow.FREEZE, *Blow])


class Protocol(RuleBasedStateMachine):
    """A source, a lake and processes; the rules say what happens to them."""

    threads: ThreadPoolExecutor
    folder: Path

    def __init__(self) -> None:
        super().__init__()
        self.world: World | None = None

    @initialize(
        contents=st.lists(CONTENTS, min_size=1, max_size=3),
        archive=st.none() | ARCHIVES,
        part_pages=st.integers(1, 5),
        shard_documents=st.integers(1, 4),
        zombies_last=st.booleans(),
        compact_last=st.booleans(),
    )
    def begin(
        self,
        contents: list[Content],
        archive: Content | None,
        part_pages: int,
        shard_documents: int,
        zombies_last: bool,
        compact_last: bool,
    ) -> None:
        limits = {"part_pages": part_pages, "shard_documents": shard_documents}
        self.world = World(self.threads, self.folder, limits)
        self.at_the_end = zombies_last, compact_last
        for letter, content in zip("abc", contents, strict=False):
            self.world.source.put(f"/in/{letter}.pdf", content)
        if archive is not None:
            self.world.source.put("/in/d.zip", archive)
        self.world.ingest(False, 0, "one")

    @rule(after=AFTER, change=CHANGES)
    def the_source_changes(self, after: int, change: Change) -> None:
        self.world.go_on(after)
        change.apply(self.world.source)

    @precondition(lambda self: self.room())
    @rule(
        after=AFTER,
        change=st.none() | CHANGES,
        command=COMMANDS,
        uri=URIS,
        part_bytes=st.sampled_from([1, 2**14, 2**26]),
        skew=SKEWS,
        host=HOSTS,
        write=WRITES,
        blow=st.none() | BLOWS,
    )
    def another_begins(
        self,
        after: int,
        change: Change | None,
        command: str,
        uri: str,
        part_bytes: int,
        skew: int,
        host: str,
        write: tuple[str, int],
        blow: Blow | None,
    ) -> None:
        """And is struck, or one of the others is."""
        self.world.go_on(after)
        if change is not None:
            change.apply(self.world.source)
        if command == "compact":
            self.world.compact(part_bytes, host)
        elif command == "forget":
            self.world.forget(uri, host)
        else:
            self.world.ingest(command == "retry", skew, host)
        if blow is not None and (caught := self.world.until(*write)) is not None:
            self.world.strike(caught, blow)

    @precondition(lambda self: self.working())
    @rule(calls=st.integers(1, 200))
    def work_goes_on(self, calls: int) -> None:
        self.world.go_on(calls)

    @precondition(lambda self: not self.world.alive() and not self.world.bucket.late)
    @rule()
    def a_week_passes(self) -> None:
        self.world.pass_days(8)

    @precondition(lambda self: self.working())
    @rule(write=WRITES, blow=BLOWS)
    def one_is_struck(self, write: tuple[str, int], blow: Blow) -> None:
        if (caught := self.world.until(*write)) is not None:
            self.world.strike(caught, blow)

    @precondition(lambda self: self.working())
    @rule(after=AFTER, pick=PICK, blow=BLOWS)
    def any_is_struck(self, after: int, pick: int, blow: Blow) -> None:
        self.world.go_on(after)
        if waiting := self.world.waiting():
            self.world.strike(waiting[pick % len(waiting)], blow)

    @precondition(lambda self: any(machine.frozen for machine in self.world.machines))
    @rule(after=AFTER)
    def the_frozen_wake(self, after: int) -> None:
        self.world.go_on(after)
        self.world.wake()

    @precondition(lambda self: self.working())
    @rule(after=AFTER, pick=PICK)
    def one_is_told_to_stop(self, after: int, pick: int) -> None:
        self.world.go_on(after)
        if alive := self.world.alive():
            self.world.interrupt(alive[pick % len(alive)])

    @precondition(lambda self: self.working())
    @rule(after=AFTER, pick=PICK, fate=FATES, writes=st.booleans())
    def a_call_is_special(self, after: int, pick: int, fate: Fate, writes: bool) -> None:
        self.world.go_on(after)
        calls = [each for each in self.world.waiting() if each.call.writes or not writes]
        if calls:
            self.world.answer(calls[pick % len(calls)], fate)

    @precondition(lambda self: self.world.bucket.late)
    @rule(after=AFTER, pick=PICK)
    def a_late_call_lands(self, after: int, pick: int) -> None:
        self.world.go_on(after)
        if late := self.world.bucket.late:
            self.world.land(pick % len(late))

    @invariant()
    def readers_see_all_and_nothing_twice(self) -> None:
        if self.world is not None:
            self.world.readers.look()

    def teardown(self) -> None:
        if self.world is not None:
            try:
                if sys.exc_info()[0] is None:  # else it has failed already
                    self.world.finish(*self.at_the_end)
            finally:
                self.world.end()

    def working(self) -> bool:
        return any(not machine.frozen for machine in self.world.alive())

    def room(self) -> bool:
        return len(self.world.alive()) < MOST_MACHINES


@pytest.fixture
def protocol(tmp_path: Path) -> Iterator[type[Protocol]]:
    with pytest.MonkeyPatch.context() as patch, ThreadPoolExecutor(1000) as threads:
        in_simulation(patch)
        from_here(patch)
        Protocol.threads, Protocol.folder = threads, tmp_path
        yield Protocol


def test_any_history_ends_in_the_same_lake(protocol: Any) -> None:
    run_state_machine_as_test(
        protocol,
        settings=settings(
            max_examples=HISTORIES,
            stateful_step_count=20,
            deadline=None,
            suppress_health_check=list(HealthCheck),
            report_multiple_bugs=False,
            phases=(Phase.generate,) if "PAGELAKE_HUNT" in os.environ else tuple(Phase),
        ),
    )

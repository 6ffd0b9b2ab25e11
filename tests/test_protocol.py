"""However a lake is written - by runs that die, freeze, wake, race and lose the store's answers, of
a source that changes under them - nobody ever reads a row twice, or misses one, or sees it change;
and once somebody finishes in peace, every page is there and nothing else."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, note, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from flows.ingest import Outcome, run_ingest
from flows.upkeep import run_compact, run_forget
from schemas.errors import RunError, UsageError
from schemas.settings import CompactSettings, ForgetSettings, IngestSettings
from tasks.engines.choice import recipe_of
from tasks.progress import Tally
from tests.lakechecks import Readers
from tests.madeup import Content, Source, from_here
from tests.memorystore import Bucket, Fate, Killed
from tests.simulation import Machine, Turns, Waiting, in_simulation

HISTORIES = int(os.environ.get("PAGELAKE_HISTORIES", "100"))
MOST_MACHINES = 4
MOST_CALLS = 20_000

EXPECTED = (RunError, UsageError, Killed)
URIS = st.sampled_from(["/in/a.pdf", "/in/b.pdf", "/in/c.pdf", "/in/d.zip"])
CONTENTS = st.builds(Content, salt=st.integers(0, 3), pages=st.integers(0, 5))
ARCHIVES = st.builds(
    Content, salt=st.just(9), members=st.lists(CONTENTS, min_size=1, max_size=4).map(tuple)
)
HOSTS = st.sampled_from(["one", "two"])
AFTER = st.integers(0, 30)
PICK = st.integers(0, 7)
TROUBLES = st.sampled_from([Fate.LOST, Fate.LATE, Fate.UNKNOWN, Fate.FAILED])


class Quiet:
    def show(self, tally: Tally, pages_known: int) -> None:
        pass


class Protocol(RuleBasedStateMachine):
    """A source, a bucket and processes; the rules say what happens to them."""

    threads: ThreadPoolExecutor
    folder: Path
    source: Source

    def __init__(self) -> None:
        super().__init__()
        Protocol.source = Source(self.folder)
        self.bucket = Bucket()
        self.turns = Turns(self.threads)
        self.readers = Readers(self.bucket)
        self.machines: list[Machine] = []
        self.versions = 0
        self.unsure: set[str] = set()

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
        self.limits = {"part_pages": part_pages, "shard_documents": shard_documents}
        self.zombies_last, self.compact_last = zombies_last, compact_last
        for letter, content in zip("abc", contents, strict=False):
            self.source.put(f"/in/{letter}.pdf", content, "0")
        if archive is not None:
            self.source.put("/in/d.zip", archive, "0")
        self.ingest(False, 0, "one")

    # What happens to the source

    @rule(after=AFTER, uri=URIS, content=CONTENTS, same_version=st.booleans())
    def a_document_is_written(
        self, after: int, uri: str, content: Content, same_version: bool
    ) -> None:
        self.go_on(after)
        if uri.endswith(".zip"):
            content = Content(9, members=(content,))
        if same_version and uri in self.source.objects:
            self.unsure.add(uri)
            self.source.put(uri, content, self.source.objects[uri][1])
        else:
            self.versions += 1
            self.unsure.discard(uri)
            self.source.put(uri, content, str(self.versions))

    @rule(after=AFTER, uri=URIS)
    def a_document_goes(self, after: int, uri: str) -> None:
        self.go_on(after)
        self.source.objects.pop(uri, None)

    @rule(pages=st.sets(st.tuples(st.integers(0, 3), st.integers(1, 5))))
    def pages_fail_for_a_while(self, pages: set[tuple[int, int]]) -> None:
        self.source.troubled = pages

    @rule(uri=URIS, times=st.integers(1, 5))
    def a_document_kills(self, uri: str, times: int) -> None:
        self.source.deadly[uri] = times

    # What happens to processes

    @precondition(lambda self: self.alive() < MOST_MACHINES)
    @rule(
        retry_failed=st.booleans(),
        skew=st.sampled_from([0, 3600, -3600]),
        host=HOSTS,
    )
    def a_run_begins(self, retry_failed: bool, skew: int, host: str) -> None:
        self.ingest(retry_failed, skew, host)

    @precondition(lambda self: self.alive() < MOST_MACHINES)
    @rule(after=AFTER, part_bytes=st.sampled_from([1, 2**14, 2**26]), host=HOSTS)
    def a_compaction_begins(self, after: int, part_bytes: int, host: str) -> None:
        self.go_on(after)
        self.compact(part_bytes, host)

    @precondition(lambda self: self.alive() < MOST_MACHINES)
    @rule(after=AFTER, uri=URIS, host=HOSTS)
    def one_begins_to_forget(self, after: int, uri: str, host: str) -> None:
        self.go_on(after)
        self.readers.forgotten.add(uri)
        told = ForgetSettings(dest="memory://lake", take_over_after=5, uri=uri)
        self.process(lambda: run_forget(told), 0, host)

    @precondition(lambda self: not self.alive() and not self.bucket.late)
    @rule()
    def a_week_passes(self) -> None:
        self.turns.now += 8 * 86_400

    @rule(after=st.integers(1, 150))
    def work_goes_on(self, after: int) -> None:
        self.go_on(after)

    @rule(after=AFTER, pick=PICK)
    def one_dies(self, after: int, pick: int) -> None:
        self.go_on(after)
        if machine := self.picked(pick):
            note(f"    killed: {machine.name}")
            machine.kill()

    @rule(after=AFTER, pick=PICK)
    def one_freezes(self, after: int, pick: int) -> None:
        self.go_on(after)
        if machine := self.picked(pick):
            machine.frozen = True
            note(f"    frozen: {machine.name}")

    @rule(after=AFTER)
    def the_frozen_wake(self, after: int) -> None:
        self.go_on(after)
        for machine in self.machines:
            machine.frozen = False

    @rule(after=AFTER, pick=PICK)
    def one_is_told_to_stop(self, after: int, pick: int) -> None:
        self.go_on(after)
        if (machine := self.picked(pick)) and machine.interrupt is not None:
            note(f"    told to stop: {machine.name}")
            machine.interrupt()
            self.turns.settle()

    # What happens to calls of the store

    @rule(after=AFTER, pick=PICK, fate=TROUBLES)
    def a_call_has_trouble(self, after: int, pick: int, fate: Fate) -> None:
        self.go_on(after)
        self.answer(pick, fate)

    @rule(after=AFTER, pick=PICK, fate=TROUBLES)
    def a_write_has_trouble(self, after: int, pick: int, fate: Fate) -> None:
        self.go_on(after)
        if writes := [each for each in self.waiting() if each.call.writes]:
            self.answer(self.waiting().index(writes[pick % len(writes)]), fate)

    @rule(after=AFTER, pick=PICK)
    def a_call_is_quicker(self, after: int, pick: int) -> None:
        self.go_on(after)
        self.answer(pick, Fate.DONE)

    @precondition(lambda self: self.bucket.late)
    @rule(after=AFTER, pick=PICK)
    def a_late_call_lands(self, after: int, pick: int) -> None:
        self.go_on(after)
        if self.bucket.late:
            note(f"    landed: {self.bucket.land(pick % len(self.bucket.late))}")

    # What must hold

    @invariant()
    def readers_see_all_and_nothing_twice(self) -> None:
        self.readers.look()

    def teardown(self) -> None:
        try:
            if self.machines:
                self.finish()
        finally:
            for machine in self.machines:
                machine.kill()

    def finish(self) -> None:
        """Whatever happened, all is well once somebody finishes the work in peace."""
        while self.bucket.late:
            self.bucket.land(0)
        self.source.troubled, self.source.deadly = set(), {}
        if not self.zombies_last:
            self.the_frozen_wake(0)
        self.go_on(MOST_CALLS)
        note("    in peace:")
        self.in_peace(retry_failed=False)
        self.in_peace(retry_failed=True)
        self.the_frozen_wake(0)
        self.go_on(MOST_CALLS)
        note("    in peace:")
        self.in_peace(retry_failed=True)
        outcome = self.in_peace(retry_failed=False)
        assert outcome.summary["documents"] == 0, "a run with nothing to do did something"
        recipe_id = recipe_of(self.settings(False)).recipe_id
        self.readers.expect_complete(self.source, recipe_id, self.unsure)
        if self.compact_last:
            for _ in range(2):
                self.undisturbed(self.compact(2**26, "elsewhere"))
                self.readers.expect_complete(self.source, recipe_id, self.unsure)
                self.turns.now += 8 * 86_400

    def in_peace(self, retry_failed: bool) -> Outcome:
        outcome = self.undisturbed(self.ingest(retry_failed, 0, "elsewhere"))
        assert isinstance(outcome, Outcome)
        return outcome

    def undisturbed(self, machine: Machine) -> Any:
        self.go_on(MOST_CALLS)
        assert machine.ended, f"{machine.name} never ends"
        if machine.main.error is not None:
            raise machine.main.error
        return machine.main.result

    # How it is done

    def settings(self, retry_failed: bool) -> IngestSettings:
        return IngestSettings(
            source="/in",
            dest="memory://lake",
            engine="rapidocr",
            retry_failed=retry_failed,
            take_over_after=5,
            processes=1,
            max_in_flight=4,
            part_seconds=3,
            **self.limits,
        )

    def ingest(self, retry_failed: bool, skew: float, host: str) -> Machine:
        told = self.settings(retry_failed)
        return self.process(lambda: run_ingest(told, Quiet()), skew, host)

    def compact(self, part_bytes: int, host: str) -> Machine:
        told = CompactSettings(dest="memory://lake", take_over_after=5, part_bytes=part_bytes)
        return self.process(lambda: run_compact(told), 0, host)

    def process(self, work: Callable[[], Any], skew: float, host: str) -> Machine:
        name = f"m{len(self.machines)}"
        machine = Machine(self.turns, self.bucket, name, host, skew, self.machines, work)
        self.turns.settle()
        return machine

    def alive(self) -> int:
        return sum(not machine.ended for machine in self.machines)

    def picked(self, pick: int) -> Machine | None:
        there = [each for each in self.machines if not each.ended]
        return there[pick % len(there)] if there else None

    def waiting(self) -> list[Waiting]:
        return [each for each in self.turns.calls if not each.machine.frozen]

    def answer(self, pick: int, fate: Fate) -> bool:
        """Answer a call, or let time pass if nobody waits for an answer; False if all is quiet."""
        waiting = self.waiting()
        if not waiting:
            return self.turns.pass_time()
        picked = waiting[pick % len(waiting)]
        note(f"    {self.turns.now:7.1f}  {picked}{'' if fate is Fate.DONE else f'  ({fate.value})'}")
        self.turns.answer(picked, fate)
        self.bury()
        return True

    def go_on(self, calls: int) -> None:
        for _ in range(calls):
            if not any(not each.ended and not each.frozen for each in self.machines):
                return
            if not self.answer(0, Fate.DONE):
                return

    def bury(self) -> None:
        for machine in self.machines:
            if machine.dead and not machine.ended:
                machine.kill()
            if machine.main.ended and isinstance(machine.main.error, BaseException):
                assert isinstance(machine.main.error, EXPECTED), repr(machine.main.error)


@pytest.fixture
def protocol(tmp_path: Path) -> Iterator[type[Protocol]]:
    with pytest.MonkeyPatch.context() as patch, ThreadPoolExecutor(1000) as threads:
        in_simulation(patch)
        from_here(patch, lambda: Protocol.source)
        Protocol.threads, Protocol.folder = threads, tmp_path
        yield Protocol


def test_any_history_ends_in_the_same_lake(protocol: Any) -> None:
    run_state_machine_as_test(
        protocol,
        settings=settings(
            max_examples=HISTORIES,
            stateful_step_count=25,
            deadline=None,
            suppress_health_check=list(HealthCheck),
            report_multiple_bugs=False,
            phases=(Phase.generate,) if "PAGELAKE_HUNT" in os.environ else tuple(Phase),
        ),
    )

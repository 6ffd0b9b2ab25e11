"""A lake that processes write and others read: what they do, and what can happen to them."""

from __future__ import annotations

import json
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from enum import Enum
from pathlib import Path
from typing import Any

from hypothesis import note

from flows.ingest import Outcome, run_ingest
from flows.upkeep import run_compact, run_forget
from schemas.errors import RunError, UsageError
from schemas.settings import CompactSettings, ForgetSettings, IngestSettings
from tasks.engines.choice import recipe_of
from tasks.lock import KEY
from tasks.progress import Tally
from tests.lakechecks import Readers
from tests.madeup import SOURCE, Source
from tests.memorystore import Bucket, Call, Fate, Killed
from tests.simulation import Machine, Turns, Waiting

DEST = "memory://lake"
SILENCE = 2.0
"""Seconds after which somebody is believed dead: a few polls, and not too many renewals."""

MOST_CALLS = 20_000
SOON = 200


class Blow(Enum):
    """What can happen to a process at one call of the store."""

    FREEZE = "frozen before"
    DIE_BEFORE = "dead before"
    DIE_AFTER = "dead after"
    DIE_AND_LATE = "dead, and done later"
    FAIL = "failed"


class Quiet:
    """Shows nothing."""

    def show(self, tally: Tally, pages_known: int) -> None:
        pass


class World:
    """A source, a lake, and all the processes that ever worked on it.

    Args:
        threads: what the processes' threads are taken from.
        folder: where the source may put files.
        limits: settings of every run.
    """

    def __init__(self, threads: ThreadPoolExecutor, folder: Path, limits: dict[str, int]) -> None:
        self.source = Source(folder)
        self.bucket = Bucket()
        self.readers = Readers(self.bucket)
        self.machines: list[Machine] = []
        self._turns = Turns(threads)
        self._limits = limits

    def settings(self, retry_failed: bool) -> IngestSettings:
        return IngestSettings(
            source="/in",
            dest=DEST,
            engine="rapidocr",
            retry_failed=retry_failed,
            processes=1,
            max_in_flight=4,
            part_seconds=1,
            **self._limits,
        ).model_copy(update={"take_over_after": SILENCE})

    def ingest(self, retry_failed: bool, skew: float, host: str) -> Machine:
        told = self.settings(retry_failed)
        return self._process(lambda: run_ingest(told, Quiet()), skew, host)

    def compact(self, part_bytes: int, host: str) -> Machine:
        told = CompactSettings(dest=DEST, part_bytes=part_bytes)
        told = told.model_copy(update={"take_over_after": SILENCE})
        return self._process(lambda: run_compact(told), 0, host)

    def forget(self, uri: str, host: str) -> Machine:
        self.readers.forgotten.add(uri)
        told = ForgetSettings(dest=DEST, uri=uri).model_copy(update={"take_over_after": SILENCE})
        return self._process(lambda: run_forget(told), 0, host)

    def alive(self) -> list[Machine]:
        return [machine for machine in self.machines if not machine.ended]

    def waiting(self) -> list[Waiting]:
        """The calls that can be answered."""
        return [each for each in self._turns.calls if not each.machine.frozen]

    def go_on(self, calls: int) -> None:
        """Answer so many calls, the oldest first; less if all are done or frozen."""
        for _ in range(calls):
            if not any(not machine.frozen for machine in self.alive()) or not self.step():
                return

    def step(self) -> bool:
        """Answer the oldest call; if there is none let time pass. False if all is quiet."""
        if waiting := self.waiting():
            self.answer(waiting[0], Fate.DONE)
            return True
        return self._turns.pass_time()

    def until(self, step: str, times: int) -> Waiting | None:
        """Go on until somebody is about to write such a thing for the n-th time, from 0.

        Renewals do not count. None if nobody does so soon.
        """
        seen: list[Waiting] = []
        for _ in range(SOON):
            for each in self.waiting():
                if _is_telling(each.call) and step in str(each.call) and each not in seen:
                    seen.append(each)
                    if len(seen) > times:
                        return each
            if not any(not machine.frozen for machine in self.alive()) or not self.step():
                return None
        return None

    def answer(self, waiting: Waiting, fate: Fate) -> None:
        if fate is not Fate.DONE and fate is not Fate.LOST:
            self._note_litter(waiting.machine)
        told = "" if fate is Fate.DONE else f"  ({fate.value})"
        note(f"    {self._turns.now:7.1f}  {waiting}{told}")
        self._turns.answer(waiting, fate)
        for machine in self.machines:
            if machine.dead and not machine.ended:
                machine.kill()
            error = machine.main.error
            if error is not None and not isinstance(error, (RunError, UsageError, Killed)):
                raise error

    def strike(self, waiting: Waiting, blow: Blow) -> None:
        """Let something happen to a process at this call."""
        machine = waiting.machine
        note(f"    {blow.value}: {waiting}")
        self._note_litter(machine)
        if blow is Blow.FREEZE:
            machine.frozen = True
            return
        if blow is Blow.DIE_AFTER:
            self.answer(waiting, Fate.LOST)
        if blow is Blow.DIE_AND_LATE:
            self.answer(waiting, Fate.LATE)
        if blow is Blow.FAIL:
            self.answer(waiting, Fate.FAILED)
        else:
            machine.kill()

    def land(self, number: int) -> None:
        """What was late is done."""
        note(f"    landed: {self.bucket.land(number)}")
        self.readers.litter = True

    def wake(self) -> None:
        """All that are frozen go on."""
        for machine in self.machines:
            machine.frozen = False

    def interrupt(self, machine: Machine) -> None:
        """Ask a run to stop, as SIGTERM does."""
        if machine.interrupt is not None:
            note(f"    told to stop: {machine.name}")
            machine.interrupt()
            self._turns.settle()

    def pass_days(self, days: int) -> None:
        self._turns.now += days * 86_400

    def finish(self, zombies_last: bool, compact_last: bool) -> None:
        """Whatever happened, all is well once somebody finishes the work in peace."""
        while self.bucket.late:
            self.land(0)
        self.source.troubled, self.source.deadly = set(), {}
        if not zombies_last:
            self.wake()
        self.go_on(MOST_CALLS)
        self.in_peace(retry_failed=False)
        self.in_peace(retry_failed=True)
        self.wake()
        self.go_on(MOST_CALLS)
        self.in_peace(retry_failed=True)
        outcome = self.in_peace(retry_failed=False)
        assert outcome.summary["documents"] == 0, "a run with nothing to do did something"
        self._expect_complete()
        for _ in range(2 if compact_last else 0):
            self._undisturbed(self.compact(2**26, "elsewhere"))
            self._expect_complete()
            self.pass_days(8)

    def in_peace(self, retry_failed: bool) -> Outcome:
        note("    in peace:")
        outcome = self._undisturbed(self.ingest(retry_failed, 0, "elsewhere"))
        assert isinstance(outcome, Outcome)
        return outcome

    def end(self) -> None:
        for machine in self.machines:
            machine.kill()

    def _process(self, work: Callable[[], Any], skew: float, host: str) -> Machine:
        def main() -> Any:
            SOURCE.set(self.source)
            return work()

        name = f"m{len(self.machines)}"
        machine = Machine(self._turns, self.bucket, name, host, skew, self.machines, main)
        self._turns.settle()
        return machine

    def _note_litter(self, machine: Machine) -> None:
        """Of one who was taken over, and whom something happens to now, nobody tidies up."""
        lock = self.bucket.objects.get(KEY)
        if lock is None or json.loads(lock[0])["pid"] != machine.pid:
            self.readers.litter = True

    def _undisturbed(self, machine: Machine) -> Any:
        self.go_on(MOST_CALLS)
        assert machine.ended, f"{machine.name} never ends"
        if machine.main.error is not None:
            raise machine.main.error
        return machine.main.result

    def _expect_complete(self) -> None:
        recipe_id = recipe_of(self.settings(False)).recipe_id
        self.readers.expect_complete(self.source, recipe_id)


def _is_telling(call: Call) -> bool:
    """Whether it is a write, and not the renewal of a lease."""
    lease = call.key == KEY or "/claims/" in call.key
    return call.writes and not (lease and call.name == "replace")

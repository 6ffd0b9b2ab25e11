"""SIGKILL while `--retry-failed` mends a lake: failed pages where they stand, and documents that
could not be opened, whose old rows are replaced."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import partial

import pytest

from tests.faultproxy import Call, Match, Request, deletes, puts
from tests.recovery.command import Command
from tests.recovery.conftest import NewScene
from tests.recovery.contents import Contents
from tests.recovery.cycle import expect_same, expect_taken_over
from tests.recovery.letters import letters, page_of, read, read_otherwise
from tests.recovery.pairs import Pairs, in_pairs
from tests.recovery.scene import READ_AGAIN, Scene, filled, renewing
from tests.s3 import S3Server
from tests.standin import Question, Said

Case = tuple[str, bool]

CUT_OFF = {3, 5, 7, 14, 20}
"""Pages of documents in the first two shards, of members of an archive, in several parts."""

MOST_BYTES = 100_000

STEPS: dict[str, Match] = {
    "blocks": puts("/blocks/.*-0000[12]-"),
    "pages": renewing(puts("/pages/")),
    "old blocks gone": deletes("/blocks/"),
    "documents": renewing(puts("/documents/.*-00001[.]")),
    "replaced rows": renewing(puts("/documents/.*-00003[.]")),
    "done": puts("/done/mend-"),
}
CASES = [(step, before) for step in STEPS for before in (True, False)]
IDS = [f"{'before' if before else 'after'} {step}" for step, before in CASES]


def cut_off(question: Question) -> Said:
    """Some answers are too long, and see a figure that is not there the next time."""
    if page_of(question) in CUT_OFF:
        return replace(read_otherwise(question), finish_reason="length")
    return read(question)


@dataclass(frozen=True)
class Before:
    """A source, and a lake of it in which some pages have failed and a document was too large."""

    source: str
    failed: Contents

    def put_into(self, scene: Scene) -> None:
        """Make this the lake of a scene."""
        scene.source = self.source
        scene.fill(self.failed)


@pytest.fixture(scope="module")
def before(new_scene: NewScene, s3: S3Server) -> Before:
    documents = letters()
    documents["c/1.pdf"] += b"\n%" + b" " * MOST_BYTES
    source = filled(s3, documents)
    with new_scene() as scene:
        scene.source = source
        scene.stand_in.answer = cut_off
        ended = scene.ingest("--attempts", "1", "--max-document-bytes", str(MOST_BYTES))
        assert ended.code == 3
        assert ended.told["pages"]["failed"] == len(CUT_OFF), ended.err
        return Before(source, scene.contents())


@pytest.fixture(scope="module")
def mended(before: Before, new_scene: NewScene) -> Contents:
    """What a retry that nothing disturbs makes of it: only what is broken is still wrong."""
    with new_scene() as scene:
        before.put_into(scene)
        assert scene.ingest("--retry-failed").code == 3
        assert set(scene.asked()) == CUT_OFF | {29}
        contents = scene.contents()
    expect_same(contents, contents)
    assert {row[4] for row in before.failed.documents} == {
        None,
        "truncated",
        "too_large",
        "corrupt",
    }
    assert {row[4] for row in contents.documents} == {None, "corrupt"}
    return contents


@pytest.fixture(scope="module")
def cycles(new_scene: NewScene, before: Before, mended: Contents) -> Iterator[Pairs[Case, int]]:
    def cycle(case: Case) -> int:
        with new_scene() as scene:
            before.put_into(scene)

            def retry() -> Command:
                return scene.start("--retry-failed")

            assert scene.kill_at(STEPS[case[0]], case[1], retry)
            ended = retry().wait()
            assert ended.code == 3, ended
            expect_same(scene.contents(), mended)
            assert scene.read_again() <= READ_AGAIN
            return scene.read_again()

    with in_pairs(CASES, cycle) as pairs:
        yield pairs


@pytest.mark.parametrize("case", CASES, ids=IDS)
def test_killed_at_a_step_of_a_retry(case: Case, cycles: Pairs[Case, int]) -> None:
    cycles.of(case)


def test_two_jobs_that_change_the_same_rows(
    new_scene: NewScene, before: Before, mended: Contents
) -> None:
    """One mends documents of a shard, the other takes out of it what was read anew."""
    both = threading.Barrier(2, timeout=60)

    def meet(_: Request) -> None:
        both.wait()

    with new_scene() as scene:
        before.put_into(scene)
        match = renewing(puts("/documents/.*-00002[.]"))
        scene.proxy.on(match, Call(meet, before=True), times=2)
        ended = scene.ingest("--retry-failed")
        assert ended.code == 3, ended.err
        assert sum(map(match, scene.proxy.requests)) == 3, "one of them was refused, and came again"
        expect_same(scene.contents(), mended)


@pytest.mark.parametrize("step", ["blocks", "pages", "old blocks gone", "documents"])
def test_a_retry_that_wakes_after_it_was_taken_over(
    step: str, new_scene: NewScene, before: Before, mended: Contents
) -> None:
    """What it read of a page is not what the other read, and does not stay beside it."""
    with new_scene() as scene:
        before.put_into(scene)
        scene.stand_in.answer = read_otherwise
        start = partial(scene.start, "--retry-failed", elsewhere=("far-away", 0))
        sleeper, wake = scene.freeze_at(STEPS[step], start)
        scene.stand_in.answer = read
        ended = scene.ingest("--retry-failed")
        assert ended.code == 3, ended.err
        there = scene.contents()
        wake()
        expect_taken_over(sleeper.wait())
        contents = scene.contents()
    expect_same(contents, there)
    assert contents.documents == mended.documents

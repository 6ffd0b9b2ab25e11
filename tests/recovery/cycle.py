"""A death and what follows: the same command again, and the lake that an undisturbed run leaves."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass

from tests.conftest import Ended
from tests.recovery.contents import Contents
from tests.recovery.letters import page_of
from tests.recovery.scene import READ_AGAIN, Scene


@dataclass(frozen=True)
class Cost:
    """Pages that were asked about more than once, after how many that had been committed."""

    read_again: int
    committed: int


def expect_recovery(scene: Scene, calm: Contents, resume: Callable[[], Ended]) -> Cost:
    """Resume a run that was killed: the lake is as a calm run leaves it, and little was lost."""
    dead = scene.contents()
    expect_pages_once(dead)
    committed = letters_in(dead)
    before = len(scene.stand_in.asked)
    ended = resume()
    assert ended.code in (0, 3), ended
    expect_same(scene.contents(), calm)
    again = [page_of(question) for question in scene.stand_in.asked[before:]]
    assert committed.isdisjoint(again), "what is in the lake is not read again"
    cost = Cost(scene.read_again(), len(committed))
    assert cost.read_again <= READ_AGAIN
    return cost


def expect_same(contents: Contents, calm: Contents) -> None:
    """The same rows and figures, none twice, and nothing besides."""
    assert contents.twice() == []
    assert contents.not_accounted_for() == set()
    assert contents.rows == calm.rows
    assert contents.keys("figures/") == calm.keys("figures/")


def expect_pages_once(contents: Contents) -> None:
    """What holds at any moment, for whoever reads with a plain glob."""
    for rows, length in ((contents.pages, 2), (contents.documents, 1)):
        keys = [row[:length] for row in rows]
        assert len(keys) == len(set(keys))


def letters_in(contents: Contents) -> set[int]:
    """The numbers of the pages that a lake holds."""
    return {int(row[5].rpartition(" ")[2]) for row in contents.pages if row[5]}


def expect_taken_over(ended: Ended) -> None:
    """A run that was taken for dead ends with one line that says so."""
    assert ended.code == 1, ended
    assert "Traceback" not in ended.err
    last = ended.err.strip().splitlines()[-1]
    assert re.match("pagelake: .* (took the lake over|has taken over shard)", last), last

"""What a compaction says of itself, and what readers make of it.

A compaction writes the rows of many small shards anew as one shard of its own, and then empties the
old ones. Its notes stand in `_runs/compactions/<shard>/`:

    begun      written first: which shards, and when; without a decision the new files do not count
    decision   written once the new files are complete, or by whoever gives the compaction up:
               created only if absent, so that there is one. From here on, if it is to commit, the
               new files count and the merged shards do not
    emptied    the old files hold no rows any more

All three go after a week, with what is left of the old files or of a compaction given up. Until
then readers leave those files out: there is nothing in them but what a straggler may still write.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from datetime import date, datetime
from functools import partial
from typing import Any

from tasks.store import AlreadyExists, Store, keys

FOLDER = "_runs/compactions/"

_NOTES = ("begun", "decision", "emptied")
_READS_AT_ONCE = 16


@dataclass(frozen=True, slots=True)
class Overlay:
    """Shards whose files are there and do not count."""

    hidden: frozenset[str]

    def shows(self, shard_id: str) -> bool:
        """Whether a shard's files count."""
        return shard_id not in self.hidden


@dataclass(frozen=True, slots=True)
class Compaction:
    """One compaction: the shard that it writes, of which shards, all of one date, and when."""

    shard_id: str
    ingest_date: date
    merged: tuple[str, ...]
    time: datetime


def overlay(store: Store) -> Overlay:
    """What compactions hide from readers."""
    notes = noted(store)
    hidden = {shard_id for shard_id, names in notes.items() if "begun" in names and len(names) == 1}
    decided = [shard_id for shard_id, names in notes.items() if "decision" in names]
    with ThreadPoolExecutor(_READS_AT_ONCE, thread_name_prefix="notes") as pool:
        for found in pool.map(partial(_hidden_by, store), decided):
            hidden.update(found)
    return Overlay(frozenset(hidden))


def noted(store: Store) -> dict[str, set[str]]:
    """The names of the notes there are, by the shard that a compaction writes."""
    notes = defaultdict[str, set[str]](set)
    for key in keys(store, FOLDER):
        shard_id, _, name = key.removeprefix(FOLDER).partition("/")
        notes[shard_id].add(name)
    return dict(notes)


def begin(store: Store, compaction: Compaction) -> None:
    """Note that files of a new shard will be written, which do not count."""
    told = {
        "ingest_date": compaction.ingest_date.isoformat(),
        "merged": compaction.merged,
        "time": compaction.time.isoformat(),
    }
    store.create(_note(compaction.shard_id, "begun"), json.dumps(told).encode())


def read_begun(store: Store, shard_id: str) -> Compaction:
    """A compaction as it was begun.

    Raises:
        FileNotFoundError: it was not, or that is so long ago that its notes are being removed.
    """
    told = json.loads(store.read(_note(shard_id, "begun"))[0])
    return Compaction(
        shard_id,
        date.fromisoformat(told["ingest_date"]),
        tuple(told["merged"]),
        datetime.fromisoformat(told["time"]),
    )


def commit(store: Store, compaction: Compaction) -> bool:
    """Let the new shard count in place of the merged ones, unless the compaction was given up.

    Returns:
        Whether it counts: False if another writer was quicker in giving it up.
    """
    return _decide(store, compaction.shard_id, True, compaction.merged)


def give_up(store: Store, shard_id: str) -> bool:
    """See to it that a compaction never commits, unless it has; whether it has."""
    return _decide(store, shard_id, False, ())


def note_emptied(store: Store, shard_id: str) -> None:
    """The merged shards of a compaction hold no rows any more."""
    store.put(_note(shard_id, "emptied"), b"")


def remove_notes(store: Store, shard_id: str) -> None:
    """Forget a compaction of which nothing is left to hide.

    The first to go is the one that alone would hide the new shard.
    """
    for name in _NOTES:
        store.delete(_note(shard_id, name))


def _decide(store: Store, shard_id: str, commits: bool, merged: Iterable[str]) -> bool:
    """Whether the compaction commits, by this decision or the one that is there."""
    decision: dict[str, Any] = {"commit": commits, "merged": list(merged)}
    with suppress(AlreadyExists):
        store.create(_note(shard_id, "decision"), json.dumps(decision).encode())
        return commits
    return bool(_read_decision(store, shard_id)["commit"])


def _hidden_by(store: Store, shard_id: str) -> Iterable[str]:
    try:
        decision = _read_decision(store, shard_id)
    except FileNotFoundError:  # the last notes of it are being removed
        return ()
    merged: list[str] = decision["merged"]
    return merged if decision["commit"] else [shard_id]


def _read_decision(store: Store, shard_id: str) -> dict[str, Any]:
    told: dict[str, Any] = json.loads(store.read(_note(shard_id, "decision"))[0])
    return told


def _note(shard_id: str, name: str) -> str:
    return f"{FOLDER}{shard_id}/{name}"

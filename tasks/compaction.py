"""What a compaction says of itself while it is under way, and what readers make of it.

A compaction writes the rows of many small shards anew as one shard of its own, and then empties the
old ones. Its notes stand in `_runs/compactions/<shard>/`:

    begun      written first; without a decision the new files do not count
    decision   written once the new files are complete, or by whoever gives the compaction up:
               created only if absent, so that there is one. From here on, if it is to commit, the
               new files count and the merged shards do not
    emptied    the old files hold no rows any more: nothing is hidden now
"""

from __future__ import annotations

import json
from collections import defaultdict
from dataclasses import dataclass

from tasks.store import Store, keys

FOLDER = "_runs/compactions/"


@dataclass(frozen=True, slots=True)
class Overlay:
    """Shards whose files are there and do not count."""

    hidden: frozenset[str]

    def shows(self, shard_id: str) -> bool:
        """Whether a shard's files count."""
        return shard_id not in self.hidden


def overlay(store: Store) -> Overlay:
    """What compactions under way hide from readers."""
    notes = defaultdict[str, set[str]](set)
    for key in keys(store, FOLDER):
        shard_id, _, name = key.removeprefix(FOLDER).partition("/")
        notes[shard_id].add(name)
    hidden: set[str] = set()
    for shard_id, names in notes.items():
        if "emptied" in names:
            continue
        if "decision" not in names:
            hidden.add(shard_id)
            continue
        decision = json.loads(store.read(f"{FOLDER}{shard_id}/decision")[0])
        hidden.update(decision["merged"] if decision["commit"] else [shard_id])
    return Overlay(frozenset(hidden))

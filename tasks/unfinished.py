"""What runs that are not finished will still write to, once somebody goes on with them."""

from __future__ import annotations

from dataclasses import dataclass

from tasks.lakefiles import shard_of
from tasks.plan import read_segments
from tasks.runs import open_runs
from tasks.store import Store


@dataclass(frozen=True, slots=True)
class Unfinished:
    """Open runs, and the shards of others that they are to mend or to take rows out of."""

    runs: frozenset[str]
    shards: frozenset[str]

    def writes_to(self, shard_id: str) -> bool:
        """Whether one of them may still write to a shard's files."""
        return shard_id in self.shards or shard_id.rpartition("-")[0] in self.runs


def unfinished(store: Store) -> Unfinished:
    """What is unfinished in a lake, by the plans of its open runs."""
    runs = open_runs(store)
    shards: set[str] = set()
    for run_id in runs:
        for segment in read_segments(store, run_id):
            for job in segment.jobs:
                if job.mends:
                    shards.add(job.shard.shard_id)
                replaced = (document.replaces for document in job.shard.documents)
                shards.update(shard_of(key) for key in replaced if key is not None)
    return Unfinished(frozenset(runs), frozenset(shards))

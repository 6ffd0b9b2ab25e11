"""The runs of a lake: their ids, which of them are unfinished, and what the others have done.

A run is open from its first plan until it has a summary, `_runs/summaries/<run_id>.json`.
"""

from __future__ import annotations

import json
import secrets
from datetime import UTC, datetime, timedelta
from typing import Any

from tasks.store import Store, keys

_RUNS = "_runs"
_SUMMARIES = "_runs/summaries/"
_TIME = "%Y%m%dT%H%M%SZ"


def new_run_id(store: Store) -> str:
    """Sorts behind the runs before it, even if their machines' clocks were ahead of ours."""
    now = datetime.now(UTC)
    earlier = [_begun(run_id) for run_id in store.folders(_RUNS)]
    latest = max((begun for begun in earlier if begun is not None), default=now - timedelta(days=1))
    return f"{max(now, latest + timedelta(seconds=1)):{_TIME}}-{secrets.token_hex(3)}"


def open_runs(store: Store) -> list[str]:
    """Runs that were planned and never finished, oldest first."""
    closed = set(closed_runs(store))
    return [
        run_id
        for run_id in store.folders(_RUNS)
        if _begun(run_id) is not None
        and run_id not in closed
        and store.exists(f"{_RUNS}/{run_id}/plan-00001.json")
    ]


def closed_runs(store: Store) -> list[str]:
    """Runs that were finished, oldest first."""
    listed = (key.removeprefix(_SUMMARIES) for key in keys(store, _SUMMARIES))
    return sorted(name.removesuffix(".json") for name in listed)


def read_summary(store: Store, run_id: str) -> dict[str, Any]:
    """What a finished run has done, as `Tally.summary` tells it."""
    told: dict[str, Any] = json.loads(store.read(f"{_SUMMARIES}{run_id}.json")[0])
    return told


def write_summary(store: Store, run_id: str, summary: dict[str, Any]) -> None:
    """Close a run; claims of workers that died just when they were done go first."""
    for key in keys(store, f"{_RUNS}/{run_id}/claims/"):
        store.delete(key)
    store.put(f"{_SUMMARIES}{run_id}.json", json.dumps(summary, indent=1).encode())


def _begun(run_id: str) -> datetime | None:
    try:
        return datetime.strptime(run_id[:16], _TIME).replace(tzinfo=UTC)
    except ValueError:
        return None

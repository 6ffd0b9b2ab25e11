"""Where a source's address stands in a lake: in which shards, under which keys, in which plans."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass
from datetime import date
from typing import Any

import duckdb

from schemas.errors import LakeError
from schemas.tables import DOCUMENTS
from tasks.lakefiles import document_files
from tasks.plan import done_jobs, read_segments
from tasks.rows import storable
from tasks.runs import open_runs
from tasks.store import Store, keys

_MOST_NEAR = 3
_MOST_LETTERS = 3  # wrong, missing or too many

_RUNS = "_runs"


@dataclass(frozen=True, slots=True)
class Found:
    """Where an address stands: the ids of its documents by date and shard, and keys of plans.

    `rows` counts those ids that have a row in `documents`.
    """

    shards: Mapping[tuple[date, str], frozenset[str]]
    plans: tuple[str, ...]
    rows: int

    def __bool__(self) -> bool:
        return bool(self.shards or self.plans)


def is_of(uri: str, address: str) -> bool:
    """Whether an address is this one, or that of a member of the archive there."""
    address = storable(address)
    return address == uri or address.startswith(f"{uri}!/")


def find(store: Store, uri: str) -> Found:
    """Where an address stands, with the members of an archive.

    Plans are looked through too: they know the shard of a document that was read anew elsewhere
    and has no row there any more.
    """
    shards = defaultdict[tuple[date, str], set[str]](set)
    rows = _rows(store, uri)
    for day, shard_id, document_id in rows:
        shards[day, shard_id].add(document_id)
    plans = []
    for key, told in _plans(store):
        for shard, planned in _documents(told):
            if is_of(uri, planned["uri"]):
                day = date.fromisoformat(shard["ingest_date"])
                shards[day, shard["shard_id"]].add(planned["document_id"])
                plans.append(key)
    found = {place: frozenset(ids) for place, ids in shards.items()}
    return Found(found, tuple(dict.fromkeys(plans)), len(rows))


def near(store: Store, uri: str) -> list[str]:
    """Addresses of the lake that are spelt almost like this one, or end in the same name."""
    name = uri.rpartition("/")[2]
    with closing(_stored(store)) as db:
        rows = db.execute(
            "SELECT source_uri FROM (SELECT DISTINCT source_uri FROM stored) "
            "WHERE ends_with(source_uri, '/' || $2) OR CASE "
            "WHEN abs(length(source_uri) - length($1)) <= $3 "
            "THEN levenshtein(source_uri, $1) <= $3 ELSE false END "
            "ORDER BY levenshtein(source_uri, $1), 1 LIMIT $4",
            [uri, name, _MOST_LETTERS, _MOST_NEAR],
        ).fetchall()
    return [found for (found,) in rows]


def refuse_if_open(store: Store, uri: str) -> None:
    """Raise `LakeError` if an unfinished run would still read the document, or write its row."""
    for run_id in open_runs(store):
        done = done_jobs(store, run_id)
        for segment in read_segments(store, run_id):
            for job in segment.jobs:
                for planned in job.shard.documents if job.name not in done else ():
                    if is_of(uri, planned.uri) or is_of(storable(planned.uri), uri):
                        raise LakeError(
                            f"run {run_id} is unfinished and has {planned.uri} to read; run "
                            "`pagelake ingest` to finish it, then forget the document"
                        )


def blank_in_plan(uri: str) -> Callable[[bytes], bytes]:
    """The change that takes an address and its keys out of a plan, but not its place."""

    def change(data: bytes) -> bytes:
        told = json.loads(data)
        mine = [planned for _, planned in _documents(told) if is_of(uri, planned["uri"])]
        for planned in mine:
            planned.update(document_id="", uri="", version="")
        return json.dumps(told).encode() if mine else data

    return change


def _rows(store: Store, uri: str) -> list[tuple[date, str, str]]:
    with closing(_stored(store)) as db:
        return db.execute(
            "SELECT ingest_date, shard_id, document_id FROM stored "
            "WHERE source_uri = $1 OR starts_with(source_uri, $1 || '!/')",
            [uri],
        ).fetchall()


def _stored(store: Store) -> duckdb.DuckDBPyConnection:
    db = duckdb.connect()
    store.show(db, "stored", document_files(store), DOCUMENTS)
    return db


def _plans(store: Store) -> Iterator[tuple[str, dict[str, Any]]]:
    for run_id in store.folders(_RUNS):
        for key in keys(store, f"{_RUNS}/{run_id}/plan-"):
            yield key, json.loads(store.read(key)[0])


def _documents(told: dict[str, Any]) -> Iterator[tuple[dict[str, Any], dict[str, Any]]]:
    """The planned documents of a segment, each with its shard."""
    for job in told["jobs"]:
        for planned in job["shard"]["documents"]:
            yield job["shard"], planned

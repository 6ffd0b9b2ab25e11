"""What a run is to do, written down before it is done: shards of documents, in segments.

A segment is one object `_runs/<run_id>/plan-00001.json`, created only if absent, with the settings
that bind whoever works on it. Work starts at the first segment; a run that dies while planning has
planned less, and the next one lists again.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, replace
from datetime import date

from schemas.errors import LakeError
from schemas.records import PlannedDocument, Shard
from schemas.settings import IngestSettings, Recipe
from schemas.tables import SCHEMA_VERSION
from tasks.known import Stored, Todo
from tasks.shardlog import documents_key
from tasks.store import AlreadyExists, Store, keys

_SHARDS_A_SEGMENT = 20
_RUNS = "_runs"


@dataclass(frozen=True, slots=True)
class Job:
    """A shard to be read; with `mends`, documents of a finished shard to be read once more.

    A mending job's shard is the old one: `documents` are those that failed, and `ingest_date` and
    `shard_id` say where their rows are.
    """

    shard: Shard
    mends: bool

    @property
    def name(self) -> str:
        """Tells it from the other jobs of its run."""
        return f"{'mend-' if self.mends else ''}{self.shard.shard_id}"


@dataclass(frozen=True, slots=True)
class Segment:
    """Some jobs of a run, with what binds whoever does them."""

    run_id: str
    recipe: Recipe
    part_pages: int
    jobs: tuple[Job, ...]


def shards(
    todos: Iterable[Todo], run_id: str, today: date, most_documents: int, most_bytes: int
) -> Iterator[Job]:
    """Group documents into shards by count and bytes, as they come."""
    number = size = 0
    new: list[PlannedDocument] = []
    again: dict[Stored, list[PlannedDocument]] = {}
    for todo in todos:
        if todo.stored is not None and not todo.anew:
            again.setdefault(_shard_of(todo.stored), []).append(todo.document)
            continue
        new.append(_anew(todo.document, todo.stored))
        size += todo.document.size_bytes
        if len(new) >= most_documents or size >= most_bytes:
            number += 1
            yield Job(Shard(f"{run_id}-{number:05d}", run_id, today, tuple(new)), mends=False)
            new, size = [], 0
    if new:
        yield Job(Shard(f"{run_id}-{number + 1:05d}", run_id, today, tuple(new)), mends=False)
    for stored, documents in again.items():
        old = Shard(stored.shard_id, run_id, stored.ingest_date, tuple(documents))
        yield Job(old, mends=True)


def write_segments(
    store: Store, jobs: Iterable[Job], run_id: str, recipe: Recipe, settings: IngestSettings
) -> Iterator[Segment]:
    """Write the plan segment by segment; each is given as soon as it stands in the store."""
    number = 0
    group: list[Job] = []
    for job in jobs:
        group.append(job)
        # The first shard is a segment of its own, so that work starts while the rest is listed.
        if len(group) == (1 if number == 0 else _SHARDS_A_SEGMENT):
            number += 1
            yield _write(store, number, group, run_id, recipe, settings)
            group = []
    if group:
        yield _write(store, number + 1, group, run_id, recipe, settings)


def read_segments(store: Store, run_id: str) -> Iterator[Segment]:
    """The plan of a run, as it was written.

    Raises:
        LakeError: it was written by a later version.
    """
    for key in keys(store, f"{_RUNS}/{run_id}/plan-"):
        told = json.loads(store.read(key)[0])
        if told["schema_version"] != SCHEMA_VERSION:
            raise LakeError(
                f"run {run_id} was planned by another version of pagelake (lake schema "
                f"{told['schema_version']}, ours is {SCHEMA_VERSION}); finish it with that one"
            )
        yield _segment(told)


def done_jobs(store: Store, run_id: str) -> set[str]:
    """The names of the jobs of this run that have been finished."""
    prefix = f"{_RUNS}/{run_id}/done/"
    return {key.removeprefix(prefix) for key in keys(store, prefix)}


def mark_done(store: Store, run_id: str, job: Job) -> None:
    """Note that a job is finished: its documents rows stand."""
    store.put(f"{_RUNS}/{run_id}/done/{job.name}", b"")


def _anew(document: PlannedDocument, stored: Stored | None) -> PlannedDocument:
    if stored is None:
        return document
    old = Shard(stored.shard_id, stored.run_id, stored.ingest_date, ())
    return replace(document, replaces=documents_key(old))


def _shard_of(stored: Stored) -> Stored:
    return Stored("", stored.shard_id, "", stored.ingest_date)


def _write(
    store: Store,
    number: int,
    jobs: list[Job],
    run_id: str,
    recipe: Recipe,
    settings: IngestSettings,
) -> Segment:
    segment = Segment(
        run_id=run_id,
        recipe=recipe,
        part_pages=settings.part_pages,
        jobs=tuple(jobs),
    )
    told = asdict(segment)
    told["recipe"] = recipe.model_dump()
    told["schema_version"] = SCHEMA_VERSION
    data = json.dumps(told, default=date.isoformat).encode()
    key = f"{_RUNS}/{run_id}/plan-{number:05d}.json"
    try:
        store.create(key, data)
    except AlreadyExists:
        raise LakeError(f"{key} exists already; two runs cannot share an id, run again") from None
    return segment


def _segment(told: dict[str, object]) -> Segment:
    del told["schema_version"]
    recipe = Recipe.model_validate(told.pop("recipe"))
    jobs = told.pop("jobs")
    assert isinstance(jobs, list)
    return Segment(**told, recipe=recipe, jobs=tuple(_job(job) for job in jobs))  # type: ignore[arg-type]


def _job(told: dict[str, object]) -> Job:
    shard = told["shard"]
    assert isinstance(shard, dict)
    documents = tuple(PlannedDocument(**document) for document in shard.pop("documents"))
    shard["ingest_date"] = date.fromisoformat(shard["ingest_date"])
    return Job(Shard(**shard, documents=documents), mends=bool(told["mends"]))

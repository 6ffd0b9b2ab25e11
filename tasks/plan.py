"""What a run is to do, written down before it is done: shards of documents, in segments.

A segment is one object `_runs/<run_id>/plan-00001.json`, created only if absent, with the settings
that bind whoever works on it. Work starts at the first segment; a run that dies while planning has
planned less, and the next one lists again. A run is finished when it has a summary.
"""

from __future__ import annotations

import json
import secrets
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from datetime import UTC, date, datetime

from schemas.errors import LakeError
from schemas.records import PlannedDocument, Shard
from schemas.settings import IngestSettings, Recipe
from schemas.tables import SCHEMA_VERSION
from tasks.known import Stored, Todo
from tasks.store import AlreadyExists, LocalStore

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


@dataclass(frozen=True, slots=True)
class Segment:
    """Some jobs of a run, with what binds whoever does them."""

    run_id: str
    recipe: Recipe
    part_pages: int
    jobs: tuple[Job, ...]


def new_run_id() -> str:
    """Sorts by time; different on every machine."""
    return f"{datetime.now(UTC):%Y%m%dT%H%M%SZ}-{secrets.token_hex(3)}"


def shards(
    todos: Iterable[Todo], run_id: str, today: date, most_documents: int, most_bytes: int
) -> Iterator[Job]:
    """Group documents into shards by count and bytes, as they come."""
    number = size = 0
    new: list[PlannedDocument] = []
    again: dict[Stored, list[PlannedDocument]] = {}
    for todo in todos:
        if todo.stored is not None:
            again.setdefault(_shard_of(todo.stored), []).append(todo.document)
            continue
        new.append(todo.document)
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
    store: LocalStore, jobs: Iterable[Job], run_id: str, recipe: Recipe, settings: IngestSettings
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


def open_runs(store: LocalStore) -> list[str]:
    """Runs that were planned and never finished, oldest first."""
    return [
        run_id
        for run_id in store.folders(_RUNS)
        if run_id != "tmp"
        and not store.exists(f"{_RUNS}/{run_id}/summary.json")
        and store.exists(f"{_RUNS}/{run_id}/plan-00001.json")
    ]


def read_segments(store: LocalStore, run_id: str) -> Iterator[Segment]:
    """The plan of a run, as it was written.

    Raises:
        LakeError: it was written by a later version.
    """
    for key in store.keys(f"{_RUNS}/{run_id}"):
        if key.rpartition("/")[2].startswith("plan-"):
            told = json.loads(store.read(key)[0])
            if told["schema_version"] != SCHEMA_VERSION:
                raise LakeError(
                    f"run {run_id} was planned by another version of pagelake (lake schema "
                    f"{told['schema_version']}, ours is {SCHEMA_VERSION}); finish it with that one"
                )
            yield _segment(told)


def is_done(store: LocalStore, run_id: str, job: Job) -> bool:
    """Whether a job of this run has been finished."""
    return store.exists(_done_key(run_id, job))


def mark_done(store: LocalStore, run_id: str, job: Job) -> None:
    """Note that a job is finished: its documents rows stand."""
    store.put(_done_key(run_id, job), b"")


def write_summary(store: LocalStore, run_id: str, summary: dict[str, object]) -> None:
    """Close a run."""
    store.put(f"{_RUNS}/{run_id}/summary.json", json.dumps(summary, indent=1).encode())


def _done_key(run_id: str, job: Job) -> str:
    return f"{_RUNS}/{run_id}/done/{'mend-' if job.mends else ''}{job.shard.shard_id}"


def _shard_of(stored: Stored) -> Stored:
    return Stored("", stored.shard_id, "", stored.ingest_date)


def _write(
    store: LocalStore,
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

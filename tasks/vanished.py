"""Documents whose source is gone: `deleted_at` in their rows, and out of them again if it returns.

What is gone is judged by a listing that came to its end, and only among the addresses that such a
listing would have shown.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Iterator, Sequence
from datetime import UTC, datetime
from types import TracebackType

import duckdb
import pyarrow as pa
import pyarrow.compute as pc

from schemas.errors import LakeError
from schemas.records import SourceObject
from schemas.tables import DOCUMENTS
from tasks.discover import wanted
from tasks.lakefiles import document_files
from tasks.lock import LakeLock
from tasks.rows import parquet, storable
from tasks.store import Changed, Store, read_rows

_BATCH = 5_000
_SEEN = pa.schema([("uri", pa.string()), ("version", pa.string())])
# The address of a member's archive; of what is no member, the empty string.
_ARCHIVE = "regexp_extract(source_uri, '^(.*?)!/', 1)"
_GONE = f"""
CREATE TABLE gone AS SELECT DISTINCT source_uri FROM stored
WHERE starts_with(source_uri, ?) AND source_uri NOT IN (SELECT uri FROM seen)
AND source_uri NOT IN (
    SELECT source_uri FROM stored JOIN seen ON uri = {_ARCHIVE} AND version = source_version)
"""


class Seen:
    """The addresses that a listing gives, noted as they go by. A context manager."""

    def __init__(self) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="pagelake-")
        self.db = duckdb.connect(f"{self._folder.name}/seen.duckdb")
        self.db.execute("SET threads = 1; CREATE TABLE seen (uri VARCHAR, version VARCHAR)")
        self.complete = False
        """Whether the listing came to its end."""

    def noting(self, listing: Iterable[SourceObject]) -> Iterator[SourceObject]:
        """The listing, unchanged."""
        batch: list[tuple[str, str]] = []
        for found in listing:
            batch.append((storable(found.uri), found.version))
            if len(batch) == _BATCH:
                self._note(batch)
                batch = []
            yield found
        self._note(batch)
        self.complete = True

    def _note(self, batch: list[tuple[str, str]]) -> None:
        if batch:
            uris, versions = zip(*batch, strict=True)
            rows = pa.table([pa.array(uris), pa.array(versions)], schema=_SEEN)
            cursor = self.db.cursor()
            cursor.register("rows", rows)
            cursor.execute("INSERT INTO seen SELECT * FROM rows")

    def __enter__(self) -> Seen:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        at: TracebackType | None,
    ) -> None:
        self.db.close()
        self._folder.cleanup()


def mark_deleted(
    store: Store,
    lock: LakeLock,
    seen: Seen,
    below: str,
    include: Sequence[str],
    exclude: Sequence[str],
) -> int:
    """Note what is gone, and forget that of what is back; how many documents are newly noted.

    Args:
        below: what was listed: a folder or prefix, or the one object that is there.
        include: globs of the listing: what they would have left out is not judged.
        exclude: likewise.

    Raises:
        LakeError: an object was changed meanwhile.
    """
    db = seen.db
    listed = db.execute("SELECT 1 FROM seen WHERE uri = ?", [storable(below)]).fetchone()
    if not (listed or below.endswith("/")):
        below += "/"  # or what only begins alike would be judged, as docs2/ with docs
    store.show(db, "stored", document_files(store), DOCUMENTS)
    db.execute(_GONE, [storable(below)])
    if include or exclude:
        known = [uri for (uri,) in db.execute("SELECT source_uri FROM gone").fetchall()]
        hidden = [uri for uri in known if not wanted(uri[len(below) :], include, exclude)]
        db.execute("DELETE FROM gone WHERE source_uri IN (SELECT unnest(?))", [hidden])
    changed = db.execute(
        "SELECT ingest_date, shard_id, list(document_id) FILTER (deleted_at IS NULL), "
        "list(document_id) FILTER (deleted_at IS NOT NULL) FROM stored "
        "WHERE starts_with(source_uri, ?) "
        "AND (deleted_at IS NULL) = (source_uri IN (SELECT source_uri FROM gone)) GROUP BY 1, 2",
        [storable(below)],
    ).fetchall()
    for day, shard_id, gone, back in changed:
        lock.check()
        _rewrite(store, f"documents/ingest_date={day}/{shard_id}.parquet", gone or [], back or [])
    return sum(len(gone or []) for _, _, gone, _ in changed)


def _rewrite(store: Store, key: str, gone: list[str], back: list[str]) -> None:
    data, tag = store.read(key)
    rows = read_rows(data, DOCUMENTS)
    now = pa.scalar(datetime.now(UTC), pa.timestamp("us", tz="UTC"))
    never = pa.scalar(None, now.type)
    column = rows["deleted_at"]
    column = pc.if_else(pc.is_in(rows["document_id"], pa.array(gone, pa.string())), now, column)
    column = pc.if_else(pc.is_in(rows["document_id"], pa.array(back, pa.string())), never, column)
    at = rows.schema.get_field_index("deleted_at")
    try:
        store.replace(key, parquet(rows.set_column(at, DOCUMENTS.field(at), column)), tag)
    except Changed:
        raise LakeError(f"{key} was changed meanwhile; run the command again") from None

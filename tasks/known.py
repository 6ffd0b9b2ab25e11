"""What the lake already knows: its `documents` table in DuckDB, joined against a listing as it
streams by, out of core."""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import date
from types import TracebackType

import duckdb
import pyarrow as pa

from schemas.errors import TRANSIENT, PagelakeError
from schemas.records import PlannedDocument, SourceObject
from schemas.settings import document_id
from schemas.tables import DOCUMENTS
from tasks.lakefiles import document_files
from tasks.store import Store

MOST_RUNS = 3
"""So many runs try a document that fails for a reason which may pass."""

_BATCH = 5_000
_LISTED = pa.schema(
    [
        ("document_id", pa.string()),
        ("uri", pa.binary()),  # the name's own bytes: it need not be UTF-8
        ("version", pa.string()),
        ("size_bytes", pa.int64()),
    ]
)
_COLUMNS = (
    "document_id, source_uri, source_version, content_sha256, recipe_id, status, error_code, "
    "page_count, source_bytes, pages_failed, runs, run_id, shard_id, ingest_date, finished_at, "
    "map_contains(metadata, 'members') AS is_archive"
)
_MEMORY = "512MB"


@dataclass(frozen=True, slots=True)
class Stored:
    """Where the rows of a document are: the shard that wrote them, and the date in its paths."""

    document_id: str
    shard_id: str
    run_id: str
    ingest_date: date


@dataclass(frozen=True, slots=True)
class Todo:
    """A document to be read; `stored` if it has failed before.

    Its pages are then to be mended where they stand; if it has none (`anew`) it is read as if it
    were new, and its old row goes.
    """

    document: PlannedDocument
    stored: Stored | None
    anew: bool


@dataclass(frozen=True, slots=True)
class ReadSoFar:
    """Documents with pages, and their pages and bytes together."""

    documents: int
    pages: int
    size_bytes: int


class KnownDocuments:
    """An index over the lake's documents, as a context manager; it never changes after it is made.

    Several rows of one document_id can stand in the lake only while a run is being resumed; the
    newest counts.
    """

    def __init__(self, store: Store) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="pagelake-")
        self._db = duckdb.connect(f"{self._folder.name}/known.duckdb")
        self._db.execute(f"SET threads = 1; SET memory_limit = '{_MEMORY}'")
        store.show(self._db, "stored", document_files(store), DOCUMENTS)
        self._db.execute(f"CREATE TABLE known AS SELECT {_COLUMNS} FROM stored")
        self._indexed = False

    def __enter__(self) -> KnownDocuments:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        at: TracebackType | None,
    ) -> None:
        self._db.close()
        self._folder.cleanup()

    def newest_recipe(self) -> str | None:
        """The recipe of the document that was finished last; None in an empty lake."""
        row = self._db.execute(
            "SELECT recipe_id FROM known ORDER BY run_id DESC, finished_at DESC LIMIT 1"
        ).fetchone()
        return row[0] if row else None

    def pages_of_other_recipes(self, recipe_id: str) -> int:
        """Pages that the lake holds by other recipes only: what a new recipe would read again."""
        row = self._db.execute(
            "SELECT coalesce(sum(page_count), 0) FROM (SELECT page_count FROM known WHERE "
            "source_uri NOT IN (SELECT source_uri FROM known WHERE recipe_id = ?) "
            "QUALIFY row_number() OVER (PARTITION BY source_uri ORDER BY run_id DESC) = 1)",
            [recipe_id],
        ).fetchone()
        assert row is not None
        return int(row[0])

    def read_so_far(self) -> ReadSoFar | None:
        """What the lake's documents amount to; None if none has pages."""
        row = self._db.execute(
            "SELECT count(*), sum(page_count), sum(source_bytes) FROM known WHERE page_count > 0"
        ).fetchone()
        return ReadSoFar(*map(int, row)) if row and row[0] else None

    def same_bytes(self, content_sha256: str, recipe_id: str) -> Stored | None:
        """A document with this content that was read well under this recipe."""
        if not self._indexed:  # only a run that reads something needs it
            self._db.execute("CREATE INDEX by_content ON known (content_sha256)")
            self._indexed = True
        row = (
            self._db.cursor()
            .execute(
                "SELECT document_id, shard_id, run_id, ingest_date FROM known "
                "WHERE content_sha256 = ? AND recipe_id = ? AND status = 'ok' LIMIT 1",
                [content_sha256, recipe_id],
            )
            .fetchone()
        )
        return Stored(*row) if row else None

    def todo(
        self, listing: Iterable[SourceObject], recipe_id: str, retry_failed: bool
    ) -> Iterator[Todo]:
        """What of a listing is to be read, as a stream in the listing's order.

        New objects and new versions; and what failed: for a reason that may pass, in at most
        `MOST_RUNS` runs, or with `retry_failed` for any reason.
        """
        failed: list[PagelakeError] = []
        batches = _batches(_noting(listing, failed), recipe_id)
        reader = pa.RecordBatchReader.from_batches(_LISTED, batches)
        codes = ", ".join(f"'{code}'" for code in sorted(TRANSIENT))
        again = (
            "status <> 'ok'"
            if retry_failed
            else f"status <> 'ok' AND runs < {MOST_RUNS} AND error_code IN ({codes})"
        )
        cursor = self._db.cursor()
        cursor.register("listing", reader)
        try:
            found = cursor.sql(
                "SELECT l.document_id, l.uri, l.version, l.size_bytes, k.shard_id, k.run_id, "
                "k.ingest_date, coalesce(k.runs, 0) AS runs, "
                "k.document_id IS NULL OR (k.page_count = 0 AND NOT k.is_archive) AS anew "
                "FROM listing l LEFT JOIN known k USING (document_id) "
                f"WHERE k.document_id IS NULL OR ({again})"
            ).to_arrow_reader(_BATCH)
            for batch in found:
                for row in batch.to_pylist():
                    document = PlannedDocument(
                        document_id=row["document_id"],
                        uri=row["uri"].decode("utf-8", "surrogateescape"),
                        version=row["version"],
                        size_bytes=row["size_bytes"],
                        runs=row["runs"],
                    )
                    stored = None
                    if row["shard_id"] is not None:
                        stored = Stored(
                            row["document_id"], row["shard_id"], row["run_id"], row["ingest_date"]
                        )
                    yield Todo(document, stored, row["anew"])
        except duckdb.Error:
            if failed:  # DuckDB hides what ended the listing
                raise failed[0] from None
            raise


def _noting(listing: Iterable[SourceObject], failed: list[PagelakeError]) -> Iterator[SourceObject]:
    try:
        yield from listing
    except PagelakeError as error:
        failed.append(error)
        raise


def _batches(listing: Iterable[SourceObject], recipe_id: str) -> Iterator[pa.RecordBatch]:
    rows: list[tuple[str, bytes, str, int]] = []
    for found in listing:
        key = document_id(found.uri, found.version, recipe_id)
        uri = found.uri.encode("utf-8", "surrogateescape")
        rows.append((key, uri, found.version, found.size_bytes))
        if len(rows) == _BATCH:
            yield _batch(rows)
            rows = []
    if rows:
        yield _batch(rows)


def _batch(rows: list[tuple[str, bytes, str, int]]) -> pa.RecordBatch:
    columns = zip(*rows, strict=True)
    return pa.record_batch(
        [pa.array(column, field.type) for column, field in zip(columns, _LISTED, strict=True)],
        schema=_LISTED,
    )

"""The lake through DuckDB: views over one list of files, so that no row is seen twice."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import duckdb

from schemas.errors import LakeError, UsageError
from schemas.tables import BLOCKS, DOCUMENTS, PAGES
from tasks import lock
from tasks.lakefiles import LakeFiles, lake_files
from tasks.runs import open_runs
from tasks.store import Store
from tasks.stores import open_lake

_TRIES = 5
_SCHEMAS = {"documents": DOCUMENTS, "pages": PAGES, "blocks": BLOCKS}

# A document being read shows its pages at once, unless an earlier version is there to be shown.
_VIEWS = """
CREATE VIEW documents AS SELECT * FROM documents_all
QUALIFY row_number() OVER (PARTITION BY source_uri ORDER BY run_id DESC, finished_at DESC) = 1;
CREATE VIEW pages AS SELECT * FROM pages_all
WHERE document_id IN (SELECT document_id FROM documents)
   OR source_uri NOT IN (SELECT source_uri FROM documents_all);
CREATE VIEW blocks AS SELECT * FROM blocks_all
WHERE document_id IN (SELECT document_id FROM pages);
"""


def connect(dest: str, storage_option: Sequence[str] = ()) -> duckdb.DuckDBPyConnection:
    """A connection with the views `documents`, `pages`, `blocks` and, with history, `…_all`.

    They show the lake as it is now. A compaction, a retry or `forget` that runs meanwhile can take
    files away under them: connect again after it.

    Raises:
        LakeError: `dest` is no lake.
    """
    store = open_lake(dest, storage_option)
    return _views(store, lake_files(store))


def run_query(
    dest: str, query: str, storage_option: Sequence[str] = ()
) -> tuple[list[str], list[tuple[Any, ...]]]:
    """Column names and rows of a query over the lake, as it was at one moment.

    Raises:
        UsageError: DuckDB does not understand the query.
        LakeError: `dest` is no lake, or was rewritten again and again while it was read.
    """
    store = open_lake(dest, storage_option)
    for _ in range(_TRIES):
        files = lake_files(store)
        failure: Exception | None = None
        try:
            with _views(store, files) as db:
                result = db.execute(query)
                answer = [column[0] for column in result.description or ()], result.fetchall()
        except (duckdb.Error, OSError) as error:
            failure = error
        if lake_files(store).holds(files):
            if failure is None:
                return answer
            raise UsageError(str(failure)) from None
    raise LakeError(f"{dest} is being rewritten; ask again when that has ended")


def _views(store: Store, files: LakeFiles) -> duckdb.DuckDBPyConnection:
    db = duckdb.connect()
    db.execute("SET TimeZone = 'UTC'")
    for table, schema in _SCHEMAS.items():
        store.show(db, f"{table}_all", files.keys(table), schema)
    db.execute(_VIEWS)
    return db


def lake_status(dest: str, storage_option: Sequence[str] = ()) -> dict[str, Any]:
    """What the lake holds, by the newest version of each document.

    Raises:
        LakeError: `dest` is no lake.
    """
    store = open_lake(dest, storage_option)
    with _views(store, lake_files(store)) as db:

        def counts(query: str) -> dict[str, int]:
            return {str(name): int(count) for name, count in db.execute(query).fetchall()}

        found = {
            "documents": counts("SELECT status, count(*) FROM documents GROUP BY 1 ORDER BY 1"),
            "pages": counts("SELECT status, count(*) FROM pages GROUP BY 1 ORDER BY 1"),
            "origins": counts(
                "SELECT coalesce(origin, 'unread'), count(*) FROM pages GROUP BY 1 ORDER BY 1"
            ),
            "failures": counts(
                "SELECT error_code, count(*) FROM (SELECT error_code FROM documents "
                "WHERE page_count = 0 UNION ALL SELECT error_code FROM pages) "
                "WHERE error_code IS NOT NULL GROUP BY 1 ORDER BY 2 DESC, 1"
            ),
            "recipes": counts("SELECT recipe_id, count(*) FROM documents GROUP BY 1 ORDER BY 1"),
        }
    return found | {"unfinished_runs": open_runs(store), "writer": _writer(store)}


def _writer(store: Store) -> dict[str, Any] | None:
    try:
        holder = json.loads(store.read(lock.KEY)[0])
    except FileNotFoundError:
        return None
    return {name: holder[name] for name in ("run_id", "host", "pid", "since")}

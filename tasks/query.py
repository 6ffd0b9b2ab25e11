"""The lake through DuckDB: views over one list of files, so that no row is seen twice."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa

from schemas.errors import LakeError, UsageError
from schemas.tables import BLOCKS, DOCUMENTS, PAGES
from tasks import lock, plan
from tasks.store import LocalStore

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


def connect(dest: str) -> duckdb.DuckDBPyConnection:
    """A connection with the views `documents`, `pages`, `blocks` and, with history, `…_all`.

    Raises:
        LakeError: `dest` is no lake.
    """
    if not (Path(dest) / "_runs").is_dir():
        raise LakeError(f"{dest} is no lake; `pagelake ingest SOURCE {dest}` makes one")
    store = LocalStore(dest)
    db = duckdb.connect()
    db.execute("SET TimeZone = 'UTC'")
    for table, schema in _SCHEMAS.items():
        # Blocks are listed after the pages that name them, so that no page is without its blocks.
        files = [store.path(key) for key in store.keys(table) if key.endswith(".parquet")]
        if files:
            listed = ", ".join("'" + file.replace("'", "''") + "'" for file in files)
            db.execute(
                f"CREATE VIEW {table}_all AS SELECT * FROM "
                f"read_parquet([{listed}], hive_partitioning = true, union_by_name = true)"
            )
        else:
            empty = schema.append(pa.field("ingest_date", pa.date32())).empty_table()
            db.execute(f"CREATE TABLE {table}_all AS SELECT * FROM empty")
            del empty
    db.execute(_VIEWS)
    return db


def run_query(dest: str, query: str) -> tuple[list[str], list[tuple[Any, ...]]]:
    """Column names and rows of a query over the lake.

    Raises:
        UsageError: DuckDB does not understand the query.
        LakeError: `dest` is no lake.
    """
    with connect(dest) as db:
        try:
            result = db.execute(query)
            return [column[0] for column in result.description or ()], result.fetchall()
        except duckdb.Error as error:
            raise UsageError(str(error)) from None


def lake_status(dest: str) -> dict[str, Any]:
    """What the lake holds, by the newest version of each document.

    Raises:
        LakeError: `dest` is no lake.
    """
    store = LocalStore(dest)
    with connect(dest) as db:

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
    return found | {"unfinished_runs": plan.open_runs(store), "writer": _writer(store)}


def _writer(store: LocalStore) -> dict[str, Any] | None:
    try:
        holder = json.loads(store.read(lock.KEY)[0])
    except FileNotFoundError:
        return None
    return {name: holder[name] for name in ("run_id", "host", "pid", "since")}

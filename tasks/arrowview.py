"""Parquet objects of any fsspec filesystem as a view in DuckDB, through pyarrow.

DuckDB's own extensions for object stores are downloads; pyarrow is there, and DuckDB hands its
projections and filters down to it.
"""

from __future__ import annotations

from collections.abc import Sequence

import duckdb
import fsspec
import pyarrow as pa
import pyarrow.dataset as ds
from pyarrow.fs import FSSpecHandler, PyFileSystem

_DAY = pa.schema([pa.field("ingest_date", pa.date32())])


def show_objects(
    db: duckdb.DuckDBPyConnection,
    name: str,
    paths: Sequence[str],
    schema: pa.Schema,
    fs: fsspec.AbstractFileSystem,
) -> None:
    """Make the view `name` over these objects, with `ingest_date` from their paths."""
    found = ds.dataset(
        list(paths),
        schema=pa.unify_schemas([schema.remove_metadata(), _DAY]),
        format="parquet",
        filesystem=PyFileSystem(FSSpecHandler(fs)),
        partitioning=ds.partitioning(_DAY, flavor="hive"),
    )
    db.register(name, found)

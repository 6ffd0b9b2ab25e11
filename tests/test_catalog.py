"""The command keeps an Iceberg catalog in step with the lake: new parts, retries, compactions."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
from pyiceberg.catalog import load_catalog

from tests.documents import write_pdf

QUICK = ("--layout", "none", "--processes", "1")


def rows(catalog: str, table: str, snapshot_id: int | None = None) -> pa.Table:
    lake = load_catalog("pagelake", type="sql", uri=catalog)
    return lake.load_table(f"pagelake.{table}").scan(snapshot_id=snapshot_id).to_arrow()


def snapshots(catalog: str) -> list[int]:
    """Of the table `pages`, oldest first."""
    lake = load_catalog("pagelake", type="sql", uri=catalog)
    return [each.snapshot_id for each in lake.load_table("pagelake.pages").snapshots()]


def test_engines_see_parts_retries_compactions_and_what_is_forgotten(
    tmp_path: Path, pagelake: Callable[..., Any]
) -> None:
    source, lake = tmp_path / "source", tmp_path / "lake"
    catalog = f"sqlite:///{tmp_path}/catalog.db"
    write_pdf(source / "one.pdf", 3)
    large = write_pdf(source / "two.pdf", 30)
    small = ("--max-document-bytes", str(large.stat().st_size - 1))

    ended = pagelake("ingest", source, lake, *QUICK, *small, "--catalog", catalog)
    assert ended.code == 3, ended.err
    assert rows(catalog, "pages").num_rows == 3
    assert sorted(rows(catalog, "documents")["status"].to_pylist()) == ["failed", "ok"]

    ended = pagelake(
        "ingest", source, lake, *QUICK, "--retry-failed", "--part-pages", "10", "--catalog", catalog
    )
    assert ended.code == 0, ended.err
    assert rows(catalog, "documents")["status"].to_pylist() == ["ok", "ok"]
    before = rows(catalog, "pages")
    assert before.num_rows == 33
    seen = snapshots(catalog)

    assert pagelake("ingest", source, lake, *QUICK, "--catalog", catalog).code == 0
    assert snapshots(catalog) == seen, "nothing was new, and yet there is a snapshot"

    ended = pagelake("compact", lake, "--json", "--catalog", catalog)
    assert ended.told["parts_after"] == 1 < ended.told["parts_before"]
    after = rows(catalog, "pages")
    assert len(snapshots(catalog)) == len(seen) + 1
    keys = [(name, "ascending") for name in ("document_id", "page_number")]
    same = [name for name in before.column_names if name != "shard_id"]
    assert after.select(same).sort_by(keys) == before.select(same).sort_by(keys)
    assert duckdb.sql("SELECT count(*) FROM after").fetchall() == [(33,)]

    assert pagelake("forget", lake, large, "--catalog", catalog).code == 0
    assert set(rows(catalog, "pages")["source_uri"].to_pylist()) == {str(source / "one.pdf")}


def test_a_catalog_that_is_not_there_is_told_and_the_lake_is_right(
    tmp_path: Path, pagelake: Callable[..., Any]
) -> None:
    write_pdf(tmp_path / "source" / "one.pdf", 1)
    lake = tmp_path / "lake"
    ended = pagelake("ingest", tmp_path / "source", lake, *QUICK, "--catalog", "nobody-knows-me")
    assert ended.code == 2
    assert "nobody-knows-me" in ended.err.strip().splitlines()[-1]
    assert "Traceback" not in ended.err
    assert pagelake("ingest", tmp_path / "source", lake, *QUICK, "--json").told["documents"] == 0

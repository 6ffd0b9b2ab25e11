"""The lake's promises, from outside: every page once, nothing twice, readable by everyone."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import duckdb
import pandas as pd
import polars as pl
import pyarrow.dataset as ds
import pyarrow.parquet as pq
import pytest

from schemas.tables import BLOCKS, DOCUMENTS, KINDS, PAGES
from tests.documents import write_pdf

TABLES = {"documents": DOCUMENTS, "pages": PAGES, "blocks": BLOCKS}


def rows(lake: Path, query: str) -> list[tuple[Any, ...]]:
    tables = {name: f"read_parquet('{lake}/{name}/*/*.parquet')" for name in TABLES}
    return duckdb.sql(query.format(**tables)).fetchall()


@pytest.fixture
def source(tmp_path: Path) -> Path:
    write_pdf(tmp_path / "source" / "a.pdf", 3, "Alder trees stand along the river in the valley.")
    write_pdf(tmp_path / "source" / "b.pdf", 2, "Birch bark was used for boats and for baskets.")
    return tmp_path / "source"


def test_rows_of_pages_equal_the_sum_of_page_counts(sample_lake: Path) -> None:
    counted = rows(sample_lake, "SELECT sum(page_count)::INT FROM {documents}")
    assert counted == rows(sample_lake, "SELECT count(*) FROM {pages}") == [(62,)]
    doubled = "SELECT 1 FROM {pages} GROUP BY document_id, page_number HAVING count(*) > 1"
    assert rows(sample_lake, doubled) == []


def test_every_box_lies_inside_its_page(sample_lake: Path, sample_lake_by_engine: Path) -> None:
    for lake in (sample_lake, sample_lake_by_engine):
        told = rows(
            lake,
            "SELECT count(*), count(*) FILTER (x0 >= 0 AND y0 >= 0 AND x0 < x1 AND y0 < y1 "
            "AND x1 <= width_pt AND y1 <= height_pt) "
            "FROM {blocks} JOIN {pages} USING (document_id, page_number)",
        )
        ((blocks, inside),) = told
        assert blocks == inside > 300


def test_kinds_and_keys_of_blocks(sample_lake: Path) -> None:
    kinds = {kind for (kind,) in rows(sample_lake, "SELECT DISTINCT kind FROM {blocks}")}
    assert kinds <= set(KINDS)
    assert {"section_header", "text", "list_item", "table", "figure", "caption"} <= kinds
    gaps = (
        "SELECT 1 FROM {blocks} GROUP BY document_id, page_number "
        "HAVING count(*) <> max(block_number) OR count(DISTINCT block_number) <> count(*)"
    )
    assert rows(sample_lake, gaps) == []


@pytest.mark.parametrize("table", TABLES)
def test_duckdb_polars_pandas_and_pyarrow_read_the_same(sample_lake: Path, table: str) -> None:
    glob = f"{sample_lake}/{table}/*/*.parquet"
    ((by_duckdb,),) = duckdb.sql(f"SELECT count(*) FROM '{glob}'").fetchall()
    by_polars = pl.scan_parquet(glob, hive_partitioning=True).collect()
    by_pandas = pd.read_parquet(sample_lake / table)
    by_pyarrow = ds.dataset(sample_lake / table, partitioning="hive").to_table()
    assert by_duckdb == by_polars.height == len(by_pandas) == by_pyarrow.num_rows > 0
    names = [*TABLES[table].names, "ingest_date"]
    assert by_polars.columns == list(by_pandas.columns) == by_pyarrow.column_names == names


def test_files_describe_themselves(sample_lake: Path) -> None:
    for table, schema in TABLES.items():
        for path in (sample_lake / table).rglob("*.parquet"):
            stored = pq.read_schema(path)
            assert stored.metadata[b"pagelake.schema_version"] == b"1"
            assert stored.field(0).metadata[b"description"]
            assert stored.equals(schema)
            assert pq.ParquetFile(path).metadata.row_group(0).column(0).compression == "ZSTD"
    strays = list((sample_lake / "_runs").rglob("*.parquet"))
    assert strays == []


def test_a_second_run_reads_nothing(sample_lake: Path, pagelake: Callable[..., Any]) -> None:
    before = sorted(path for path in sample_lake.rglob("*.parquet"))
    ended = pagelake("ingest", "sample_docs", sample_lake, "--json", timeout=30)
    assert (ended.code, ended.told["documents"], ended.told["pages"]["total"]) == (0, 0, 0)
    assert ended.told["seconds"] < 3
    assert sorted(path for path in sample_lake.rglob("*.parquet")) == before


def test_a_changed_file_becomes_a_new_version(
    source: Path, tmp_path: Path, pagelake: Callable[..., Any]
) -> None:
    lake = tmp_path / "lake"
    assert pagelake("ingest", source, lake, "--layout", "none").code == 0
    write_pdf(source / "a.pdf", 1, "Ash was planted where the alders had been felled.")
    ended = pagelake("ingest", source, lake, "--layout", "none", "--json")
    assert (ended.told["documents"], ended.told["pages"]["total"]) == (1, 1)
    assert rows(lake, "SELECT count(*) FROM {documents}") == [(3,)]
    newest = pagelake("sql", lake, "SELECT text FROM pages ORDER BY ALL", "--format", "csv")
    assert "Ash was planted" in newest.out
    assert "Alder trees" not in newest.out
    history = pagelake("sql", lake, "SELECT count(*) FROM pages_all", "--format", "csv")
    assert history.out.split() == ["count_star()", "6"]


def test_the_same_bytes_are_read_once(
    source: Path, tmp_path: Path, pagelake: Callable[..., Any]
) -> None:
    lake = tmp_path / "lake"
    (source / "c.pdf").write_bytes((source / "a.pdf").read_bytes())
    first = pagelake("ingest", source, lake, "--layout", "none", "--json")
    assert (first.code, first.told["documents"], first.told["pages_copied"]) == (0, 3, 3)
    (source / "sub").mkdir()
    (source / "sub" / "d.pdf").write_bytes((source / "b.pdf").read_bytes())
    os.utime(source / "a.pdf")
    again = pagelake("ingest", source, lake, "--layout", "none", "--json")
    assert (again.told["documents"], again.told["pages_copied"]) == (2, 5)
    texts = "SELECT DISTINCT list(text ORDER BY page_number) FROM {pages} GROUP BY document_id"
    assert len(rows(lake, texts)) == 2
    assert rows(lake, "SELECT count(*) FROM {pages}") == [(13,)]


def test_figures_and_links_of_a_copy_are_its_own(
    tmp_path: Path, pagelake: Callable[..., Any]
) -> None:
    source, lake = tmp_path / "source", tmp_path / "lake"
    source.mkdir()
    for name in ("one.pdf", "two.pdf"):
        (source / name).write_bytes(Path("sample_docs/report.pdf").read_bytes())
    ended = pagelake("ingest", source, lake, "--json")
    assert (ended.code, ended.told["pages_copied"]) == (0, 3)
    linked = rows(
        lake,
        "SELECT b.document_id, b.figure_uri, contains(p.markdown, b.figure_uri) FROM {blocks} b "
        "JOIN {pages} p USING (document_id, page_number) WHERE b.figure_uri IS NOT NULL",
    )
    assert len(linked) == 2
    for document_id, figure_uri, in_markdown in linked:
        assert in_markdown and figure_uri.split("/")[1] == document_id
        assert (lake / figure_uri).is_file()


def test_layout_none_gives_text_alone(
    source: Path, tmp_path: Path, pagelake: Callable[..., Any]
) -> None:
    lake = tmp_path / "lake"
    assert pagelake("ingest", source, lake, "--layout", "none").code == 0
    assert not (lake / "blocks").exists()
    told = rows(lake, "SELECT text FROM {pages} WHERE text LIKE 'Birch%page 2.' AND markdown = ''")
    assert len(told) == 1


def test_status_counts_what_the_lake_holds(sample_lake: Path, pagelake: Callable[..., Any]) -> None:
    told = pagelake("status", sample_lake, "--json").told
    assert told["documents"] == {"ok": 10}
    assert told["pages"] == {"ok": 62}
    assert told["origins"] == {"ocr": 10, "text_layer": 52}
    assert (told["unfinished_runs"], told["writer"]) == ([], None)


def test_plan_shows_and_does_nothing(
    source: Path, tmp_path: Path, pagelake: Callable[..., Any]
) -> None:
    lake = tmp_path / "lake"
    told = pagelake("plan", source, lake, "--json").told
    assert (told["listed"], told["new"], told["again"]) == (2, 2, 0)
    assert told["bytes"] == sum(path.stat().st_size for path in source.iterdir())
    assert not lake.exists()


def test_a_page_of_one_line_is_not_left_out_as_its_running_head(
    tmp_path: Path, pagelake: Callable[..., Any]
) -> None:
    lake = tmp_path / "lake"
    write_pdf(tmp_path / "source" / "line.pdf", 1, "Letter from the pier.")
    ended = pagelake("ingest", tmp_path / "source", lake, "--text-layer", "ignore", "--json")
    assert ended.told["pages"]["ok"] == 1
    assert rows(lake, "SELECT text FROM {pages}") == [("Letter from the pier. This is page 1.",)]

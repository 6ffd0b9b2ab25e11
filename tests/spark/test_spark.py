"""Spark reads the lake: its tables as they lie there, and the views of `pagelake sql` as Spark SQL.

Spark runs in a JVM of its own on this machine, in another time zone than the lake's. Reading a lake
in a bucket is not tried here: s3a:// wants jars (hadoop-aws) that come from no Python registry. To
Spark a bucket is one more Hadoop file system; the files are the same, and so is the SQL.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import time
from collections.abc import Iterator
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.parquet as pq
import pytest
from pyspark.sql import DataFrame, SparkSession

from schemas.tables import BLOCKS, DOCUMENTS, PAGES

ROOT = Path(__file__).resolve().parent.parent.parent
SAMPLES = ROOT / "sample_docs"

# The README shows this. `documents` has the newest version of each document; pages of one that is
# still being read show at once, unless an earlier version is there to be shown.
README = (Path(__file__).parents[2] / "README.md").read_text()
VIEWS = re.search(r"```sql\n(SET TIME ZONE .*?)```", README, re.DOTALL)[1]  # as people copy it

IN_EQUALS_OUT = "(select sum(page_count) from documents_all) = (select count(*) from pages_all)"

# Those of the README and of its kind, in words that DuckDB and Spark both understand.
QUERIES = [
    "select source_uri, page_number, left(text, 60) from pages order by 1, 2",
    "select kind, count(*) as blocks from blocks group by kind order by 2 desc, 1",
    "select status, error_code, count(*) as documents from documents group by 1, 2 order by 1, 2",
    "select source_uri from documents where deleted_at is null order by 1",
    f"select {IN_EQUALS_OUT} as same",
    "select d.ingest_date, d.metadata['title'] as title, count(*) as pages from pages p "
    "join documents d using (document_id) group by all order by all",
]

KEYS = {
    "documents": ["source_uri", "document_id"],
    "pages": ["document_id", "page_number"],
    "blocks": ["document_id", "page_number", "block_number"],
}
SCHEMAS = {"documents": DOCUMENTS, "pages": PAGES, "blocks": BLOCKS}
BY_DAY = pa.field("ingest_date", pa.date32())
EARLIER = date(2026, 1, 31)

Row = dict[str, Any]


@pytest.fixture(scope="module")
def spark(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SparkSession]:
    folder = tmp_path_factory.mktemp("spark")
    settings = {
        "spark.ui.enabled": "false",
        "spark.driver.memory": "1g",
        "spark.driver.host": "127.0.0.1",
        "spark.driver.bindAddress": "127.0.0.1",
        "spark.driver.extraJavaOptions": "-Duser.timezone=America/St_Johns",
        "spark.local.dir": str(folder / "local"),
        "spark.sql.warehouse.dir": str(folder / "warehouse"),
        "spark.sql.shuffle.partitions": "2",
    }
    builder = SparkSession.builder.master("local[2]")
    session = builder.config(map=settings).getOrCreate()
    yield session
    session.stop()


@pytest.fixture(scope="module")
def lake(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A lake of two days: a document that changed, two that fail, one of them gone since, and a run
    stopped in the midst of a new document and of a new version of a known one."""
    folder = tmp_path_factory.mktemp("lake")
    source, lake = folder / "in", folder / "lake"
    source.mkdir()

    def place(name: str, sample: str) -> None:
        (source / name).write_bytes((SAMPLES / sample).read_bytes())

    place("letter.pdf", "bericht.pdf")
    place("invoice.pdf", "invoice.pdf")
    place("notice.png", "notice-zh.png")
    (source / "broken.pdf").write_text("%PDF-1.7 of which nothing came after this")
    pagelake("ingest", source, lake, code=3)
    for table in SCHEMAS:
        (today,) = (lake / table).iterdir()
        today.rename(today.with_name(f"ingest_date={EARLIER}"))

    place("letter.pdf", "slides.pdf")
    (source / "gone.pdf").write_text("%PDF-1.7 of which nothing came after that")
    pagelake("ingest", source, lake, code=3)

    place("invoice.pdf", "report.pdf")
    place("manual.pdf", "manual.pdf")
    (source / "gone.pdf").unlink()
    all_but_one = str(3 + 40 - 1)  # whatever the order: pages of both, and neither is done
    pagelake("ingest", source, lake, "--mark-deleted", "--max-pages", all_but_one)
    return lake


@pytest.fixture(scope="module")
def finished(lake: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same lake when the run that was stopped has gone on to its end."""
    finished = Path(shutil.copytree(lake, tmp_path_factory.mktemp("finished") / "lake"))
    pagelake("ingest", lake.parent / "in", finished)
    return finished


@pytest.fixture(scope="module")
def views(spark: SparkSession, lake: Path) -> SparkSession:
    return reading(spark, lake)


def pagelake(*arguments: str | Path, code: int = 0) -> str:
    """What the command of the project's own environment prints."""
    done = subprocess.run(
        [ROOT / ".venv" / "bin" / "pagelake", *arguments],
        capture_output=True,
        text=True,
        timeout=300,
        cwd=ROOT,
        env={k: v for k, v in os.environ.items() if not k.startswith(("PREFECT_", "PYTHON"))},
    )
    assert done.returncode == code, done.stderr
    return done.stdout


def reading(spark: SparkSession, lake: Path) -> SparkSession:
    """A session with the README's views of this lake."""
    session = spark.newSession()
    for statement in VIEWS.replace("demo_lake", str(lake)).split(";"):
        if statement.strip():
            session.sql(statement)
    return session


def rows(table: pa.Table) -> list[Row]:
    return table.to_pylist(maps_as_pydicts="strict")


def by_key(found: list[Row], table: str) -> list[Row]:
    return sorted(found, key=lambda row: [row[name] for name in KEYS[table]])


def told(found: list[Row]) -> list[Row]:
    """Rows as `pagelake sql --format json` tells them."""
    return [json.loads(json.dumps(row, default=str)) for row in found]


def by_duckdb(lake: Path, query: str) -> list[Row]:
    printed = pagelake("sql", lake, query, "--format", "json")
    return [json.loads(line) for line in printed.splitlines()]


def by_pyarrow(lake: Path, table: str) -> pa.dataset.Dataset:
    by_day = ds.partitioning(pa.schema([BY_DAY]), flavor="hive")
    schema = SCHEMAS[table].append(BY_DAY)
    return ds.dataset(lake / table, schema=schema, format="parquet", partitioning=by_day)


def plan(frame: DataFrame, capsys: pytest.CaptureFixture[str]) -> list[str]:
    """What Spark is going to read, a line for each table."""
    frame.explain("formatted")
    lines = capsys.readouterr().out.splitlines()
    return [line for line in lines if line.startswith(("ReadSchema", "PartitionFilters", "Pushed"))]


@pytest.mark.parametrize("table", SCHEMAS)
def test_a_table_as_pyarrow_reads_it(views: SparkSession, lake: Path, table: str) -> None:
    """Every row and value; maps, lists of lists, times, dates and nulls are of their own types."""
    ours, theirs = by_pyarrow(lake, table), views.table(f"{table}_all")
    found = theirs.toArrow()
    assert found.schema.remove_metadata().equals(ours.schema.remove_metadata())
    assert found.num_rows == ours.count_rows() > 3
    assert by_key(rows(found), table) == by_key(rows(ours.to_table()), table)
    assert sorted(theirs.inputFiles()) == sorted(f"file://{path}" for path in ours.files)


def test_the_lake_holds_what_is_hard_to_read(views: SparkSession, lake: Path) -> None:
    """What the comparisons above would prove little without."""
    documents, pages, blocks = (rows(views.table(f"{name}_all").toArrow()) for name in SCHEMAS)
    assert {type(row["deleted_at"]) for row in documents} == {datetime, type(None)}
    assert {len(row["metadata"]) > 1 for row in documents} == {True, False}
    assert {row["error_code"] for row in documents} == {"corrupt", None}
    assert {row["ingest_date"] == EARLIER for row in pages} == {True, False}
    assert {row["origin"] for row in pages} == {"ocr", "text_layer"}
    assert any("供水管道" in row["text"] for row in pages)
    assert {len(row["boxes"][0]) for row in blocks if row["boxes"]} == {4}
    assert {row["confidence"] is None for row in blocks} == {True, False}


@pytest.mark.parametrize("view", SCHEMAS)
def test_a_view_as_duckdb_shows_it(views: SparkSession, lake: Path, view: str) -> None:
    found = told(by_key(rows(views.table(view).toArrow()), view))
    assert found == by_key(by_duckdb(lake, f"SELECT * FROM {view}"), view)
    assert 3 < len(found) < views.table(f"{view}_all").count()


def test_pages_of_a_document_being_read_show_unless_an_earlier_version_does(
    views: SparkSession, lake: Path
) -> None:
    versions = {
        (row["source_uri"].rpartition("/")[2], row["ingest_date"] == EARLIER)
        for row in rows(views.table("pages").toArrow())
    }
    assert versions == {
        ("invoice.pdf", True),
        ("letter.pdf", False),
        ("manual.pdf", False),
        ("notice.png", True),
    }
    new = views.sql("select 1 from pages_all where source_uri like '%/invoice.pdf'").count()
    assert new > 1


@pytest.mark.parametrize("query", QUERIES)
def test_a_query_as_duckdb_answers_it(views: SparkSession, lake: Path, query: str) -> None:
    found = told(rows(views.sql(query).toArrow()))
    assert [[*row.values()] for row in found] == [[*row.values()] for row in by_duckdb(lake, query)]


def test_times_are_shown_in_utc(views: SparkSession, lake: Path) -> None:
    (found,) = views.sql(
        "SELECT string(max(finished_at)), max(finished_at) FROM documents"
    ).collect()
    meant = max(row["finished_at"] for row in rows(by_pyarrow(lake, "documents").to_table()))
    assert datetime.fromisoformat(found[0]).replace(tzinfo=UTC) == meant
    assert found[1].astimezone(UTC) == meant
    assert abs(meant.timestamp() - time.time()) < 3600


def test_only_the_days_and_columns_asked_for_are_read(
    views: SparkSession, lake: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    few = views.sql(
        f"SELECT page_number FROM pages WHERE ingest_date = '{EARLIER}' AND status = 'ok'"
    )
    read = plan(few, capsys)
    columns = [
        "document_id:string,page_number:int,source_uri:string,status:string",
        "document_id:string,source_uri:string,run_id:string,finished_at:timestamp",
    ]
    assert [line for line in read if line.startswith("ReadSchema")] == [
        f"ReadSchema: struct<{names}>" for names in columns
    ]
    assert any(f"= {EARLIER})" in line for line in read if line.startswith("PartitionFilters"))
    assert any("EqualTo(status,ok)" in line for line in read if line.startswith("PushedFilters"))
    earlier = list((lake / "pages" / f"ingest_date={EARLIER}").iterdir())
    files = views.sql(f"SELECT input_file_name() FROM pages_all WHERE ingest_date = '{EARLIER}'")
    assert {row[0] for row in files.collect()} == {f"file://{path}" for path in earlier}


def test_files_from_before_a_column_was_added(
    spark: SparkSession, lake: Path, tmp_path: Path
) -> None:
    older = Path(shutil.copytree(lake, tmp_path / "older"))
    for path in (older / "documents" / f"ingest_date={EARLIER}").iterdir():
        pq.write_table(pq.read_table(path, partitioning=None).drop(["deleted_at"]), path)
    session = reading(spark, older)
    found = session.table("documents_all").toArrow()
    assert "deleted_at" in found.column_names
    assert by_key(rows(found), "documents") == by_key(
        rows(by_pyarrow(lake, "documents").to_table()), "documents"
    )
    shown = told(by_key(rows(session.table("documents").toArrow()), "documents"))
    assert shown == by_key(by_duckdb(older, "SELECT * FROM documents"), "documents")


def test_rows_in_equal_rows_out_once_a_run_has_ended(
    spark: SparkSession, views: SparkSession, finished: Path
) -> None:
    query = f"SELECT {IN_EQUALS_OUT}"
    assert views.sql(query).collect() == [(False,)]
    assert reading(spark, finished).sql(query).collect() == [(True,)]


def test_after_a_compaction(spark: SparkSession, finished: Path, tmp_path: Path) -> None:
    """The same rows in other files, and parts that they came from are there still, without rows."""
    compacted = Path(shutil.copytree(finished, tmp_path / "lake"))
    pagelake("compact", compacted)
    shown = []
    for each in (finished, compacted):
        session = reading(spark, each)
        views = [(view, table) for table in SCHEMAS for view in (table, f"{table}_all")]
        tables = [by_key(rows(session.table(view).toArrow()), table) for view, table in views]
        shown.append([[row | {"shard_id": None} for row in found] for found in tables])
    assert shown[0] == shown[1]  # but for shard_id, which names files
    before, after = (by_pyarrow(each, "pages").files for each in (finished, compacted))
    assert {Path(path).name for path in before} < {Path(path).name for path in after}
    assert 0 in {pq.read_metadata(path).num_rows for path in after}

"""Records as rows and back, and what other readers make of them."""

from __future__ import annotations

import tempfile
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import duckdb
import pandas as pd
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from schemas.errors import ErrorCode
from schemas.records import Block, DocumentFacts, PageResult
from schemas.tables import BLOCKS, DOCUMENTS, PAGES
from tasks.collect import Collector
from tasks.rows import blocks_table, documents_table, pages_from, pages_table, parquet
from tests.shards import page_of, shard_of, standings_of

texts = st.text(max_size=20)
floats = st.floats(-1e4, 1e4, width=32)
scores = st.floats(0, 1, width=32)
boxes = st.tuples(floats, floats, floats, floats)
blocks = st.builds(
    Block,
    kind=st.sampled_from(["text", "table", "figure"]),
    label=texts,
    text=texts,
    box=st.none() | boxes,
    html=st.none() | texts,
    boxes=st.lists(boxes, max_size=2).map(tuple),
    confidence=st.none() | scores,
    figure_uri=st.none() | texts,
)
pages = st.builds(
    PageResult,
    document_id=st.sampled_from(["a", "b"]),
    source_uri=texts,
    page_number=st.integers(1, 2**31 - 1),
    status=st.sampled_from(["ok", "empty", "failed"]),
    error_code=st.none() | st.sampled_from(ErrorCode),
    error_message=st.none() | texts,
    origin=st.none() | st.sampled_from(["ocr", "text_layer"]),
    width_pt=st.none() | floats,
    height_pt=st.none() | floats,
    rotation=st.sampled_from([0, 90, 180, 270]),
    markdown=st.none() | texts,
    text=st.none() | texts,
    raw_output=st.none() | texts,
    prompt_tokens=st.none() | st.integers(0, 2**31 - 1),
    attempts=st.integers(0, 100),
    flags=st.lists(texts, max_size=3).map(tuple),
    render_ms=st.none() | scores,
    blocks=st.lists(blocks, max_size=3).map(tuple),
)
some_pages = st.lists(
    pages, max_size=4, unique_by=lambda page: (page.document_id, page.page_number)
)


@settings(max_examples=100, deadline=None)
@given(some_pages)
def test_rows_become_the_records_they_were_made_from(made: list[PageResult]) -> None:
    shard = shard_of([])
    with tempfile.TemporaryDirectory() as folder:
        paths = [f"{folder}/pages", f"{folder}/blocks"]
        for path, table in zip(paths, (pages_table, blocks_table), strict=True):
            Path(path).write_bytes(parquet(table(made, shard)))
        assert pages_from(*(pq.read_table(path) for path in paths)) == made


@pytest.fixture(scope="module")
def three_tables(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[str, pa.Schema]]:
    folder = tmp_path_factory.mktemp("tables")
    shard = shard_of([3, 0])
    facts = DocumentFacts("abc", "application/pdf", 10, 3, 3, metadata={"title": "é"})
    first = replace(standings_of(shard, 0, 3)[0], facts=facts)
    made = [page_of(first, number, "w") for number in range(1, 4)]
    collector = Collector(None)
    collector.opened(first)
    for page in made:
        collector.finished(first.place, page)
    collector.opened(standings_of(shard, 1, 0)[0])
    extents = {extent.place: [extent] for extent in collector.draft(9).extents}
    tables = {
        "pages": (pages_table(made, shard), PAGES),
        "blocks": (blocks_table(made, shard), BLOCKS),
        "documents": (documents_table(shard, extents, "recipe"), DOCUMENTS),
    }
    written = {}
    for name, (table, schema) in tables.items():
        (folder / f"{name}.parquet").write_bytes(parquet(table, {"more": "told"}))
        written[name] = (str(folder / f"{name}.parquet"), schema)
    return written


@pytest.mark.parametrize("name", ["pages", "blocks", "documents"])
def test_every_reader_finds_the_schema(
    three_tables: dict[str, tuple[str, pa.Schema]], name: str
) -> None:
    path, schema = three_tables[name]
    found = pq.read_schema(path)
    assert found.equals(schema, check_metadata=False)
    assert found.metadata[b"pagelake.table"] == name.encode()
    assert found.metadata[b"pagelake.schema_version"] == b"1"
    assert found.metadata[b"more"] == b"told"
    assert all(found.field(column).metadata[b"description"] for column in schema.names)
    rows = pq.read_table(path).num_rows
    assert rows == {"pages": 3, "blocks": 3, "documents": 2}[name]
    assert pq.ParquetFile(path).metadata.row_group(0).column(0).compression == "ZSTD"

    described = duckdb.execute(f"DESCRIBE SELECT * FROM '{path}'").fetchall()
    types = {column: kind for column, kind, *_ in described}
    assert list(types) == schema.names
    assert types.get("page_number", "INTEGER") == "INTEGER"
    assert types.get("metadata", "MAP(VARCHAR, VARCHAR)") == "MAP(VARCHAR, VARCHAR)"
    assert types.get("boxes", "FLOAT[][]") == "FLOAT[][]"
    assert types.get("started_at", "TIMESTAMP WITH TIME ZONE") == "TIMESTAMP WITH TIME ZONE"
    ids = pq.read_table(path)["document_id"].to_pylist()
    assert duckdb.execute(f"SELECT document_id FROM '{path}'").fetchall() == [(x,) for x in ids]

    frame = pl.read_parquet(path)
    assert (frame.columns, frame.height) == (schema.names, rows)
    assert frame["document_id"].to_list() == ids
    if name == "documents":
        assert frame.schema["started_at"] == pl.Datetime("us", "UTC")
        assert abs((datetime.now(UTC) - frame["finished_at"][0]).total_seconds()) < 600

    panda = pd.read_parquet(path)
    assert (list(panda.columns), len(panda)) == (schema.names, rows)
    assert panda["document_id"].tolist() == ids

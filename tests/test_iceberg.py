"""The lake in an Iceberg catalog: what engines read of it, and that they read it whole."""

from __future__ import annotations

import hashlib
import io
import json
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import duckdb
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

pytest.importorskip("pyiceberg")

from pyiceberg.catalog import load_catalog
from pyiceberg.catalog.sql import SqlCatalog
from pyiceberg.exceptions import CommitFailedException, NoSuchNamespaceError, NoSuchTableError
from pyiceberg.schema import Schema
from pyiceberg.table import CommitTableRequest, Table

from schemas.errors import LakeError, UsageError
from schemas.tables import BLOCKS, DOCUMENTS, PAGES
from tasks import iceberg
from tasks.iceberg import LakeFile, register
from tests import s3
from tests.s3 import S3Server, serving

SCHEMAS = {"documents": DOCUMENTS, "pages": PAGES, "blocks": BLOCKS}


def row(number: int, text: str) -> dict[str, Any]:
    return {
        "document_id": f"d{number}",
        "page_number": number,
        "text": text,
        "rotation": 90,
        "flags": ["turned", "few_words"][: number % 3],
        "boxes": [[1.0, 2.0, 3.0, 4.0]] * (number % 3),
        "metadata": [("title", "Über"), ("author", "")][: number % 3],
        "started_at": datetime(2026, 3, 1, tzinfo=UTC),
    }


def content(schema: pa.Schema, numbers: range, text: str = "a") -> bytes:
    """A Parquet file with a row for each number, of a size that the letters do not change."""
    rows = [dict.fromkeys(schema.names) | row(number, text) for number in numbers]
    sink = io.BytesIO()
    pq.write_table(pa.Table.from_pylist(rows, schema=schema), sink, compression="none")
    return sink.getvalue()


class Lake:
    """Files of a lake in a folder, and the catalog that they are registered in."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.files: dict[str, LakeFile] = {}
        self.catalog = f"sqlite:///{root}/catalog.db"
        self.warehouse = f"{root}/_runs/iceberg"

    def put(self, table: str, name: str, data: bytes) -> LakeFile:
        path = self.root / table / "ingest_date=2026-03-01" / f"{name}.parquet"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
        version = hashlib.sha256(data).hexdigest()
        self.files[name] = LakeFile(str(path), table, len(data), version)
        return self.files[name]

    def pages(self, name: str, numbers: range, text: str = "a") -> LakeFile:
        return self.put("pages", name, content(PAGES, numbers, text))

    def register(self) -> tuple[int, int, int]:
        told = register(self.catalog, "lake", self.files.values(), self.warehouse, {})
        assert list(told) == ["added", "removed", "replaced"]
        return told["added"], told["removed"], told["replaced"]

    def table(self, name: str = "pages") -> Table:
        with load_catalog(
            "pagelake", type="sql", uri=self.catalog, warehouse=self.warehouse
        ) as catalog:
            return catalog.load_table(("lake", name))

    def numbers(self, snapshot_id: int | None = None) -> list[int]:
        read = self.table().scan(snapshot_id=snapshot_id).to_arrow()
        return sorted(read["page_number"].to_pylist())

    def operations(self) -> list[str]:
        return [str(s.summary.operation.value) for s in self.table().snapshots() if s.summary]


@pytest.fixture
def lake(tmp_path: Path) -> Lake:
    # Characters that mean something in an address: paths are registered as they are.
    root = tmp_path / "my lake #1 50%"
    root.mkdir()
    return Lake(root)


def test_first_registration(lake: Lake) -> None:
    written = {name: content(schema, range(3)) for name, schema in SCHEMAS.items()}
    for name, data in written.items():
        lake.put(name, name, data)
    assert lake.register() == (3, 0, 0)
    for name, schema in SCHEMAS.items():
        table = lake.table(name)
        read = table.scan().to_arrow()
        assert read.schema.names == schema.names
        assert read.to_pylist() == pq.read_table(io.BytesIO(written[name])).to_pylist()
        described = {field.name: field.doc for field in table.schema().fields}
        assert described == {f.name: f.metadata[b"description"].decode() for f in schema}
        assert len(table.snapshots()) == 1
    assert not list(Path(lake.warehouse).rglob("*.parquet"))


def test_bounds_only_of_columns_to_filter_by(lake: Lake) -> None:
    lake.pages("one", range(3))
    lake.register()
    table = lake.table()
    (task,) = table.scan(row_filter="document_id == 'd1'").plan_files()
    named = {table.schema().find_column_name(column) for column in task.file.lower_bounds}
    assert named == {"document_id"}
    assert not list(table.scan(row_filter="document_id == 'e'").plan_files())


def test_nothing_changed(lake: Lake) -> None:
    lake.pages("one", range(3))
    lake.pages("blank", range(0))
    lake.register()
    before = lake.table()
    # Whoever opened a data file now would fail.
    (lake.root / "pages").rename(lake.root / "away")
    assert lake.register() == (0, 0, 0)
    assert lake.table().metadata_location == before.metadata_location
    assert len(before.snapshots()) == 1


def test_added_part_is_the_only_one_read(lake: Lake) -> None:
    first = lake.pages("one", range(3))
    lake.register()
    Path(first.uri).rename(lake.root / "away")
    lake.pages("two", range(3, 5))
    assert lake.register() == (1, 0, 0)
    assert lake.operations() == ["append", "append"]
    (lake.root / "away").rename(first.uri)
    assert lake.numbers() == [0, 1, 2, 3, 4]


def test_rewritten_in_place_with_the_same_size(lake: Lake) -> None:
    old = lake.pages("one", range(3), "a")
    lake.pages("two", range(3, 5))
    lake.register()
    new = lake.pages("one", range(7, 10), "b")
    assert (new.uri, new.size_bytes) == (old.uri, old.size_bytes)
    assert lake.register() == (0, 0, 1)
    assert lake.operations() == ["append", "overwrite"]
    assert lake.numbers() == [3, 4, 7, 8, 9]
    (task,) = lake.table().scan(row_filter="document_id == 'd8'").plan_files()
    assert task.file.file_path == new.uri
    assert lake.register() == (0, 0, 0)


def test_rewritten_in_place_with_another_size(lake: Lake) -> None:
    lake.pages("one", range(3))
    lake.register()
    new = lake.pages("one", range(40))
    assert lake.register() == (0, 0, 1)
    (task,) = lake.table().scan().plan_files()
    assert (task.file.file_size_in_bytes, task.file.record_count) == (new.size_bytes, 40)


def test_compaction_is_one_snapshot(lake: Lake) -> None:
    for part in range(5):
        lake.pages(f"part{part}", range(part * 2, part * 2 + 2))
    lake.register()
    before = lake.table().current_snapshot()
    lake.files.clear()
    lake.pages("all", range(10))
    assert lake.register() == (1, 5, 0)
    assert lake.operations() == ["append", "overwrite"]
    assert before is not None
    assert lake.numbers(before.snapshot_id) == lake.numbers() == list(range(10))


def test_emptied_parts_are_left_out(lake: Lake) -> None:
    lake.pages("one", range(2))
    lake.pages("two", range(2, 4))
    lake.register()
    lake.pages("one", range(0))
    lake.pages("two", range(0))
    lake.pages("all", range(4))
    lake.pages("never had rows", range(0))
    assert lake.register() == (1, 2, 0)
    assert lake.operations() == ["append", "overwrite"]
    assert lake.numbers() == [0, 1, 2, 3]
    (lake.root / "pages").rename(lake.root / "away")
    assert lake.register() == (0, 0, 0)


def test_forgotten_rows(lake: Lake) -> None:
    lake.pages("one", range(3))
    lake.pages("two", range(3, 6))
    lake.register()
    lake.pages("one", range(1, 3))
    del lake.files["two"]
    assert lake.register() == (0, 1, 1)
    assert lake.numbers() == [1, 2]
    lake.files.clear()
    assert lake.register() == (0, 1, 0)
    assert lake.numbers() == []
    assert len(lake.operations()) == 3


def test_added_column(lake: Lake, monkeypatch: pytest.MonkeyPatch) -> None:
    lake.pages("old", range(2))
    lake.register()
    column = pa.field("language", pa.string(), metadata={"description": "of the text"})
    wider = PAGES.insert(3, column)
    monkeypatch.setitem(iceberg._TABLES, "pages", wider)
    assert lake.register() == (0, 0, 0)
    assert lake.table().schema().find_field("language").doc == "of the text"
    table = pa.Table.from_pylist([{"page_number": 2, "language": "sv"}], schema=wider)
    sink = io.BytesIO()
    pq.write_table(table, sink)
    lake.put("pages", "new", sink.getvalue())
    assert lake.register() == (1, 0, 0)
    read = lake.table().scan().to_arrow().sort_by("page_number")
    assert read["language"].to_pylist() == [None, None, "sv"]
    assert len(lake.operations()) == 2

    monkeypatch.setitem(iceberg._TABLES, "pages", PAGES)
    lake.pages("by an older pagelake", range(3, 4))
    assert lake.register() == (1, 0, 0)
    assert lake.numbers() == [0, 1, 2, 3]


def test_lost_facts_cost_a_snapshot_and_no_rows(lake: Lake) -> None:
    lake.pages("one", range(3))
    lake.register()
    (facts,) = Path(lake.warehouse).rglob("pages/**/pagelake-facts.bin")
    facts.unlink()
    assert lake.register() == (0, 0, 1)
    assert lake.register() == (0, 0, 0)
    assert lake.numbers() == [0, 1, 2]


def test_rolled_back_table_is_brought_forward(lake: Lake) -> None:
    lake.pages("one", range(3))
    lake.register()
    lake.pages("one", range(5))
    lake.pages("two", range(5, 7))
    lake.register()
    with load_catalog("pagelake", type="sql", uri=lake.catalog) as catalog:
        table = catalog.load_table("lake.pages")
        table.manage_snapshots().rollback_to_snapshot(table.snapshots()[0].snapshot_id).commit()
    assert lake.register() == (1, 0, 1)
    assert lake.numbers() == list(range(7))


def test_another_writer_in_between(lake: Lake, monkeypatch: pytest.MonkeyPatch) -> None:
    lake.register()
    lake.pages("both", range(2))
    commit = SqlCatalog.commit_table

    def late(self: SqlCatalog, *arguments: Any) -> Any:
        monkeypatch.setattr(SqlCatalog, "commit_table", commit)
        assert lake.register() == (1, 0, 0)
        return commit(self, *arguments)

    both = dict(lake.files)
    lake.pages("mine", range(2, 4))
    mine = list(lake.files.values())
    lake.files = both
    monkeypatch.setattr(SqlCatalog, "commit_table", late)
    register(lake.catalog, "lake", mine, lake.warehouse, {})
    assert lake.numbers() == [0, 1, 2, 3]


def test_another_writer_every_time(lake: Lake, monkeypatch: pytest.MonkeyPatch) -> None:
    lake.register()
    lake.pages("one", range(2))

    def refuse(*arguments: Any) -> None:
        raise CommitFailedException("branch main has changed")

    monkeypatch.setattr(SqlCatalog, "commit_table", refuse)
    monkeypatch.setattr(time, "sleep", lambda seconds: None)
    with pytest.raises(LakeError, match=r"kept changing the Iceberg table lake\.pages; the lake"):
        lake.register()
    monkeypatch.undo()
    assert lake.register() == (1, 0, 0)
    assert lake.register() == (0, 0, 0)


def test_file_that_another_tool_added_again(lake: Lake) -> None:
    file = lake.pages("one", range(3))
    lake.register()
    with load_catalog("pagelake", type="sql", uri=lake.catalog) as catalog:
        catalog.load_table("lake.pages").add_files([file.uri], check_duplicate_files=False)
    assert lake.numbers() == [0, 0, 1, 1, 2, 2]
    assert lake.register() == (0, 0, 1)
    assert lake.numbers() == [0, 1, 2]


def test_many_parts_in_few_manifests(lake: Lake) -> None:
    lake.register()
    with load_catalog("pagelake", type="sql", uri=lake.catalog) as catalog:
        table = catalog.load_table("lake.pages")
        with table.transaction() as change:
            change.set_properties({"commit.manifest.min-count-to-merge": "4"})
    for part in range(9):
        lake.pages(f"part{part}", range(part, part + 1))
        assert lake.register() == (1, 0, 0)
    table = lake.table()
    assert len(table.inspect.manifests()) <= 4
    assert lake.register() == (0, 0, 0)


def test_duckdb_and_polars_read_it(lake: Lake, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("POLARS_ICEBERG_PLANNER", "pyiceberg")
    lake.pages("one", range(3))
    lake.pages("two", range(3, 5))
    lake.register()
    table = lake.table()
    with duckdb.connect() as db:
        read = table.scan().to_arrow()
        assert db.sql("SELECT count(*), sum(page_number) FROM read").fetchall() == [(5, 10)]
        del read
    frame = pl.scan_iceberg(table).filter(pl.col("page_number") > 2).collect()
    assert sorted(frame["document_id"]) == ["d3", "d4"]
    lake.pages("one", range(10, 12))
    lake.register()
    frame = pl.scan_iceberg(lake.table()).select("page_number").collect()
    assert sorted(frame["page_number"]) == [3, 4, 10, 11]


def test_failures_are_told_in_a_line(lake: Lake, monkeypatch: pytest.MonkeyPatch) -> None:
    def told(kind: type[Exception], catalog: str) -> str:
        with pytest.raises(kind) as caught:
            register(catalog, "lake", lake.files.values(), lake.warehouse, {})
        assert len(str(caught.value).splitlines()) == 1
        return str(caught.value)

    assert "give sqlite:///PATH" in told(UsageError, "warehouse-of-nobody")
    assert "give sqlite:///PATH" in told(UsageError, "postgresql://somewhere")
    with closing(socket.create_server(("127.0.0.1", 0))) as listener:
        port = listener.getsockname()[1]
    assert "cannot open" in told(UsageError, f"http://127.0.0.1:{port}")
    assert "unable to open database" in told(UsageError, f"sqlite:///{lake.root}/none/c.db")
    (lake.root / "noise.db").write_bytes(b"no database" * 100)
    assert "not a database" in told(UsageError, f"sqlite:///{lake.root}/noise.db")

    lake.put("pages", "noise", b"no Parquet")
    assert "noise.parquet (gone, or of a newer pagelake?)" in told(LakeError, lake.catalog)
    wider = PAGES.append(pa.field("later", pa.string()))
    lake.put("pages", "noise", content(wider, range(2)))
    assert "more columns: later" in told(LakeError, lake.catalog)
    Path(lake.files["noise"].uri).unlink()
    assert "noise.parquet" in told(LakeError, lake.catalog)

    monkeypatch.setitem(sys.modules, "pyiceberg.catalog", None)
    assert "pip install 'pagelake[iceberg]'" in told(UsageError, lake.catalog)


def test_catalog_of_pyicebergs_configuration(lake: Lake) -> None:
    lake.pages("one", range(3))
    told = (
        "from tasks.iceberg import LakeFile, register; import json, sys; "
        "print(register('Mine', 'a.b', [LakeFile(*json.loads(sys.argv[1]))], '/nowhere', {}))"
    )
    file = lake.files["one"]
    done = subprocess.run(
        [sys.executable, "-c", told, json.dumps([file.uri, "pages", file.size_bytes, "1"])],
        env=os.environ
        | {
            "PYICEBERG_CATALOG__MINE__URI": lake.catalog,
            "PYICEBERG_CATALOG__MINE__WAREHOUSE": lake.warehouse,
        },
        cwd=Path(iceberg.__file__).parent.parent,
        capture_output=True,
        text=True,
    )
    assert "'added': 1" in done.stdout, done.stderr
    with load_catalog("Mine", type="sql", uri=lake.catalog) as catalog:
        assert catalog.load_table("a.b.pages").scan().count() == 3


@pytest.fixture
def rest(lake: Lake) -> Iterator[str]:
    """The address of a REST catalog that holds its tables in the lake's SQLite."""
    backing = SqlCatalog("rest", uri=lake.catalog, warehouse=lake.warehouse)

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            if self.path.startswith("/v1/config"):
                self.answer(200, {"defaults": {}, "overrides": {}})
            elif self.path == "/v1/namespaces/lake":
                self.attempt(
                    lambda: (
                        backing.load_namespace_properties("lake")
                        and {"namespace": ["lake"], "properties": {}}
                    )
                )
            else:
                self.attempt(lambda: self.told(self.name()))

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            asked = json.loads(body)
            if self.path == "/v1/namespaces":
                self.attempt(lambda: backing.create_namespace(tuple(asked["namespace"])) or asked)
            elif self.path.endswith("/tables"):
                self.attempt(lambda: self.create(asked))
            else:
                self.attempt(lambda: self.commit(body))

        def name(self) -> tuple[str, str]:
            _, _, _, namespace, _, table = self.path.split("?")[0].split("/")
            return namespace, table

        def create(self, asked: Any) -> dict[str, Any]:
            name = (self.path.split("/")[3], asked["name"])
            schema = Schema.model_validate(asked["schema"])
            backing.create_table(name, schema, properties=asked["properties"])
            return self.told(name)

        def commit(self, body: bytes) -> dict[str, Any]:
            asked = CommitTableRequest.model_validate_json(body)
            table = backing.load_table(self.name())
            backing.commit_table(table, asked.requirements, asked.updates)
            return self.told(self.name())

        def told(self, name: tuple[str, str]) -> dict[str, Any]:
            table = backing.load_table(name)
            return {
                "metadata-location": table.metadata_location,
                "metadata": json.loads(table.metadata.model_dump_json()),
                "config": {},
            }

        def attempt(self, work: Callable[[], Any]) -> None:
            try:
                self.answer(200, work())
            except (NoSuchTableError, NoSuchNamespaceError) as error:
                told = {"message": str(error), "type": type(error).__name__, "code": 404}
                self.answer(404, {"error": told})

        def answer(self, status: int, told: Any) -> None:
            data = json.dumps(told).encode()
            self.send_response(status)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, *arguments: Any) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()
    backing.close()


def test_rest_catalog(lake: Lake, rest: str) -> None:
    lake.catalog, lake.warehouse = rest, "decided by the server"
    lake.pages("one", range(3))
    lake.pages("two", range(3, 5))
    assert lake.register() == (2, 0, 0)
    lake.pages("two", range(3, 4))
    assert lake.register() == (0, 0, 1)
    assert lake.register() == (0, 0, 0)
    with load_catalog("any", type="rest", uri=rest) as catalog:
        assert catalog.load_table("lake.pages").scan().count() == 4


@pytest.fixture(scope="module")
def server() -> Iterator[S3Server]:
    with serving() as running:
        yield running


@pytest.mark.parametrize("told", ["by environment", "by properties"])
def test_on_s3(
    told: str, server: S3Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    access: dict[str, str] = {}
    if told == "by environment":
        monkeypatch.delenv("AWS_PROFILE", raising=False)
        for name, value in server.environment.items():
            monkeypatch.setenv(name, value)
    else:
        access["s3.endpoint"] = server.endpoint
        access |= {"s3.access-key-id": s3.KEY, "s3.secret-access-key": s3.SECRET}
        access |= {"s3.region": s3.REGION}
    bucket = server.bucket()
    catalog = f"sqlite:///{tmp_path}/catalog.db"

    def put(name: str, numbers: range, version: str) -> LakeFile:
        key, data = f"my lake/pages/{name}.parquet", content(PAGES, numbers)
        server.put(bucket, key, data)
        return LakeFile(f"s3://{bucket}/{key}", "pages", len(data), version)

    def registered(*files: LakeFile) -> list[int]:
        warehouse = f"s3://{bucket}/my lake/_runs/iceberg"
        return list(register(catalog, "lake", files, warehouse, access).values())

    one, two = put("one", range(3), "1"), put("two", range(3, 5), "1")
    assert registered(one, two) == [2, 0, 0]
    assert registered(one, two) == [0, 0, 0]
    two = put("two", range(6, 8), "2")
    assert registered(one, two) == [0, 0, 1]
    assert registered(put("all", range(8), "1")) == [1, 2, 0]
    through_s3fs = {"py-io-impl": "pyiceberg.io.fsspec.FsspecFileIO", **access}
    with load_catalog("pagelake", type="sql", uri=catalog, **through_s3fs) as opened:
        read = opened.load_table("lake.pages").scan().to_arrow()
    assert sorted(read["page_number"].to_pylist()) == list(range(8))
    beside = {key for key in server.keys(bucket) if "/_runs/" not in key}
    assert beside == {f"my lake/pages/{name}.parquet" for name in ("one", "two", "all")}

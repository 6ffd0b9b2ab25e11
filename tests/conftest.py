"""What the tests share: the command as a user types it, and lakes read once a session."""

from __future__ import annotations

import io
import json
import multiprocessing
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import pyarrow.parquet as pq
import pytest

if TYPE_CHECKING:
    from tests.faultproxy import Proxy
    from tests.s3 import S3Server

ROOT = Path(__file__).parent.parent
SAMPLES = ROOT / "sample_docs"
QUICK = ("--layout", "none", "--processes", "1")

T = TypeVar("T")


@dataclass(frozen=True)
class Ended:
    """How a command ended. `told` is the JSON object it printed last, if any."""

    code: int
    out: str
    err: str

    @property
    def told(self) -> dict[str, Any]:
        return json.loads(self.out.strip().splitlines()[-1])


def pagelake(*arguments: str | Path, timeout: float = 600, **environment: str) -> Ended:
    """Run the command in a process of its own, without a Prefect server."""
    surroundings = {k: v for k, v in os.environ.items() if not k.startswith(("PREFECT_", "AWS_"))}
    done = subprocess.run(
        [sys.executable, "-m", "flows.cli", *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=timeout,
        cwd=ROOT,
        env=surroundings | environment,
    )
    return Ended(done.returncode, done.stdout, done.stderr)


FORKS = multiprocessing.get_context("forkserver")
FORKS.set_forkserver_preload(
    ["flows.cli", "flows.ingest", "flows.show", "pytest", "tasks.query", "tasks.s3source"]
)


def pagelake_forked(*arguments: str | Path, timeout: float = 600, **environment: str) -> Ended:
    """As `pagelake`, forked from a process that has imported already what commands import.

    That takes a second of each command, and object storage is asked a hundred of them.
    """
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("PREFECT_", "AWS_"))}
    with tempfile.TemporaryDirectory() as folder:
        out, err = Path(folder, "out"), Path(folder, "err")
        arguments = tuple(map(str, arguments))
        process = FORKS.Process(target=_command, args=(arguments, kept | environment, out, err))
        process.start()
        process.join(timeout)
        if process.exitcode is None:
            process.kill()
            raise TimeoutError(f"{arguments}: {err.read_text()}")
        return Ended(process.exitcode, out.read_text(), err.read_text())


def _command(arguments: list[str], environment: dict[str, str], out: Path, err: Path) -> None:
    os.environ.clear()
    os.environ.update(environment)
    os.chdir(ROOT)
    for path, stream in ((out, 1), (err, 2)):
        with open(path, "xb") as file:
            os.dup2(file.fileno(), stream)
    from flows import cli

    sys.modules["__main__"] = cli  # what its own worker processes are to begin with
    cli.main(arguments, prog_name="pagelake")


@pytest.fixture(name="pagelake")
def pagelake_command() -> Callable[..., Ended]:
    return pagelake


def side_by_side(*steps: Callable[[], T]) -> list[T]:
    """What several steps return that do not need each other, such as commands, done at once."""
    with ThreadPoolExecutor(4) as pool:
        return list(pool.map(lambda step: step(), steps))


@pytest.fixture(scope="session")
def s3() -> Iterator[S3Server]:
    """An S3 server for all, in a process of its own. Its listings give 50 objects a page."""
    from tests.s3 import serving  # the lane with vLLM has no moto

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MOTO_S3_DEFAULT_MAX_KEYS", "50")
        with serving() as server:
            yield server


def remove(s3: S3Server, bucket: str, *keys: str) -> None:
    """Take objects away."""
    with closing(s3.client()) as client:
        for key in keys:
            client.delete_object(Bucket=bucket, Key=key)


def stored_rows(s3: S3Server, bucket: str, table: str) -> list[dict[str, Any]]:
    """All rows of a table of the lake in a bucket, wherever in it that is."""
    files = [key for key in s3.keys(bucket) if f"{table}/ingest_date=" in key]
    return [
        row for key in files for row in pq.read_table(io.BytesIO(s3.get(bucket, key))).to_pylist()
    ]


@dataclass(frozen=True)
class Kept:
    """What a lake held after a run."""

    keys: list[str]
    documents: dict[str, dict[str, Any]]
    pages: dict[tuple[str, int], str]


@dataclass
class Case:
    """A source, a lake `ocr` in a bucket of its own, a proxy before both, and what was run.

    `source` is an address that all documents' addresses begin with.
    """

    s3: S3Server
    source: str
    lake: str
    proxy: Proxy
    ended: list[Ended] = field(default_factory=list)
    kept: list[Kept] = field(default_factory=list)

    def run(self, *options: str) -> Ended:
        reached = self.s3.environment | {"AWS_ENDPOINT_URL": self.proxy.endpoint}
        where = (self.source, f"s3://{self.lake}/ocr")
        self.ended.append(pagelake_forked("ingest", *where, "--json", *options, **reached))
        self.keep()
        return self.ended[-1]

    def keep(self) -> None:
        """Note what the lake holds now."""
        self.kept.append(Kept(self.keys(), self.documents(), self.pages()))

    def rows(self, table: str) -> list[dict[str, Any]]:
        """The rows of a table, by the runs that wrote them."""
        rows = stored_rows(self.s3, self.lake, table)
        return sorted(rows, key=lambda row: str(row["run_id"]))

    def documents(self) -> dict[str, dict[str, Any]]:
        """The newest row of each document by its name; no row may be there twice."""
        rows = self.rows("documents")
        assert len({row["document_id"] for row in rows}) == len(rows)
        own = {"run_id", "shard_id", "started_at", "finished_at"}
        return {
            row["source_uri"].removeprefix(self.source): {
                name: value for name, value in row.items() if name not in own
            }
            for row in rows
        }

    def pages(self) -> dict[tuple[str, int], str]:
        """The text of each page in the newest version; no row may be there twice."""
        rows = self.rows("pages")
        assert len({(row["document_id"], row["page_number"]) for row in rows}) == len(rows)
        names = [row["source_uri"].removeprefix(self.source) for row in rows]
        return {(n, row["page_number"]): row["text"] for n, row in zip(names, rows, strict=True)}

    def keys(self) -> list[str]:
        """The lake's keys, without what tells one run from another."""
        keys = self.s3.keys(self.lake)
        return sorted(re.sub(r"\d{8}T\d{6}Z-[0-9a-f]{6}", "RUN", key) for key in keys)

    def check_nothing_is_left_over(self) -> None:
        keys = [key.removeprefix("ocr/") for key in self.s3.keys(self.lake)]
        assert not [key for key in keys if re.search("lock$|/claims/|probe", key)]
        footers = [
            json.loads((pq.read_metadata(io.BytesIO(data)).metadata or {})[b"pagelake.part"])
            for data in (self.s3.get(self.lake, f"ocr/{key}") for key in keys if "pages/" in key)
        ]
        blocks = {footer["blocks"] for footer in footers} - {None}
        assert blocks == {key for key in keys if key.startswith("blocks/")}
        figures = {row["figure_uri"] for row in self.rows("blocks")} - {None}
        assert figures == {key for key in keys if key.startswith("figures/")}


@pytest.fixture(scope="session")
def sample_lake(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """sample_docs, read as a user would read it."""
    lake = tmp_path_factory.mktemp("lakes") / "samples"
    ended = pagelake("ingest", SAMPLES, lake, "--json")
    assert ended.code == 0, ended.err
    return lake


@pytest.fixture(scope="session")
def sample_lake_by_engine(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """sample_docs with every page read by the CPU engine."""
    lake = tmp_path_factory.mktemp("lakes") / "samples-by-engine"
    ended = pagelake("ingest", SAMPLES, lake, "--text-layer", "ignore", "--json")
    assert ended.code == 0, ended.err
    return lake

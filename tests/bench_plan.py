"""What planning costs: a listing of many objects against a lake that knows them all.

    python -m tests.bench_plan            # 100,000 and 1,000,000 objects, one JSON object each

The listing is a stand-in that makes objects up; its own CPU is measured alone and taken off, as a
bucket's listing is paid for in any case. The lake is a real one of that many documents in shards of
a thousand. Each size runs in a process of its own, whose peak memory is told.
"""

from __future__ import annotations

import json
import resource
import subprocess
import sys
import tempfile
import time
from collections import deque
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pyarrow as pa

from schemas.records import SourceObject
from schemas.settings import document_id
from schemas.tables import DOCUMENTS
from tasks.known import KnownDocuments
from tasks.localstore import LocalStore
from tasks.rows import parquet

RECIPE = "0123456789abcdef"
SHARD = 1_000


def listing(count: int) -> Iterator[SourceObject]:
    for number in range(count):
        yield SourceObject(
            f"s3://archive-of-the-city/2026/{number // 1000:04}/letter-{number:09}.pdf",
            f"{number:032x}",
            100_000 + number,
        )


def write_lake(store: LocalStore, count: int) -> None:
    now = datetime.now(UTC)
    run_id = "20260301T000000Z-abcdef"
    objects = listing(count)
    for shard in range(count // SHARD):
        shard_id = f"{run_id}-{shard + 1:05d}"
        rows = []
        for _ in range(SHARD):
            found = next(objects)
            rows.append(
                {
                    "document_id": document_id(found.uri, found.version, RECIPE),
                    "source_uri": found.uri,
                    "source_version": found.version,
                    "recipe_id": RECIPE,
                    "content_sha256": f"{int(found.version, 16):064x}",
                    "media_type": "application/pdf",
                    "source_bytes": found.size_bytes,
                    "page_count": 3,
                    "source_page_count": 3,
                    "pages_ok": 3,
                    "pages_empty": 0,
                    "pages_failed": 0,
                    "status": "ok",
                    "metadata": [("title", "A letter to the council")],
                    "runs": 1,
                    "run_id": run_id,
                    "shard_id": shard_id,
                    "started_at": now,
                    "finished_at": now,
                }
            )
        table = pa.Table.from_pylist(rows, schema=DOCUMENTS)
        store.put(f"documents/ingest_date=2026-03-01/{shard_id}.parquet", parquet(table))


def measure(lake: str, count: int) -> dict[str, float]:
    """Plan once, in this process."""
    began = time.process_time()
    deque(listing(count), maxlen=0)
    listed = time.process_time() - began
    wall, cpu = time.monotonic(), time.process_time()
    with KnownDocuments(LocalStore(lake)) as known:
        assert known.newest_recipe() == RECIPE
        assert next(known.todo(listing(count), RECIPE, retry_failed=False), None) is None
    wall, cpu = time.monotonic() - wall, time.process_time() - cpu
    return {
        "objects": count,
        "seconds": round(wall, 1),
        "cpu_us_an_object": round((cpu - listed) / count * 1e6, 2),
        "peak_mb": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024),
    }


def main() -> None:
    for count in (100_000, 1_000_000):
        with tempfile.TemporaryDirectory() as folder:
            store = LocalStore(Path(folder))
            store.prepare()
            write_lake(store, count)
            told = subprocess.run(
                [sys.executable, "-m", "tests.bench_plan", folder, str(count)],
                check=True,
                capture_output=True,
                text=True,
            )
        print(told.stdout.strip(), flush=True)


if __name__ == "__main__":
    if len(sys.argv) == 3:
        print(json.dumps(measure(sys.argv[1], int(sys.argv[2]))))
    else:
        main()

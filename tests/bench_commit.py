"""What committing costs: writing parts, as a share of all CPU, with an engine that answers at once.

    python -m tests.bench_commit SOURCE ANSWER

SOURCE is a folder of documents, ANSWER a file with what a model says of every page. The stand-in
for the engine runs in a process of its own, whose CPU does not count. Prints one JSON object.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any

from flows.bench import run_bench
from tasks.progress import Lines
from tasks.shardlog import ShardLog
from tasks.shardreader import ShardReader

spent = 0.0


def timed(step: Callable[..., Any]) -> Callable[..., Any]:
    """The step, with the CPU of its thread added up."""

    def run(*arguments: Any) -> Any:
        global spent
        began = time.thread_time()
        try:
            return step(*arguments)
        finally:
            spent += time.thread_time() - began

    return run


def main(source: str, answer: str) -> None:
    ShardLog.append = timed(ShardLog.append)  # type: ignore[method-assign]
    ShardReader._write_documents = timed(ShardReader._write_documents)  # type: ignore[method-assign]
    engine = [sys.executable, "-m", "tests.standin", "--seconds", "0", "--answer", answer]
    with subprocess.Popen(engine, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        url = process.stdout.readline().strip()
        told = run_bench({"source": source, "engine_url": (url,), "text_layer": "ignore"}, Lines())
        process.terminate()
    whole = told["cpu_seconds_a_page"] * told["pages"]
    figures = {
        "pages": told["pages"],
        "cpu_ms_a_page": round(told["cpu_seconds_a_page"] * 1000, 2),
        "commit_cpu_ms_a_page": round(spent / told["pages"] * 1000, 3),
        "commit_share": round(spent / whole, 4),
    }
    print(json.dumps(figures))


if __name__ == "__main__":
    main(*sys.argv[1:])

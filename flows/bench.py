"""`pagelake bench`: an ingest into a lake of its own, and how busy it kept the engine."""

from __future__ import annotations

import os
import resource
import tempfile
from pathlib import Path
from typing import Any

from flows.ingest import run_ingest
from schemas.settings import IngestSettings
from tasks.engines.choice import asked_of, engine_of
from tasks.engines.meter import Meter
from tasks.progress import Watcher


def run_bench(given: dict[str, Any], watcher: Watcher) -> dict[str, Any]:
    """Read a source into a temporary lake and measure it.

    Args:
        given: the fields of `IngestSettings` but `dest`.
        watcher: shows how the run goes on.

    Returns:
        Rates over the time in which the engine had something to do (over the whole run for the CPU
        engine), `engine_full` as the share of that time in which it had all it could take, and CPU
        seconds a page of this process and its workers.

    Raises:
        UsageError, RunError: see `run_ingest`.
    """
    meter = Meter()
    before = _cpu_seconds()
    with tempfile.TemporaryDirectory(prefix="pagelake-bench-") as folder:
        settings = IngestSettings(**given, dest=str(Path(folder) / "lake"))
        outcome = run_ingest(settings, watcher, meter)
    asked = asked_of(settings)
    pages = outcome.summary["pages"]["total"]
    seconds = meter.seconds or outcome.summary["seconds"]
    return {
        "engine": engine_of(settings),
        "model": asked.profile.model if asked else None,
        "pages": pages,
        "pages_failed": outcome.summary["pages"]["failed"],
        "seconds": round(seconds, 3),
        "requests_per_second": round(meter.requests / seconds, 3),
        "total_tokens_per_second": round((meter.prompt_tokens + meter.output_tokens) / seconds, 1),
        "output_tokens_per_second": round(meter.output_tokens / seconds, 1),
        "pages_per_second": round(pages / seconds, 3),
        "engine_full": round(meter.full_seconds / seconds, 3) if meter.requests else None,
        "cpu_seconds_a_page": round((_cpu_seconds() - before) / max(pages, 1), 4),
        "cores": len(os.sched_getaffinity(0)),
    }


def _cpu_seconds() -> float:
    """User and system time of this process and of its children that have ended."""
    spent = 0.0
    for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN):
        usage = resource.getrusage(who)
        spent += usage.ru_utime + usage.ru_stime
    return spent

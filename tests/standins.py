"""What stands for fetching, opening, reading and parsing, so that all that writes a lake runs."""

from __future__ import annotations

import asyncio
import hashlib
import io
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from schemas.records import LocalDocument, PageRef, PageResult, PlannedDocument
from tasks import worker
from tasks.parseagain import parse_again, parser_version
from tests.madeup import SOURCE, parse, seconds_for
from tests.simulation import HERE


class Pool:
    """In place of the processes in which documents are opened, and pages parsed anew."""

    async def run(self, seconds: float, function: Callable[..., Any], *arguments: Any) -> Any:
        if function is worker.inspect:
            return SOURCE.get().facts(*arguments)
        if function is parser_version:
            return "2"
        assert function is parse_again
        said, version = arguments
        folders = [uri.rpartition("/")[0] for uri, _ in said.figures]
        return parse(said.raw, folders[0] if folders else "", version)

    def __enter__(self) -> Pool:
        return self

    def __exit__(self, *_: object) -> None:
        pass


class Fetcher:
    """In place of downloads."""

    threads = None

    def fetch(self, planned: PlannedDocument) -> LocalDocument:
        return SOURCE.get().fetch(planned)

    def keep(self, uri: str, fill: Callable[[Callable[[bytes], object]], None]) -> LocalDocument:
        data = io.BytesIO()
        fill(data.write)
        source = SOURCE.get()
        return source.kept(uri, source.content(hashlib.sha256(data.getvalue()).hexdigest()))

    def release(self, document: LocalDocument) -> None:
        pass

    def __enter__(self) -> Fetcher:
        return self

    def __exit__(self, *_: object) -> None:
        pass


class Reader:
    """In place of rendering, the engine and parsing."""

    async def read(self, ref: PageRef) -> PageResult:
        name = HERE.get().name
        await asyncio.sleep(seconds_for(name, ref.document_id, ref.page_number))
        return SOURCE.get().page(ref, name)


class Engines:
    """In place of the engines of a run."""

    async def recognizer(self, recipe: object) -> None:
        pass

    async def describer(self, recipe: object) -> None:
        pass

    def count(self) -> int:
        return 0

    async def __aenter__(self) -> Engines:
        return self

    async def __aexit__(self, *_: object) -> None:
        pass


@contextmanager
def _stop_signals(
    stopping: asyncio.Event, pool: Pool, abandon: Callable[[], None]
) -> Iterator[list[int]]:
    received: list[int] = []
    loop = asyncio.get_running_loop()

    def stop() -> None:
        received.append(15)
        stopping.set()

    HERE.get().interrupt = lambda: loop.call_soon_threadsafe(stop)
    try:
        yield received
    finally:
        HERE.get().interrupt = None


def from_here(patch: pytest.MonkeyPatch) -> None:
    """Let runs read what is in `SOURCE`, and write into the store of the machine they run on."""
    patch.setattr("tasks.stores.store_of", lambda *_: HERE.get().store)
    patch.setattr("flows.upkeep.WorkerPool", lambda *_: Pool())
    for name, stand_in in {
        "store_of": lambda *_: HERE.get().store,
        "listing_of": lambda *_: SOURCE.get().listing(),
        "WorkerPool": lambda *_: Pool(),
        "Fetcher": lambda *_: Fetcher(),
        "PageReader": lambda **_: Reader(),
        "Engines": lambda *_: Engines(),
        "stop_signals": _stop_signals,
    }.items():
        patch.setattr(f"flows.ingest.{name}", stand_in)

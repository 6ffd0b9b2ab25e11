"""`ingest` as a worker without any right to write: it asks for no lock and no claim, and goes on.

The arguments are the pages of a part, which no plan says, and the settings as JSON.
"""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import flows.ingest
import tasks.work
from schemas.settings import IngestSettings
from tasks import plan
from tasks.progress import Lines
from tasks.store import Store


class NoLock:
    """The place of `LakeLock`, held by everybody at once."""

    def __init__(self, *_: Any) -> None:
        self.token = uuid.uuid4().hex

    def check(self) -> None:
        pass

    def __enter__(self) -> NoLock:
        return self

    def __exit__(self, *_: Any) -> None:
        pass


class NoClaim:
    """The place of `Claim`, held by everybody at once."""

    taken_over = careful = False

    def __init__(self, *_: Any) -> None:
        pass

    def check(self) -> None:
        pass

    async def __aenter__(self) -> NoClaim:
        return self

    async def __aexit__(self, *_: Any) -> None:
        pass


def main(arguments: list[str]) -> None:
    part_pages, settings = int(arguments[0]), IngestSettings.model_validate_json(arguments[1])
    read_segments = plan.read_segments

    def cut_otherwise(store: Store, run_id: str) -> Iterator[plan.Segment]:
        for segment in read_segments(store, run_id):
            yield replace(segment, part_pages=part_pages)

    plan.read_segments = cut_otherwise
    flows.ingest.LakeLock = NoLock  # type: ignore[assignment,misc]
    tasks.work.Claim = NoClaim  # type: ignore[assignment,misc]
    flows.ingest.run_ingest(settings, Lines())

"""What a user can set; the command line and the flow's parameters and form are made from it.

Every field is flat, named as on the command line (`--part-pages` is `part_pages`), and described
once, here.
"""

from __future__ import annotations

import hashlib
import json
import os
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field


def usable_cores() -> int:
    """How many cores this process may use (cgroup and affinity masks are respected by Linux)."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


class Settings(BaseModel):
    """Base of all settings: frozen, and a name that does not exist is refused."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class PlanSettings(Settings):
    """What decides which documents are read, and how."""

    source: str = Field(description="Folder or file to read documents from.")
    dest: str = Field(description="Folder of the lake; made if it does not exist.")
    engine: Literal["auto", "rapidocr"] = Field(
        "auto", description="What reads pages that have no trustworthy text of their own."
    )
    text_layer: Literal["auto", "ignore"] = Field(
        "auto",
        description="auto: text embedded in a page is used where it passes a check. "
        "ignore: every page goes through the engine.",
    )
    layout: Literal["full", "none"] = Field(
        "full",
        description="full: blocks with kinds and boxes, tables, figures. none: text alone.",
    )
    include: tuple[str, ...] = Field(
        (), description="Read only files whose path matches this glob (again for more)."
    )
    exclude: tuple[str, ...] = Field(
        (), description="Leave out files whose path matches this glob (again for more)."
    )
    limit: int | None = Field(None, ge=1, description="Read at most this many documents.")
    retry_failed: bool = Field(
        False, description="Read everything again that failed, whatever the reason."
    )
    new_recipe: bool = Field(
        False,
        description="Read all documents again if the lake was read with another recipe.",
    )


class IngestSettings(PlanSettings):
    """All settings of one run."""

    max_pages: int | None = Field(
        None, ge=1, description="Stop cleanly after about this many pages; the next run goes on."
    )
    wait: bool = Field(False, description="If another run is writing to the lake, wait for it.")
    take_over_after: float = Field(
        60.0, ge=5, description="Seconds of silence after which a lock of another host is broken."
    )
    processes: int = Field(
        default_factory=usable_cores, ge=1, description="Worker processes, one thread each."
    )
    max_in_flight: int | None = Field(
        None, ge=1, description="Pages being worked on at once [default: 4 a process]."
    )
    page_timeout: float = Field(
        15.0, gt=0, description="Seconds that opening and rendering one page may take."
    )
    read_timeout: float = Field(
        300.0, gt=0, description="Seconds that reading and laying out one page may take."
    )
    max_document_bytes: int = Field(
        2 * 1024**3, ge=1, description="Larger documents fail with too_large, unread."
    )
    shard_documents: int = Field(1000, ge=1, description="Most documents a shard.")
    shard_bytes: int = Field(2 * 1024**3, ge=1, description="Most bytes of documents a shard.")
    part_pages: int = Field(500, ge=1, description="Most pages a part (one Parquet file).")
    part_seconds: float = Field(
        60.0, gt=0, description="A part is committed after this time even if it is small."
    )

    def in_flight(self) -> int:
        """Pages being worked on at once: enough that no process waits for the next."""
        return self.max_in_flight or 4 * self.processes


class Recipe(Settings):
    """What decides the raw answer to a page; transport, library versions and the parser do not."""

    model: str
    render: str
    text_layer: str
    layout: str

    @property
    def recipe_id(self) -> str:
        """16 hexadecimal digits: the same recipe has the same id on every machine."""
        return digest(self.model_dump())[:16]


def digest(value: Any) -> str:
    """SHA-256 of a JSON value's canonical form, in hexadecimal."""
    canonical = json.dumps(value, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(canonical.encode()).hexdigest()


def document_id(uri: str, version: str, recipe_id: str) -> str:
    """The key of a document: 32 hexadecimal digits over address, version and recipe."""
    return digest([uri, version, recipe_id])[:32]

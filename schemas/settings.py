"""What a user can set; the command line and the flow's parameters and form are made from it.

Every field is flat, named as on the command line (`--part-pages` is `part_pages`), and described
once, here.
"""

from __future__ import annotations

import hashlib
import json
import os
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field


def usable_cores() -> int:
    """How many cores this process may use (cgroup and affinity masks are respected by Linux)."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


class Settings(BaseModel):
    """Base of all settings: frozen, and a name that does not exist is refused."""

    model_config = ConfigDict(frozen=True, extra="forbid")


StorageOption = Annotated[
    tuple[str, ...],
    Field(
        description="KEY=VALUE for object stores, e.g. endpoint_url=…, region=…, profile=…, "
        "anon=true, requester_pays=true, sse=aws:kms; with source. or dest. before KEY for one "
        "side (again for more).",
        repr=False,
    ),
]
SingleWriter = Annotated[
    bool,
    Field(
        description="Write to a store without conditional writes; nobody else may write meanwhile."
    ),
]
Wait = Annotated[bool, Field(description="If another run is writing to the lake, wait for it.")]
TakeOverAfter = Annotated[
    float,
    Field(ge=5, description="Seconds of silence after which a lock of another host is broken."),
]
Catalog = Annotated[
    str | None,
    Field(
        description="Iceberg catalog to register the lake's files in: sqlite:///PATH, http(s):// "
        "for a REST catalog, or a name of pyiceberg's configuration."
    ),
]
Namespace = Annotated[str, Field(description="Namespace of the tables in the catalog.")]
Processes = Annotated[int, Field(ge=1, description="Worker processes, one thread each.")]


class EngineSettings(Settings):
    """What decides how a model is run by vLLM, here or by `pagelake serve`."""

    model: str | None = Field(
        None, description="Model of the engines vllm and server [default: deepseek-ocr]."
    )
    weights: str | None = Field(
        None, description="Folder or name of the model's files, if not the model's own repository."
    )
    revision: str | None = Field(
        None, description="Revision of the model's files; another revision is another recipe."
    )
    tensor_parallel: int = Field(1, ge=1, description="GPUs that one copy of the model spans.")
    data_parallel: int = Field(1, ge=1, description="Copies of the model, each on its own GPUs.")
    prefill_chunk: int | None = Field(
        None, ge=16, description="Tokens a step when long prompts are taken in piece by piece."
    )
    ngram_processor: Literal["pagelake", "vllm"] = Field(
        "pagelake", description="Whose n-gram processor keeps the model from repeating itself."
    )
    engine_option: tuple[str, ...] = Field(
        (), description="NAME=VALUE for vLLM's engine, e.g. max_num_seqs=256 (again for more)."
    )


class ServeSettings(EngineSettings):
    """What `pagelake serve` starts."""

    host: str = Field("127.0.0.1", description="Address to listen on.")
    port: int = Field(8000, ge=1, le=65535, description="Port to listen on.")
    api_servers: int | None = Field(
        None, ge=1, description="Processes that prepare images [default: by the number of GPUs]."
    )


class PlanSettings(EngineSettings):
    """What decides which documents are read, and how."""

    source: str = Field(
        description="Folder, s3:// (gs://, az://) prefix, single document, or manifest (.txt, "
        ".parquet) to read documents from."
    )
    dest: str = Field(description="Folder or s3:// address of the lake; made if it is not there.")
    storage_option: StorageOption = ()
    engine: Literal["auto", "rapidocr", "vllm", "server"] = Field(
        "auto",
        description="What reads pages that have no trustworthy text of their own. auto: server if "
        "there is an --engine-url, else vllm if there is a GPU for it, else rapidocr on the CPU.",
    )
    engine_url: tuple[str, ...] = Field(
        (), description="Address of an OpenAI-compatible server of the model (again for more)."
    )
    mode: str | None = Field(
        None, description="How pages are rendered for the model: gundam or global for deepseek-ocr."
    )
    prompt: str | None = Field(
        None,
        description="What the model is asked: markdown, ocr, free, figure, describe, locate:TEXT, "
        "as far as it has them [default: markdown].",
    )
    pages_per_prompt: int = Field(
        1,
        ge=1,
        description="With --prompt describe: so many pages in one question; the answer goes to the "
        "document's metadata.",
    )
    attempts: int = Field(
        5, ge=1, description="Answers asked of a model for one page before the page has failed."
    )
    fallback: Literal["none", "text_layer", "rapidocr"] = Field(
        "none", description="What reads a page of which no answer of the model was any good."
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
    mark_deleted: bool = Field(
        False, description="Note in deleted_at the documents that are gone from the source."
    )
    catalog: Catalog = None
    namespace: Namespace = "pagelake"
    single_writer: SingleWriter = False
    wait: Wait = False
    take_over_after: TakeOverAfter = 60.0
    processes: Processes = Field(default_factory=usable_cores)
    max_in_flight: int | None = Field(
        None,
        ge=1,
        description="Pages being worked on at once [default: 4 a process, and 256 a server].",
    )
    page_timeout: float = Field(
        15.0, gt=0, description="Seconds that opening and rendering one page may take."
    )
    read_timeout: float = Field(
        300.0, gt=0, description="Seconds that one answer of the engine may take, or a layout."
    )
    silence_timeout: float = Field(
        180.0, gt=0, description="Seconds that a server may be silent during an answer."
    )
    connect_timeout: float = Field(
        10.0, gt=0, description="Seconds that connecting to a server may take."
    )
    engine_wait: float = Field(
        600.0, ge=0, description="Seconds to wait for servers while none of them answers."
    )
    max_document_bytes: int = Field(
        2 * 1024**3, ge=1, description="Larger documents fail with too_large, unread."
    )
    max_archive_members: int = Field(
        100_000, ge=1, description="Most documents that are read of one archive."
    )
    max_archive_bytes: int = Field(
        64 * 1024**3, ge=1, description="Most bytes that one archive may unpack to."
    )
    shard_documents: int = Field(1000, ge=1, description="Most documents a shard.")
    shard_bytes: int = Field(2 * 1024**3, ge=1, description="Most bytes of documents a shard.")
    part_pages: int = Field(500, ge=1, description="Most pages a part (one Parquet file).")
    part_seconds: float = Field(
        60.0, gt=0, description="A part is committed after this time even if it is small."
    )

    def in_flight(self, engines: int) -> int:
        """Pages being worked on at once: enough that neither a process nor an engine waits."""
        return self.max_in_flight or 4 * self.processes + 256 * engines


class UpkeepSettings(Settings):
    """What every command takes that tends a lake which is there."""

    dest: str = Field(description="Folder or s3:// address of the lake.")
    storage_option: StorageOption = ()
    catalog: Catalog = None
    namespace: Namespace = "pagelake"
    single_writer: SingleWriter = False
    wait: Wait = False
    take_over_after: TakeOverAfter = 60.0


class CompactSettings(UpkeepSettings):
    """What `pagelake compact` does."""

    part_bytes: int = Field(
        64 * 1024**2,
        ge=1,
        le=256 * 1024**2,
        description="Size of the Parquet files to write; below half of it they are small.",
    )


class ForgetSettings(UpkeepSettings):
    """What `pagelake forget` takes out of a lake."""

    uri: str = Field(min_length=1, description="Address of the document, as in source_uri.")


class ReparseSettings(UpkeepSettings):
    """How `pagelake reparse` goes about it."""

    processes: Processes = Field(default_factory=usable_cores)
    page_timeout: float = Field(15.0, gt=0, description="Seconds that parsing one page may take.")


class Recipe(Settings):
    """What decides the raw answer to a page; transport, library versions and the parser do not.

    The CPU engine is not asked anything: for it everything after `layout` is None.
    """

    model: str
    render: str
    text_layer: str
    layout: str
    revision: str | None = None
    mode: str | None = None
    prompt: str | None = None
    ngram: str | None = None
    pages_per_prompt: int | None = None
    fallback: str | None = None

    @property
    def recipe_id(self) -> str:
        """16 hexadecimal digits: the same recipe has the same id on every machine.

        Fields that are None do not count, so that a new one leaves old recipes what they were.
        """
        return digest(self.model_dump(exclude_none=True))[:16]


def digest(value: Any) -> str:
    """SHA-256 of a JSON value's canonical form, in hexadecimal."""
    canonical = json.dumps(value, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(canonical.encode()).hexdigest()


def document_id(uri: str, version: str, recipe_id: str) -> str:
    """The key of a document: 32 hexadecimal digits over address, version and recipe."""
    return digest([uri, version, recipe_id])[:32]

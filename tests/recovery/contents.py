"""What is in a lake, object by object: its rows as a plain glob sees them, and what is too many."""

from __future__ import annotations

import io
import json
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

Row = tuple[Any, ...]

_PAGES = ("source_uri", "page_number", "document_id", "status", "error_code", "text", "markdown")
_BLOCKS = ("document_id", "page_number", "block_number", "kind", "text", "figure_uri")
_DOCUMENTS = (
    "source_uri",
    "document_id",
    "content_sha256",
    "status",
    "error_code",
    "page_count",
    "pages_ok",
    "pages_failed",
)


@dataclass(frozen=True)
class Contents:
    """All objects of a lake by their keys."""

    objects: Mapping[str, bytes]

    @classmethod
    def of_folder(cls, folder: Path) -> Contents:
        """A lake on this machine, but for the empty file that its writers lock."""
        files = {path.relative_to(folder): path for path in folder.rglob("*") if path.is_file()}
        del files[Path("_runs/swap")]
        return cls({at.as_posix(): path.read_bytes() for at, path in files.items()})

    @cached_property
    def pages(self) -> list[Row]:
        return self._rows("pages", _PAGES)

    @cached_property
    def blocks(self) -> list[Row]:
        return self._rows("blocks", _BLOCKS)

    @cached_property
    def documents(self) -> list[Row]:
        return self._rows("documents", _DOCUMENTS)

    @property
    def rows(self) -> tuple[list[Row], list[Row], list[Row]]:
        """All that must be the same whatever a run went through."""
        return self.documents, self.pages, self.blocks

    def keys(self, prefix: str) -> list[str]:
        return sorted(key for key in self.objects if key.startswith(prefix))

    def twice(self) -> list[Row]:
        """Keys of rows that are there more than once."""
        keys = Counter[Row](("page", *row[:2]) for row in self.pages)
        keys.update(("block", *row[:3]) for row in self.blocks)
        keys.update(("document", row[0]) for row in self.documents)
        return [key for key, count in keys.items() if count > 1]

    def not_accounted_for(self) -> set[str]:
        """Objects that nothing names, and those that are named and missing."""
        return set(self.objects) ^ self._named()

    def parts(self) -> list[str]:
        """Pages objects that hold rows."""
        there = self.keys("pages/")
        return [key for key in there if pq.read_metadata(io.BytesIO(self.objects[key])).num_rows]

    def mentions(self, words: str) -> list[str]:
        """Objects about runs in which these words stand."""
        return [key for key in self.keys("_runs/") if words.encode() in self.objects[key]]

    def _named(self) -> set[str]:
        named = {"_runs/lake.json", *self.keys("_runs/compactions/"), *self.keys("pages/")}
        for key in self.keys("pages/"):
            told = json.loads(self._footer(key)[b"pagelake.part"])
            named.update([told["blocks"]] if told["blocks"] else [])
            shard = key.removeprefix("pages/").rpartition("-")[0]
            named.add(f"documents/{shard}.parquet")
        named.update(row[-1] for row in self.blocks if row[-1] is not None)
        for key in self.keys("_runs/2"):
            run_id, name = key.split("/")[1:3]
            if not name.startswith("plan-"):
                continue
            named.update([key, f"_runs/summaries/{run_id}.json"])
            for job in json.loads(self.objects[key])["jobs"]:
                mends = "mend-" if job["mends"] else ""
                named.add(f"_runs/{run_id}/done/{mends}{job['shard']['shard_id']}")
        return named

    def _footer(self, key: str) -> dict[bytes, bytes]:
        return dict(pq.read_metadata(io.BytesIO(self.objects[key])).metadata)

    def _rows(self, table: str, columns: tuple[str, ...]) -> list[Row]:
        found = [
            tuple(row.values())
            for key in self.keys(f"{table}/")
            for row in pq.read_table(io.BytesIO(self.objects[key]), columns=list(columns))
            .select(columns)
            .to_pylist()
        ]
        return sorted(found, key=repr)

"""One part of the lake, its pages parsed anew from what an engine once said of them."""

from __future__ import annotations

import asyncio
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from schemas.errors import DocumentError
from schemas.records import Extent, PageResult, ParsedPage, Shard
from schemas.tables import BLOCKS, PAGES
from tasks.grounding import FLAGS
from tasks.keyorder import Keyed, in_key_order
from tasks.parseagain import Figure, Said, can_parse, parse_again
from tasks.plan import read_segments
from tasks.pool import WorkerPool
from tasks.rewrite import Part
from tasks.rows import blocks_table
from tasks.store import Store

_AT_ONCE = 1_000
"""Pages whose answers are parsed before their rows are made."""

_LOOKED_AT = ["origin", "parser_version", "engine", "model", "run_id"]

_Row = dict[str, Any]
_Key = tuple[str, int]


@dataclass(frozen=True, slots=True)
class Anew:
    """The rows and extents of a part after its pages were parsed, and how many were.

    `failed` counts pages whose answer the parser did not survive; they are as they were.
    """

    pages: pa.Table
    blocks: pa.Table
    extents: tuple[Extent, ...]
    parsed: int
    failed: int


class PartParser:
    """Parses parts in the worker processes of a pool, a page at a time.

    Args:
        store: the lake.
        pool: where parsing is done.
        seconds: that one page may take.
        version: of today's parser.
    """

    def __init__(self, store: Store, pool: WorkerPool, seconds: float, version: str) -> None:
        self._store = store
        self._pool = pool
        self._seconds = seconds
        self._version = version
        self._layouts: dict[str, bool] = {}

    def look(self, key: str) -> Counter[bool]:
        """How many pages of a part another parser made: True those that can be parsed anew."""
        with self._store.open(key) as file:
            rows = pq.ParquetFile(file).read(columns=_LOOKED_AT).to_pylist()
        return Counter(self._can_parse(row) for row in rows if self._is_old(row))

    async def parse(self, part: Part, shard: Shard) -> Anew:
        """A part with its pages parsed anew; nothing is written yet."""
        figures = _figures(part.blocks)
        pages: list[pa.Table] = []
        blocks: list[pa.Table] = []
        done: set[_Key] = set()
        failed = 0
        for begin in range(0, part.pages.num_rows, _AT_ONCE):
            rows = part.pages.slice(begin, _AT_ONCE).to_pylist()
            old = [row for row in rows if self._is_due(row)]
            answers = await asyncio.gather(*(self._ask(row, figures) for row in old))
            made = [(row, parsed) for row, parsed in zip(old, answers, strict=True) if parsed]
            failed += len(old) - len(made)
            done.update(_key(row) for row, _ in made)
            for row, parsed in made:
                row.update(_told_anew(row, parsed))
            pages.append(pa.Table.from_pylist(rows, schema=PAGES))
            blocks += _blocks(made, shard)
        new = pa.concat_tables(pages) if pages else part.pages
        return Anew(
            pages=new,
            blocks=_put_together(new, part.blocks, blocks, done),
            extents=_counted(part.entry.extents, new),
            parsed=len(done),
            failed=failed,
        )

    def _is_old(self, row: _Row) -> bool:
        return bool(row["origin"] == "ocr" and row["parser_version"] != self._version)

    def _is_due(self, row: _Row) -> bool:
        return self._is_old(row) and row["raw_output"] is not None and self._can_parse(row)

    def _can_parse(self, row: _Row) -> bool:
        return can_parse(row["engine"], row["model"], self._with_layout(row["run_id"]))

    def _with_layout(self, run_id: str) -> bool:
        """Whether a run was asked for blocks: only its plan knows."""
        if run_id not in self._layouts:
            segment = next(read_segments(self._store, run_id), None)
            self._layouts[run_id] = segment is None or segment.recipe.layout == "full"
        return self._layouts[run_id]

    async def _ask(self, row: _Row, figures: Mapping[_Key, list[Figure]]) -> ParsedPage | None:
        said = Said(
            raw=row["raw_output"],
            engine=row["engine"],
            model=row["model"],
            width_pt=row["width_pt"],
            height_pt=row["height_pt"],
            turn=row["rotation"],
            flags=tuple(row["flags"] or ()),
            with_layout=self._with_layout(row["run_id"]),
            figures=tuple(figures.get(_key(row), ())),
        )
        try:
            return await self._pool.run(self._seconds, parse_again, said, self._version)
        except DocumentError:
            return None


def _told_anew(row: _Row, parsed: ParsedPage) -> _Row:
    """What changes of a row; a page that has failed stays failed, whatever its text."""
    shown = parsed.text.strip() or any(block.figure_uri for block in parsed.blocks)
    others = [flag for flag in row["flags"] or () if flag not in FLAGS]
    return {
        "status": row["status"] if row["status"] == "failed" else "ok" if shown else "empty",
        "markdown": parsed.markdown,
        "text": parsed.text,
        "parser_version": parsed.parser_version,
        "flags": [*others, *parsed.flags],
    }


def _blocks(made: Sequence[tuple[_Row, ParsedPage]], shard: Shard) -> list[pa.Table]:
    """The new rows of `blocks`; like their pages they are of the run that read them."""
    by_run = defaultdict[str, list[PageResult]](list)
    for row, parsed in made:
        page = PageResult(row["document_id"], row["source_uri"], row["page_number"], row["status"])
        by_run[row["run_id"]].append(replace(page, blocks=parsed.blocks))
    return [blocks_table(found, replace(shard, run_id=run)) for run, found in by_run.items()]


def _put_together(
    pages: pa.Table, old: pa.Table, new: Sequence[pa.Table], done: set[_Key]
) -> pa.Table:
    """Old rows of `blocks` but those of pages that are done, and new ones, as their pages stand."""
    places = {key: place for place, key in enumerate(_keys(pages))}
    kept = old.filter(pa.array([key not in done for key in _keys(old)], pa.bool_()))
    found: list[Keyed] = [
        (rows, np.array([places[key] for key in _keys(rows)], np.int64)) for rows in (kept, *new)
    ]
    return in_key_order(found, BLOCKS)[0]


def _counted(extents: Sequence[Extent], pages: pa.Table) -> tuple[Extent, ...]:
    """The extents with today's counts of pages with and without text."""
    rows = zip(pages["document_id"].to_pylist(), pages["status"].to_pylist(), strict=True)
    counts = Counter(rows)
    return tuple(
        replace(
            extent,
            pages_ok=counts[extent.document_id, "ok"],
            pages_empty=counts[extent.document_id, "empty"],
        )
        for extent in extents
    )


def _figures(blocks: pa.Table) -> dict[_Key, list[Figure]]:
    """The figures of each page that were cut out, with their boxes."""
    columns = ["document_id", "page_number", "figure_uri", "x0", "y0", "x1", "y1"]
    found = defaultdict[_Key, list[Figure]](list)
    for row in blocks.select(columns).filter(blocks["figure_uri"].is_valid()).to_pylist():
        if row["x0"] is not None:
            box = (row["x0"], row["y0"], row["x1"], row["y1"])
            found[_key(row)].append((row["figure_uri"], box))
    return found


def _keys(rows: pa.Table) -> list[_Key]:
    ids, numbers = rows["document_id"].to_pylist(), rows["page_number"].to_pylist()
    return list(zip(ids, numbers, strict=True))


def _key(row: Mapping[str, Any]) -> _Key:
    return row["document_id"], row["page_number"]

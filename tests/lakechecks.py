"""What must hold of a lake: at every moment for those who read it, and when all work is done."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from schemas.errors import ErrorCode
from schemas.settings import document_id
from tasks.compaction import overlay
from tasks.lakefiles import lake_files, shard_of
from tasks.lock import KEY
from tasks.runs import open_runs
from tasks.shardlog import read_entry
from tests.madeup import Content, Source, picture
from tests.memorystore import Bucket, MemoryStore

Row = dict[str, Any]
Key = tuple[str, int]

_COLUMNS = {
    "documents": [
        *("document_id", "source_uri", "page_count", "pages_ok", "pages_empty", "pages_failed"),
        *("status", "error_code"),
    ],
    "pages": ["document_id", "page_number", "source_uri", "status", "error_code", "engine", "text"],
    "blocks": ["document_id", "page_number", "block_number", "text", "figure_uri"],
}


@dataclass
class Seen:
    """What readers find: rows of pages with their blocks by key, rows of documents by id."""

    pages: dict[Key, Row]
    blocks: dict[Key, list[Row]]
    documents: dict[str, Row]


@dataclass
class Readers:
    """Those who read a lake while it is written.

    `forgotten` are addresses that somebody has begun to forget: what is of them may go at any time.
    `litter` says that something was written, or not tidied up, after those who could have removed
    it were done: nobody must ever read it, but it may lie there.
    """

    bucket: Bucket
    forgotten: set[str] = field(default_factory=set)
    litter: bool = False
    before: Seen = field(default_factory=lambda: Seen({}, {}, {}))
    _read: dict[tuple[str, str], list[Row]] = field(default_factory=dict)

    def look(self) -> Seen:
        """Read the lake as it is now, and compare it with what was there before."""
        files = lake_files(MemoryStore(self.bucket))
        now = Seen(
            _by(_key, self.rows(files.keys("pages"))),
            _grouped(self.rows(files.keys("blocks"))),
            _by(lambda row: str(row["document_id"]), self.rows(files.keys("documents"))),
        )
        for key, blocks in now.blocks.items():
            assert key in now.pages, f"blocks of a page that is not there: {key}"
            by = now.pages[key]["engine"]
            for block in blocks:
                assert block["text"].endswith(f" by {by}"), f"page by {by}, {block}"
        for key, page in now.pages.items():
            assert len(now.blocks.get(key, ())) == _block_count(page), f"blocks lost of {page}"
        for key, page in self.before.pages.items():
            if self._may_go(page):
                continue
            assert key in now.pages, f"gone: {page}"
            if page["status"] != "failed":
                assert now.pages[key] == page, f"{page} became {now.pages[key]}"
                assert now.blocks.get(key) == self.before.blocks.get(key), f"new blocks: {page}"
        for name, row in self.before.documents.items():
            if not self._may_go(row):
                assert name in now.documents or not row["page_count"], f"gone: {row}"
        self.before = now
        return now

    def _may_go(self, row: Row) -> bool:
        return row["source_uri"].partition("!/")[0] in self.forgotten

    def rows(self, names: Iterable[str]) -> list[Row]:
        """The rows of some objects, of which each state is read but once."""
        found: list[Row] = []
        for key in names:
            data, tag = self.bucket.objects[key]
            if (key, tag) not in self._read:
                columns = _COLUMNS[key.partition("/")[0]]
                table = pq.read_table(pa.BufferReader(data), columns=columns)
                self._read[key, tag] = table.to_pylist()
            found += self._read[key, tag]
        return found

    def expect_complete(self, source: Source, recipe_id: str) -> None:
        """All work is done, and nothing is wrong with any document any more.

        Of a document that changed under its version it is known only that its rows agree.
        """
        seen = self.look()
        counted = Counter(key[0] for key in seen.pages)
        failed = Counter(key[0] for key, row in seen.pages.items() if row["status"] == "failed")
        for name, row in seen.documents.items():
            assert row["page_count"] == counted[name], f"{counted[name]} pages of {row}"
            assert row["pages_failed"] == failed[name], f"{failed[name]} failed of {row}"
            told = row["pages_ok"] + row["pages_empty"] + row["pages_failed"]
            assert told == counted[name], row
        assert set(counted) <= set(seen.documents), "pages without a row of their document"
        for uri, (content, version) in source.objects.items():
            self._expect_document(seen, recipe_id, version, uri, content, uri in source.unsure)
        self._expect_plain_files(seen, source)

    def _expect_document(
        self, seen: Seen, recipe_id: str, version: str, uri: str, content: Content, unsure: bool
    ) -> None:
        name = document_id(uri, version, recipe_id)
        assert name in seen.documents, f"{uri} of version {version} has no row"
        if unsure:
            return
        row = seen.documents[name]
        assert row["page_count"] == content.pages, f"{content} is {row}"
        for number in range(1, content.pages + 1):
            page = seen.pages[name, number]
            assert page["status"] != "failed", page
            assert page["text"] == f"{content.salt}/{number}", page
        if content.members and row["error_code"] == ErrorCode.SOURCE_CHANGED:
            return  # it could not be opened any more when some members had been read, and says so
        assert row["status"] == _status(content), row
        for number, member in enumerate(content.members):
            inside = f"{uri}!/{number}.pdf"
            self._expect_document(seen, recipe_id, version, inside, member, False)

    def _expect_plain_files(self, seen: Seen, source: Source) -> None:
        """What those find who read all files that there are, and what nobody reads."""
        # If an archive cannot be opened when its members have been begun, nobody knows their
        # figures: they have no rows.
        store = MemoryStore(self.bucket)
        hidden = overlay(store)
        tables = ("documents/", "pages/", "blocks/")
        there = [
            key
            for key in self.bucket.objects
            if not key.startswith(tables) or hidden.shows(shard_of(key))
        ]
        parts = [key for key in there if key.startswith("pages/")]
        _by(_key, self.rows(parts))
        documents = [key for key in there if key.startswith("documents/")]
        _by(lambda row: str(row["document_id"]), self.rows(documents))
        named = {read_entry(store, key).blocks for key in parts} - {None}
        blocks = {key for key in there if key.startswith("blocks/")}
        orphans = blocks - named
        shown = [block["figure_uri"] for each in seen.blocks.values() for block in each]
        wanted = set(shown) - {None}
        figures = {key for key in there if key.startswith("figures/")}
        known = {
            name
            for name, row in seen.documents.items()
            if row["source_uri"].partition("!/")[0] not in source.disturbed
            or "!/" not in row["source_uri"]
        }
        orphans |= {key for key in figures - wanted if key.split("/")[1] in known}
        missing = (named - blocks) | (wanted - figures)
        assert not missing, f"missing: {missing}"
        assert not orphans or self.litter, f"orphans: {orphans}"
        for key in wanted:
            assert self.bucket.objects[key][0] == picture(key)
        assert open_runs(store) == []
        left = [key for key in there if "/claims/" in key or key == KEY]
        assert not left or self.litter, f"left behind: {left}"


def _status(content: Content) -> str:
    """How a document ends that nothing is wrong with but what it is."""
    if content.members:
        return "ok" if all(member.pages for member in content.members) else "partial"
    return "ok" if content.pages else "failed"


def _by(key: Callable[[Row], Any], rows: Iterable[Row]) -> dict[Any, Row]:
    found: dict[Any, Row] = {}
    for row in rows:
        assert key(row) not in found, f"twice: {row}"
        found[key(row)] = row
    return found


def _grouped(rows: Iterable[Row]) -> dict[Key, list[Row]]:
    found: dict[Key, list[Row]] = {}
    for row in rows:
        found.setdefault(_key(row), []).append(row)
    for each in found.values():
        each.sort(key=lambda row: int(row["block_number"]))
        assert [row["block_number"] for row in each] == list(range(1, len(each) + 1)), each
    return found


def _key(row: Row) -> Key:
    return row["document_id"], row["page_number"]


def _block_count(page: Row) -> int:
    """How many blocks a page that was read has, by what `madeup` puts on it."""
    if page["status"] == "failed":
        return 0
    salt, number = map(int, page["text"].split("/"))
    return (salt + number) % 3

"""Where documents come from: what a listing and a download need of a folder or a bucket.

localsource.py    folders of this machine
s3source.py       buckets: listed page by page, read with If-Match
fsspecsource.py   any other fsspec address
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Protocol

from schemas.records import PlannedDocument, SourceObject

Found = tuple[str, SourceObject]
"""An object and its path below what was listed."""

GONE = "missing"
"""The version of an object that was named but is not there: fetching it says so in its row."""


class Source(Protocol):
    """Documents behind one kind of address."""

    def walk(self, address: str, lake: str) -> Iterator[Found]:
        """Every object below an address, or the one that it names; but nothing of the lake.

        Left out, as Spark, Hive and pyarrow leave them out: folders whose name begins with `_` or
        `.`, and objects whose name begins with `.`.

        Raises:
            SourceError: it does not exist, cannot be listed, or no further.
        """

    def look(self, address: str) -> SourceObject:
        """One object; with the version `GONE` if it cannot be looked at."""

    def fetch(self, planned: PlannedDocument) -> Iterator[bytes]:
        """The object's bytes, piece by piece, in the state that was planned.

        Raises:
            DocumentError: `source_missing`, `source_denied` or `source_changed`.
        """


def hidden(path: str) -> bool:
    """Whether a relative path is one of those that are left out."""
    *folders, name = path.split("/")
    return name.startswith(".") or any(folder[:1] in ("_", ".") for folder in folders)

"""What a lake stands on: the few operations on objects that its durability needs.

    localstore.py    a folder of this machine
    s3store.py       a bucket, with conditional requests
    fsspecstore.py   any other fsspec address, for a single writer

A key is a path relative to the lake, with `/`. Objects appear whole or not at all. A tag stands for
one state of an object, as an ETag does: `replace` and `delete` refuse if the object is no longer in
that state. An operation that the store itself fails raises `LakeError`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import BinaryIO, Protocol

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq


class AlreadyExists(Exception):
    """`create` found an object under its key."""


class Changed(Exception):
    """The object is gone or no longer in the state that the tag stands for."""


@dataclass(frozen=True, slots=True)
class StoredObject:
    """One object as a listing tells of it. `version` changes whenever the content does."""

    key: str
    size_bytes: int
    version: str


class Store(Protocol):
    """A lake's objects."""

    address: str
    """The lake as people write it: a folder, or `s3://bucket/prefix`."""

    def prepare(self) -> bool:
        """Make the lake's place, prove that it can be written; whether conditions are kept.

        Raises:
            LakeError: it cannot be written.
        """

    def create(self, key: str, data: bytes) -> str:
        """Write a new object; its tag.

        Raises:
            AlreadyExists: there is another one under this key; it is left as it is.
        """

    def put(self, key: str, data: bytes) -> None:
        """Write an object whether or not there is one: for content that its key determines."""

    def read(self, key: str) -> tuple[bytes, str]:
        """The object's bytes and its tag.

        Raises:
            FileNotFoundError: there is no such object.
        """

    def open(self, key: str) -> BinaryIO:
        """The object to be read in places, as a seekable file.

        Raises:
            FileNotFoundError: there is no such object.
        """

    def replace(self, key: str, data: bytes, tag: str) -> str:
        """Write over an object that is still in the state `tag`; its new tag.

        Raises:
            Changed: it is not.
        """

    def delete(self, key: str, tag: str | None = None) -> None:
        """Remove an object, if it is there and (with `tag`) still in that state.

        Raises:
            Changed: a tag was given and the object is not in that state.
        """

    def exists(self, key: str) -> bool:
        """Whether there is an object under this key."""

    def objects(self, prefix: str) -> Iterator[StoredObject]:
        """All objects whose key begins with `prefix`, in the order of their keys."""

    def folders(self, prefix: str) -> list[str]:
        """Names of the folders directly under the folder `prefix`, sorted."""

    def sweep(self) -> None:
        """Remove what a killed writer left half-written."""

    def uri(self, key: str) -> str:
        """The absolute address of an object, for other programs."""

    def show(
        self, db: duckdb.DuckDBPyConnection, name: str, keys: Iterable[str], schema: pa.Schema
    ) -> None:
        """Let DuckDB see Parquet objects as the view `name`, with `ingest_date` from their path."""


def keys(store: Store, prefix: str) -> Iterator[str]:
    """Keys that begin with `prefix`, in order."""
    return (found.key for found in store.objects(prefix))


def read_table(store: Store, key: str, schema: pa.Schema) -> pa.Table:
    """The rows of a Parquet object, whichever columns of `schema` it has; the others are null.

    Raises:
        FileNotFoundError: there is no such object.
    """
    return read_rows(store.read(key)[0], schema)


def read_rows(data: bytes, schema: pa.Schema) -> pa.Table:
    """The rows in the bytes of a Parquet object, as `read_table`."""
    return pq.read_table(pa.BufferReader(data), schema=schema)

"""A lake in an S3 bucket: every promise of the store kept by conditional requests."""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from typing import BinaryIO, cast

import duckdb
import pyarrow as pa
from s3fs import S3FileSystem

from schemas.errors import LakeError
from tasks.arrowview import show_objects
from tasks.s3 import Refused, call, etag, get, listed, refusal, split
from tasks.store import AlreadyExists, Changed, StoredObject

_CONFLICTS = 8


class S3Store:
    """See `tasks.store.Store`.

    A request whose answer was lost is sent again, and may then be refused because it had been done
    the first time. So a refused write looks at what is there: its own bytes count as success, and
    for that no two writers may write the same bytes to be told apart. (They never do: locks, claims
    and parts hold who wrote them and when.)
    """

    def __init__(self, address: str, fs: S3FileSystem) -> None:
        self.address = address.rstrip("/")
        self._fs = fs
        self._bucket, prefix = split(self.address)
        self._prefix = f"{prefix}/" if prefix else ""

    def prepare(self) -> bool:
        """See `Store.prepare`: two writes that must be refused show whether conditions are kept."""
        key = f"_runs/probe-{uuid.uuid4().hex}"
        self.create(key, b"1")
        try:
            return not (
                _succeeds(self.create, key, b"2") or _succeeds(self.replace, key, b"3", "0" * 32)
            )
        finally:
            self.delete(key)

    def create(self, key: str, data: bytes) -> str:
        """See `Store.create`."""
        try:
            return self._write(key, data, IfNoneMatch="*")
        except Changed:
            raise AlreadyExists(key) from None

    def put(self, key: str, data: bytes) -> None:
        """See `Store.put`."""
        self._write(key, data)

    def read(self, key: str) -> tuple[bytes, str]:
        """See `Store.read`."""
        for _ in range(_CONFLICTS):
            try:
                body = get(self._fs, self._bucket, self._prefix + key, None)
                return b"".join(body.chunks()), body.etag
            except Refused as refused:
                if not refused.conditional:  # else it changed while it was read: read it anew
                    raise self._failure("read", key, refused) from None
        raise LakeError(f"cannot read {self.address}/{key}: it keeps changing")

    def open(self, key: str) -> BinaryIO:
        """See `Store.open`."""
        try:
            return cast(BinaryIO, self._fs.open(self._path(key), "rb"))
        except FileNotFoundError:
            raise
        except OSError as error:
            raise self._failure("read", key, refusal(error)) from None

    def replace(self, key: str, data: bytes, tag: str) -> str:
        """See `Store.replace`."""
        return self._write(key, data, IfMatch=tag)

    def delete(self, key: str, tag: str | None = None) -> None:
        """See `Store.delete`."""
        condition = {} if tag is None else {"IfMatch": tag}
        try:
            call(self._fs, "delete_object", **self._at(key), **condition)
        except Refused as refused:
            if tag is not None and (refused.conditional or refused.missing):
                raise Changed(key) from None
            raise self._failure("delete", key, refused) from None

    def exists(self, key: str) -> bool:
        """See `Store.exists`."""
        # Not by a HEAD: its refusals have no body, so they cannot say why.
        return any(found.key == key for found in self.objects(key))

    def objects(self, prefix: str) -> Iterator[StoredObject]:
        """See `Store.objects`."""
        try:
            for answer in listed(self._fs, self._bucket, self._prefix + prefix):
                for found in answer.get("Contents", ()):
                    key = found["Key"].removeprefix(self._prefix)
                    yield StoredObject(key, found["Size"], etag(found))
        except Refused as refused:
            raise self._failure("list", prefix, refused) from None

    def folders(self, prefix: str) -> list[str]:
        """See `Store.folders`."""
        below = f"{self._prefix}{prefix}/"
        try:
            return [
                folder["Prefix"].removeprefix(below).rstrip("/")
                for answer in listed(self._fs, self._bucket, below, "/")
                for folder in answer.get("CommonPrefixes", ())
            ]
        except Refused as refused:
            raise self._failure("list", prefix, refused) from None

    def sweep(self) -> None:
        """See `Store.sweep`: an upload is whole or not there."""

    def uri(self, key: str) -> str:
        """See `Store.uri`."""
        return f"{self.address}/{key}"

    def show(
        self, db: duckdb.DuckDBPyConnection, name: str, keys: Iterable[str], schema: pa.Schema
    ) -> None:
        """See `Store.show`."""
        show_objects(db, name, [self._path(key) for key in keys], schema, self._fs)

    def _write(self, key: str, data: bytes, **condition: str) -> str:
        for attempt in range(_CONFLICTS):
            try:
                return etag(call(self._fs, "put_object", **self._at(key), Body=data, **condition))
            except Refused as refused:
                if refused.conflicting and attempt < _CONFLICTS - 1:
                    time.sleep(0.05 * 2**attempt)
                elif condition and (refused.conditional or refused.missing):
                    return self._own(key, data)
                else:
                    raise self._failure("write", key, refused) from None
        raise AssertionError("unreachable")

    def _own(self, key: str, data: bytes) -> str:
        """The tag of what is there, if a first try that we believed lost has put it there.

        Raises:
            Changed: it is another's.
        """
        with suppress(FileNotFoundError):
            found, tag = self.read(key)
            if found == data:
                return tag
        raise Changed(key)

    def _failure(self, verb: str, key: str, refused: Refused) -> Exception:
        if refused.missing:
            return FileNotFoundError(f"{self.address}/{key}")
        return LakeError(f"cannot {verb} {self.address}/{key}: {refused.message}")

    def _at(self, key: str) -> dict[str, str]:
        return {"Bucket": self._bucket, "Key": self._prefix + key}

    def _path(self, key: str) -> str:
        return f"{self._bucket}/{self._prefix}{key}"


def _succeeds(write: Callable[..., object], *arguments: object) -> bool:
    try:
        write(*arguments)
    except (AlreadyExists, Changed):
        return False
    return True

"""A lake at any other fsspec address: gs://, az://, memory://. For a single writer.

fsspec has a create-if-absent (`mode="create"`) that Google's and Azure's filesystems keep, but no
replace-if-unchanged. So whoever writes here says with `--single-writer` that nobody else does.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from typing import BinaryIO, cast

import duckdb
import fsspec
import pyarrow as pa

from schemas.errors import LakeError
from tasks.arrowview import show_objects
from tasks.filesystem import without_password
from tasks.store import AlreadyExists, Changed, StoredObject
from tasks.versions import version_of


class FsspecStore:
    """See `tasks.store.Store`; conditions are checked, then acted upon, which is not one step."""

    def __init__(self, address: str, fs: fsspec.AbstractFileSystem) -> None:
        self.address = address.rstrip("/")
        self._fs = fs
        self._root = str(fs._strip_protocol(self.address)).rstrip("/")

    def prepare(self) -> bool:
        """See `Store.prepare`."""
        self.put("_runs/probe", b"")
        self.delete("_runs/probe")
        return False

    def create(self, key: str, data: bytes) -> str:
        """See `Store.create`."""
        if self.exists(key):
            raise AlreadyExists(key)
        self.put(key, data)
        return _tag(data)

    def put(self, key: str, data: bytes) -> None:
        """See `Store.put`."""
        try:
            self._fs.pipe_file(self._path(key), data)
        except Exception as error:  # each maker's package has its own
            raise self._failure("write", key, error) from None

    def read(self, key: str) -> tuple[bytes, str]:
        """See `Store.read`."""
        try:
            data = cast(bytes, self._fs.cat_file(self._path(key)))
        except FileNotFoundError:
            raise
        except Exception as error:
            raise self._failure("read", key, error) from None
        return data, _tag(data)

    def open(self, key: str) -> BinaryIO:
        """See `Store.open`."""
        return cast(BinaryIO, self._fs.open(self._path(key), "rb"))

    def replace(self, key: str, data: bytes, tag: str) -> str:
        """See `Store.replace`."""
        self._expect(key, tag)
        self.put(key, data)
        return _tag(data)

    def delete(self, key: str, tag: str | None = None) -> None:
        """See `Store.delete`."""
        if tag is not None:
            self._expect(key, tag)
        try:
            self._fs.rm_file(self._path(key))
        except FileNotFoundError:
            return
        except Exception as error:
            raise self._failure("delete", key, error) from None

    def exists(self, key: str) -> bool:
        """See `Store.exists`."""
        return bool(self._fs.isfile(self._path(key)))

    def objects(self, prefix: str) -> Iterator[StoredObject]:
        """See `Store.objects`."""
        folder = self._path(prefix.rpartition("/")[0]).rstrip("/")
        for path, told in sorted(self._fs.find(folder, detail=True).items()):
            key = str(path).removeprefix(f"{self._root}/")
            if key.startswith(prefix):
                yield StoredObject(key, int(told["size"]), version_of(told))

    def folders(self, prefix: str) -> list[str]:
        """See `Store.folders`."""
        try:
            found = self._fs.ls(self._path(prefix), detail=True)
        except FileNotFoundError:
            return []
        names = (each["name"] for each in found if each["type"] == "directory")
        return sorted(str(name).rstrip("/").rpartition("/")[2] for name in names)

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

    def _expect(self, key: str, tag: str) -> None:
        try:
            found = self.read(key)[1]
        except FileNotFoundError:
            raise Changed(key) from None
        if found != tag:
            raise Changed(key)

    def _path(self, key: str) -> str:
        return f"{self._root}/{key}"

    def _failure(self, verb: str, key: str, error: Exception) -> LakeError:
        told = without_password(" ".join(str(error).split())[:300])
        return LakeError(f"cannot {verb} {self.address}/{key}: {type(error).__name__}: {told}")


def _tag(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()

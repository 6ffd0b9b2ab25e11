"""A lake in a folder of this machine."""

from __future__ import annotations

import fcntl
import hashlib
import os
import time
import uuid
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

import duckdb
import pyarrow as pa

from schemas.errors import LakeError
from tasks.store import AlreadyExists, Changed, StoredObject

_LEFT_BEHIND_SECONDS = 600


class LocalStore:
    """See `tasks.store.Store`.

    Files are written under `_runs/tmp` and linked into place: a link, unlike a rename, fails if
    the name is taken. Compare-and-swap is serialised by `flock` on one file.
    """

    def __init__(self, root: str | Path) -> None:
        self.root = Path(root).absolute()
        self.address = str(root)

    def prepare(self) -> bool:
        """See `Store.prepare`."""
        try:
            self._tmp().mkdir(parents=True, exist_ok=True)
            probe = self._write_tmp(b"")
            probe.unlink()
        except OSError as error:
            raise LakeError(
                f"cannot write to {self.root}: {error.strerror}; choose a folder you may write to"
            ) from error
        return True

    def create(self, key: str, data: bytes) -> str:
        """See `Store.create`."""
        source = self._write_tmp(data)
        target = self.root / key
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            os.link(source, target)
        except FileExistsError:
            raise AlreadyExists(key) from None
        finally:
            source.unlink()
        return _tag(data)

    def put(self, key: str, data: bytes) -> None:
        """See `Store.put`."""
        target = self.root / key
        target.parent.mkdir(parents=True, exist_ok=True)
        os.replace(self._write_tmp(data), target)

    def read(self, key: str) -> tuple[bytes, str]:
        """See `Store.read`."""
        data = (self.root / key).read_bytes()
        return data, _tag(data)

    def replace(self, key: str, data: bytes, tag: str) -> str:
        """See `Store.replace`."""
        with self._swapping():
            self._expect(key, tag)
            os.replace(self._write_tmp(data), self.root / key)
        return _tag(data)

    def delete(self, key: str, tag: str | None = None) -> None:
        """See `Store.delete`."""
        with self._swapping():
            if tag is not None:
                self._expect(key, tag)
            (self.root / key).unlink(missing_ok=True)

    def exists(self, key: str) -> bool:
        """See `Store.exists`."""
        return (self.root / key).is_file()

    def open(self, key: str) -> BinaryIO:
        """See `Store.open`."""
        return open(self.root / key, "rb")

    def objects(self, prefix: str) -> Iterator[StoredObject]:
        """See `Store.objects`."""
        for path in _files(self.root / prefix.rpartition("/")[0]):
            key = path.relative_to(self.root).as_posix()
            if key.startswith(prefix):
                with suppress(FileNotFoundError):  # gone since the folder was read
                    told = path.stat()
                    yield StoredObject(key, told.st_size, f"{told.st_size}-{told.st_mtime_ns}")

    def folders(self, prefix: str) -> list[str]:
        """See `Store.folders`."""
        base = self.root / prefix
        return (
            sorted(entry.name for entry in base.iterdir() if entry.is_dir())
            if base.is_dir()
            else []
        )

    def uri(self, key: str) -> str:
        """See `Store.uri`."""
        return str(self.root / key)

    def show(
        self, db: duckdb.DuckDBPyConnection, name: str, keys: Iterable[str], schema: pa.Schema
    ) -> None:
        """See `Store.show`."""
        listed = ", ".join("'" + self.uri(key).replace("'", "''") + "'" for key in keys)
        if listed:
            db.execute(
                f"CREATE VIEW {name} AS SELECT * FROM "
                f"read_parquet([{listed}], hive_partitioning = true, union_by_name = true)"
            )
        else:
            empty = schema.append(pa.field("ingest_date", pa.date32())).empty_table()
            db.register("nothing", empty)
            db.execute(f"CREATE TABLE {name} AS SELECT * FROM nothing")
            db.unregister("nothing")

    def sweep(self) -> None:
        """See `Store.sweep`.

        Only old files: a run that waits for the lock writes there too.
        """
        for leftover in self._tmp().iterdir():
            with suppress(FileNotFoundError):
                if time.time() - leftover.stat().st_mtime > _LEFT_BEHIND_SECONDS:
                    leftover.unlink()

    def _tmp(self) -> Path:
        return self.root / "_runs" / "tmp"

    def _write_tmp(self, data: bytes) -> Path:
        target = self._tmp() / uuid.uuid4().hex
        with open(target, "xb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        return target

    def _expect(self, key: str, tag: str) -> None:
        try:
            found = self.read(key)[1]
        except FileNotFoundError:
            raise Changed(key) from None
        if found != tag:
            raise Changed(key)

    @contextmanager
    def _swapping(self) -> Iterator[None]:
        with open(self._tmp().parent / "swap", "ab") as guard:
            fcntl.flock(guard, fcntl.LOCK_EX)
            yield


def _files(folder: Path) -> Iterator[Path]:
    """All files below a folder, in the order of their keys: a folder's name ends in `/` there."""
    try:
        with os.scandir(folder) as entries:
            names = sorted(f"{each.name}/" if each.is_dir() else each.name for each in entries)
    except (FileNotFoundError, NotADirectoryError):
        return
    for name in names:
        if name.endswith("/"):
            yield from _files(folder / name)
        else:
            yield folder / name


def _tag(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()

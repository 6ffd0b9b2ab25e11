"""A lake in memory, of which a test says what becomes of every single call.

A `Bucket` is what is stored. Each `MemoryStore` over it stands for one process's side, and asks its
gate before it does anything: the gate may wait there as long as it likes (others go on meanwhile),
say what becomes of the call, or raise `Killed`, now and at every call that follows.
"""

from __future__ import annotations

import hashlib
import io
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import date
from enum import Enum
from functools import partial
from typing import BinaryIO, TypeVar

import duckdb
import pyarrow as pa

from schemas.errors import LakeError
from tasks.store import AlreadyExists, Changed, StoredObject, read_rows

T = TypeVar("T")

LISTED_AT_ONCE = 8
"""Keys an answer to a listing holds; what changes between two answers may be seen or not."""


class Killed(BaseException):
    """The process is gone: nothing of it runs any more."""


class Fate(Enum):
    """What becomes of a call."""

    DONE = "done"
    FAILED = "failed"  # not done, and the caller is told that the store is in trouble
    LOST = "answer lost"  # done, but nobody was told: the store's client asks a second time
    UNKNOWN = "done and failed"  # done, but all the caller ever hears is trouble
    LATE = "late"  # the caller hears of trouble, and it is done when the bucket lands it


@dataclass(frozen=True, slots=True)
class Call:
    """One request of a process; `writes` tells whether it can change anything."""

    name: str
    key: str
    writes: bool

    def __str__(self) -> str:
        return f"{self.name} {self.key}"


Gate = Callable[[Call], Fate]


class Refused(Exception):
    """The condition of a request does not hold."""


@dataclass
class Bucket:
    """Objects by key, each with its tag: as an ETag, a hash of its content and nothing else.

    `late` holds what is still on its way from processes that have given up waiting for it.
    """

    objects: dict[str, tuple[bytes, str]] = field(default_factory=dict)
    late: list[tuple[Call, Callable[[], object]]] = field(default_factory=list)

    def put(self, key: str, data: bytes, absent: bool = False, tag: str | None = None) -> str:
        """Write, if there is no object (`absent`) or the one there is in the state `tag`."""
        there = self.objects.get(key)
        if (absent and there) or (tag is not None and (there is None or there[1] != tag)):
            raise Refused(key)
        made = hashlib.md5(data, usedforsecurity=False).hexdigest()
        self.objects[key] = (bytes(data), made)
        return made

    def delete(self, key: str, tag: str | None) -> None:
        """Remove, if the object is in the state `tag`."""
        there = self.objects.get(key)
        if tag is not None and (there is None or there[1] != tag):
            raise Refused(key)
        self.objects.pop(key, None)

    def land(self, number: int) -> Call:
        """Do the `number`-th of what is late."""
        call, do = self.late.pop(number)
        with suppress(Refused):
            do()
        return call


def let_through(call: Call) -> Fate:
    """The gate of a process that nothing happens to."""
    return Fate.DONE


class MemoryStore:
    """See `tasks.store.Store`; what it makes of refusals and lost answers is what `S3Store` does.

    Args:
        bucket: what is stored.
        gate: asked before every request, and before it is sent again.
    """

    def __init__(self, bucket: Bucket, gate: Gate = let_through) -> None:
        self.address = "memory://lake"
        self._bucket = bucket
        self._gate = gate

    def prepare(self) -> bool:
        self._send(Call("prepare", "", False), lambda: None)
        return True

    def create(self, key: str, data: bytes) -> str:
        try:
            return self._write("create", key, data, absent=True)
        except Changed:
            raise AlreadyExists(key) from None

    def put(self, key: str, data: bytes) -> None:
        self._send(Call("put", key, True), partial(self._bucket.put, key, data))

    def read(self, key: str) -> tuple[bytes, str]:
        found = self._send(Call("read", key, False), lambda: self._bucket.objects.get(key))
        if found is None:
            raise FileNotFoundError(f"{self.address}/{key}")
        return found

    def open(self, key: str) -> BinaryIO:
        return io.BytesIO(self.read(key)[0])

    def replace(self, key: str, data: bytes, tag: str) -> str:
        return self._write("replace", key, data, tag=tag)

    def delete(self, key: str, tag: str | None = None) -> None:
        try:
            self._send(Call("delete", key, True), partial(self._bucket.delete, key, tag))
        except Refused:
            raise Changed(key) from None

    def exists(self, key: str) -> bool:
        return self._send(Call("exists", key, False), lambda: key in self._bucket.objects)

    def objects(self, prefix: str) -> Iterator[StoredObject]:
        after = ""
        while answer := self._send(
            Call("list", prefix, False), partial(self._listed, prefix, after)
        ):
            yield from answer
            if len(answer) < LISTED_AT_ONCE:
                return
            after = answer[-1].key

    def folders(self, prefix: str) -> list[str]:
        below = f"{prefix}/"
        found = self._send(Call("list", below, False), lambda: list(self._bucket.objects))
        rest = (key.removeprefix(below) for key in found if key.startswith(below))
        return sorted({name.partition("/")[0] for name in rest if "/" in name})

    def sweep(self) -> None:
        pass

    def uri(self, key: str) -> str:
        return f"{self.address}/{key}"

    def show(
        self, db: duckdb.DuckDBPyConnection, name: str, keys: Iterable[str], schema: pa.Schema
    ) -> None:
        day = pa.field("ingest_date", pa.date32())
        tables = [schema.append(day).empty_table()]
        for key in keys:
            rows = read_rows(self.read(key)[0], schema)
            told = date.fromisoformat(key.split("/")[1].removeprefix("ingest_date="))
            tables.append(rows.append_column(day, pa.array([told] * rows.num_rows, day.type)))
        db.register(name, pa.concat_tables([each.replace_schema_metadata() for each in tables]))

    def _listed(self, prefix: str, after: str) -> list[StoredObject]:
        there = sorted(key for key in self._bucket.objects if key.startswith(prefix))
        return [
            StoredObject(key, len(self._bucket.objects[key][0]), self._bucket.objects[key][1])
            for key in [key for key in there if key > after][:LISTED_AT_ONCE]
        ]

    def _write(
        self, name: str, key: str, data: bytes, absent: bool = False, tag: str | None = None
    ) -> str:
        try:
            write = partial(self._bucket.put, key, data, absent=absent, tag=tag)
            return self._send(Call(name, key, True), write)
        except Refused:
            pass
        try:
            found, there = self.read(key)
            if found == data:
                return there
        except FileNotFoundError:
            pass
        raise Changed(key)

    def _send(self, call: Call, do: Callable[[], T]) -> T:
        while True:
            fate = self._gate(call)
            if fate is Fate.LATE:
                self._bucket.late.append((call, do))
            if fate in (Fate.LATE, Fate.FAILED):
                raise LakeError(f"cannot {call} of {self.address}: the store is in trouble")
            if fate is Fate.DONE:
                return do()
            with suppress(Refused):
                do()
            if fate is Fate.UNKNOWN:
                raise LakeError(f"{call}: the store is in trouble")

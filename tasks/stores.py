"""Which store a lake's address means."""

from __future__ import annotations

import json
from collections.abc import Sequence
from contextlib import suppress

from schemas.errors import LakeError
from schemas.tables import SCHEMA_VERSION
from tasks.filesystem import filesystem, local_path, options_for, protocol_of
from tasks.localstore import LocalStore
from tasks.store import AlreadyExists, Store

_MARK = "_runs/lake.json"


def store_of(dest: str, storage_option: Sequence[str] = ()) -> Store:
    """The store behind a lake's address; nothing is asked of it yet.

    Raises:
        UsageError: the address or an option cannot be understood.
    """
    protocol = protocol_of(dest)
    if protocol is None:
        return LocalStore(local_path(dest))
    fs = filesystem(protocol, options_for(storage_option, "dest"))
    if protocol in ("s3", "s3a"):
        from tasks.s3store import S3Store

        return S3Store(dest, fs)
    from tasks.fsspecstore import FsspecStore

    return FsspecStore(dest, fs)


def prepare(store: Store, single_writer: bool) -> None:
    """Make sure that a store can hold a lake, and that this version understands the one there.

    Raises:
        LakeError: it cannot be written, keeps no conditions and `single_writer` was not promised,
            or holds a lake of a newer version.
    """
    if is_lake(store):
        check_version(store)
    if not store.prepare() and not single_writer:
        raise LakeError(
            f"the store of {store.address} keeps no conditional writes (If-None-Match, If-Match), "
            "so two runs could spoil the lake; use another store, or pass --single-writer if you "
            "see to it that only one runs at a time"
        )
    with suppress(AlreadyExists):
        store.create(_MARK, json.dumps({"schema_version": SCHEMA_VERSION}).encode())


def open_lake(dest: str, storage_option: Sequence[str] = ()) -> Store:
    """The store of a lake that is there already.

    Raises:
        LakeError: `dest` is no lake, or one of a newer version.
    """
    store = store_of(dest, storage_option)
    if not is_lake(store):
        raise LakeError(f"{dest} is no lake; `pagelake ingest SOURCE {dest}` makes one")
    check_version(store)
    return store


def is_lake(store: Store) -> bool:
    """Whether a run has ever begun there."""
    return store.exists(_MARK)


def check_version(store: Store) -> None:
    """Raise `LakeError` if the lake was written by a version that may know more than this one."""
    written = json.loads(store.read(_MARK)[0])["schema_version"]
    if int(written) > int(SCHEMA_VERSION):
        raise LakeError(
            f"{store.address} was written by a newer pagelake (lake schema {written}, this one "
            f"knows {SCHEMA_VERSION}); upgrade pagelake"
        )

"""The lake's files in an Iceberg catalog, so that engines see atomic snapshots of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from tasks.filesystem import options_for
from tasks.iceberg import LakeFile, register
from tasks.lakefiles import lake_files
from tasks.store import Store

_FILE_IO = {
    "endpoint_url": "s3.endpoint",
    "endpoint": "s3.endpoint",
    "region": "s3.region",
    "profile": "s3.profile-name",
    "key": "s3.access-key-id",
    "secret": "s3.secret-access-key",
    "token": "s3.session-token",
}
"""What a storage option is called by pyiceberg; the environment counts there as it does here."""


def register_lake(
    store: Store, catalog: str, namespace: str, storage_option: Sequence[str]
) -> dict[str, int]:
    """Bring the catalog's tables up to the lake as it is; see `tasks.iceberg.register`.

    Raises:
        UsageError: there is no such catalog, or pyiceberg is not installed.
        LakeError: the catalog cannot be written; the lake itself is as it should be.
    """
    files = lake_files(store)
    named = (
        LakeFile(store.uri(found.key), table, found.size_bytes, found.version)
        for table in ("documents", "pages", "blocks")
        for found in getattr(files, table)
    )
    properties = _properties(options_for(storage_option, "dest"))
    return register(catalog, namespace, named, store.uri("_runs/iceberg"), properties)


def _properties(options: Mapping[str, Any]) -> dict[str, str]:
    return {_FILE_IO[name]: str(value) for name, value in options.items() if name in _FILE_IO}

"""The lake's committed files in an Iceberg catalog, so that engines see whole snapshots of it.

Files are registered where they lie, as pyiceberg's `add_files` does: nothing is copied, and columns
are found by name, through the table's name mapping. A file that was rewritten in place keeps its
name, and often its size and row count; so beside each table's metadata lies an object of *facts*,
16 bytes a file: digests of (address, size, version, snapshot that took the file in). A file whose
fact is missing is read again and replaced. So the facts can be lost, or be older or newer than the
table after a crash or a rollback, and cost at most a few footers and a snapshot.
"""

from __future__ import annotations

import hashlib
import logging
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pyarrow as pa

from schemas.errors import LakeError, PagelakeError, UsageError
from schemas.tables import BLOCKS, DOCUMENTS, PAGES

if TYPE_CHECKING:
    from pyiceberg.catalog import Catalog
    from pyiceberg.manifest import DataFile, ManifestEntry
    from pyiceberg.table import Table

# Documents last: an engine that sees a document sees its pages.
_TABLES = {"blocks": BLOCKS, "pages": PAGES, "documents": DOCUMENTS}

_TRIES = 5
_READERS = 16
_FACTS = "pagelake-facts.bin"
_FACT_BYTES = 16
_NO_ROWS = 0  # stands for the snapshot in the fact of a file that is in none, having no rows

# Columns whose bounds help to skip files; those of free text would only fill the manifests.
_BOUNDED = ("document_id", "source_uri", "status", "error_code", "kind", "run_id", "finished_at")

_PROPERTIES = {
    # The files are the lake's: no engine may delete them with a snapshot or the table.
    "gc.enabled": "false",
    # pyiceberg's own retry does not look again: it would add what the other writer has added.
    "commit.retry.num-retries": "0",
    "commit.manifest-merge.enabled": "true",
    "write.metadata.delete-after-commit.enabled": "true",
    "write.metadata.metrics.default": "none",
}


@dataclass(frozen=True, slots=True)
class LakeFile:
    """A committed file: `uri` is an absolute path or an s3:// address, `table` one of the three.

    `version` changes whenever the content does: its ETag, or size and time of a local file.
    """

    uri: str
    table: str
    size_bytes: int
    version: str


def register(
    catalog: str,
    namespace: str,
    files: Iterable[LakeFile],
    warehouse: str,
    properties: Mapping[str, str],
) -> dict[str, int]:
    """Bring the tables `blocks`, `pages` and `documents` of a namespace to hold these files only.

    A table gets one snapshot if anything differs and none if nothing does; files without rows are
    left out. `catalog` is `sqlite:///PATH`, the address of a REST catalog, or a name that
    pyiceberg's configuration defines; the first two are known to pyiceberg as "pagelake".
    `warehouse` is the folder for metadata with SQLite; the other kinds have their own. If it is on
    S3, files are read and written through s3fs. `properties` go to the catalog and to what reads
    and writes files, e.g. `s3.endpoint`; what they leave out comes from where botocore looks.

    Returns:
        How many files were `added`, `removed` and `replaced`, over all tables.

    Raises:
        UsageError: pyiceberg is not installed, or the catalog is unknown or cannot be opened.
        LakeError: a file or the catalog cannot be read or written, or others keep changing it.
    """
    wanted: dict[str, dict[str, LakeFile]] = {table: {} for table in _TABLES}
    for file in files:
        wanted[file.table][file.uri] = file
    counts = Counter(added=0, removed=0, replaced=0)
    with _opened(catalog, warehouse, properties) as opened:
        for name in _TABLES:
            with _failing_as(LakeError, f"cannot register {name} in the catalog {catalog}"):
                counts.update(_bring(opened, (*namespace.split("."), name), wanted[name]))
    return dict(counts)


@contextmanager
def _opened(catalog: str, warehouse: str, properties: Mapping[str, str]) -> Iterator[Catalog]:
    try:
        from pyiceberg.catalog import list_catalogs, load_catalog
    except ImportError as error:
        raise UsageError("--catalog needs pyiceberg: pip install 'pagelake[iceberg]'") from error
    name, options = "pagelake", dict(properties)
    if warehouse.startswith("s3://"):
        # s3fs finds the lake's endpoint, region and credentials in all places that botocore does;
        # Arrow, which would be taken else, goes to AWS whatever AWS_ENDPOINT_URL says.
        options.setdefault("py-io-impl", "pyiceberg.io.fsspec.FsspecFileIO")
    if catalog.startswith("sqlite:"):
        options |= {"type": "sql", "uri": catalog, "warehouse": warehouse}
    elif catalog.startswith(("http://", "https://")):
        options |= {"type": "rest", "uri": catalog}
    elif catalog.lower() in list_catalogs():
        name = catalog
    else:
        raise UsageError(
            f"no Iceberg catalog {catalog}; give sqlite:///PATH, http(s)://ADDRESS, or a name that "
            ".pyiceberg.yaml or PYICEBERG_CATALOG__NAME__URI defines"
        )
    with _failing_as(UsageError, f"cannot open the Iceberg catalog {catalog}"):
        opened = load_catalog(name, **options)
    with opened:
        yield opened


@contextmanager
def _failing_as(kind: type[PagelakeError], what: str) -> Iterator[None]:
    try:
        yield
    except PagelakeError:
        raise
    except Exception as error:
        # Each kind of catalog fails with errors of its own library.
        reason = (str(error).splitlines() or ["no reason given"])[0]
        raise kind(f"{what}: {type(error).__name__}: {reason}") from error


def _bring(catalog: Catalog, name: tuple[str, ...], wanted: dict[str, LakeFile]) -> dict[str, int]:
    from pyiceberg.exceptions import CommitFailedException, CommitStateUnknownException

    for attempt in range(_TRIES):
        try:
            return _commit(_table(catalog, name), wanted)
        except (CommitFailedException, CommitStateUnknownException):
            # What the other writer did, or this one after all, is looked at anew: no file twice.
            time.sleep(0.1 * 2**attempt)
    what = f"others kept changing the Iceberg table {'.'.join(name)}"
    raise LakeError(f"{what}; the lake is complete: run again to register it")


def _table(catalog: Catalog, name: tuple[str, ...]) -> Table:
    """The table with all columns, descriptions and properties, made or changed if need be."""
    from pyiceberg.exceptions import NoSuchNamespaceError, NoSuchTableError

    columns = _TABLES[name[-1]]
    # Descriptions under the key where pyiceberg looks for them.
    schema = pa.schema([c.with_metadata({"doc": c.metadata[b"description"]}) for c in columns])
    bounded = [f"write.metadata.metrics.column.{c}" for c in columns.names if c in _BOUNDED]
    properties = _PROPERTIES | dict.fromkeys(bounded, "full")
    try:
        table = catalog.load_table(name)
    except (NoSuchTableError, NoSuchNamespaceError):
        if not catalog.namespace_exists(name[:-1]):
            catalog.create_namespace_if_not_exists(name[:-1])
        table = catalog.create_table_if_not_exists(name, schema, properties=properties)
    lacking = dict(properties.items() - table.properties.items())
    if table.name_mapping() is None:
        lacking["schema.name-mapping.default"] = table.schema().name_mapping.model_dump_json()
    with table.transaction() as change:
        if lacking:
            change.set_properties(lacking)
        with change.update_schema() as update:
            update.union_by_name(schema)
    return table


def _commit(table: Table, wanted: dict[str, LakeFile]) -> dict[str, int]:
    """One snapshot by which the table holds what is wanted; none if it does already."""
    facts = _read_facts(table)
    kept: dict[str, bytes] = {}
    gone: dict[str, DataFile] = {}
    for entry in _entries(table):
        uri = entry.data_file.file_path
        fact = _fact(wanted[uri], entry.snapshot_id) if uri in wanted else b""
        if fact in facts and uri not in kept:
            kept[uri] = fact
        else:
            gone[uri] = entry.data_file
    # A file that others have added once more goes, all its entries together, and comes once.
    held = kept.keys() - gone.keys()
    # What is left are files to read, and files known to have no rows.
    left = {uri: _fact(wanted[uri], _NO_ROWS) for uri in wanted.keys() - held}
    read = _data_files(table, [uri for uri, fact in left.items() if fact not in facts])
    new = {file.file_path: file for file in read if file.record_count}
    true = {kept[uri] for uri in held} | {left[uri] for uri in left.keys() - new.keys()}
    if new or gone:
        with table.transaction() as change:
            update = change.update_snapshot()
            with update.overwrite() if gone else update.merge_append() as snapshot:
                for file in gone.values():
                    snapshot.delete_data_file(file)
                for file in new.values():
                    snapshot.append_data_file(file)
                # Before the commit: a fact of a snapshot that never came is never looked for.
                _write_facts(table, true | {_fact(wanted[u], snapshot.snapshot_id) for u in new})
    elif true != facts:
        _write_facts(table, true)
    replaced = len(new.keys() & gone.keys())
    return {"added": len(new) - replaced, "removed": len(gone) - replaced, "replaced": replaced}


def _entries(table: Table) -> Iterator[ManifestEntry]:
    from pyiceberg.manifest import ManifestContent

    snapshot = table.current_snapshot()
    for manifest in snapshot.manifests(table.io) if snapshot else ():
        if manifest.content == ManifestContent.DATA:
            yield from manifest.fetch_manifest_entry(table.io)


def _data_files(table: Table, uris: Iterable[str]) -> Iterator[DataFile]:
    # Not in pyiceberg's documentation, though not private by name: tested with 0.11.1 to 0.12.0.
    from pyiceberg.io.pyarrow import parquet_file_to_data_file

    def read(uri: str) -> DataFile:
        with _failing_as(LakeError, f"cannot register {uri} (gone, or of a newer pagelake?)"):
            return parquet_file_to_data_file(table.io, table.metadata, uri)

    # It warns of each column of a file without rows, of which a compaction leaves thousands.
    logging.getLogger(parquet_file_to_data_file.__module__).setLevel(logging.ERROR)
    with ThreadPoolExecutor(_READERS) as pool:
        yield from pool.map(read, sorted(uris))


def _fact(file: LakeFile, snapshot_id: int | None) -> bytes:
    told = f"{file.uri}\0{file.size_bytes}\0{file.version}\0{snapshot_id}"
    return hashlib.sha256(told.encode()).digest()[:_FACT_BYTES]


def _read_facts(table: Table) -> set[bytes]:
    try:
        source = table.io.new_input(table.location_provider().new_metadata_location(_FACTS))
        with source.open() as file:
            data = file.read()
    except FileNotFoundError:
        data = b""
    return {data[start : start + _FACT_BYTES] for start in range(0, len(data), _FACT_BYTES)}


def _write_facts(table: Table, facts: set[bytes]) -> None:
    output = table.io.new_output(table.location_provider().new_metadata_location(_FACTS))
    with output.create(overwrite=True) as file:
        file.write(b"".join(sorted(facts)))

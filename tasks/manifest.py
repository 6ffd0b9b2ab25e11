"""A list of documents as the source: one address a line, or Parquet with a column `uri`.

A source that is a single object named *.txt, *.manifest or *.parquet is such a list: none of these
is a kind of document. Addresses may point anywhere; one without a protocol is a path relative to
the manifest's own folder. Empty lines and lines that begin with `#` are skipped; so is an address
that was there before, or its document would be in the lake twice.
"""

from __future__ import annotations

import hashlib
import io
import os
from collections.abc import Iterator

import pyarrow as pa
import pyarrow.parquet as pq

from schemas.errors import DocumentError, ErrorCode, SourceError
from schemas.records import PlannedDocument
from tasks.filesystem import local_path, protocol_of
from tasks.source import GONE
from tasks.sources import Sources

_SUFFIXES = (".txt", ".manifest", ".parquet")
_ROWS = 10_000


def is_manifest(source: str) -> bool:
    """Whether a source's name is that of a manifest."""
    return source.lower().endswith(_SUFFIXES) and not os.path.isdir(source)


def addresses(manifest: str, sources: Sources) -> Iterator[str]:
    """The addresses that a manifest lists, in its order.

    Raises:
        SourceError: it cannot be read, or has no column `uri`.
    """
    held = _content(manifest, sources)
    lines = _column(held, manifest) if manifest.lower().endswith(".parquet") else _lines(held)
    folder = manifest.rpartition("/")[0] or "."
    seen: set[bytes] = set()
    for line in lines:
        address = local_path(line)
        if protocol_of(address) is None and not address.startswith("/"):
            address = f"{folder}/{address}"
        if protocol_of(address) is None:
            address = os.path.abspath(local_path(address))
        digest = hashlib.blake2b(os.fsencode(address), digest_size=16).digest()
        if digest not in seen:
            seen.add(digest)
            yield address


def _content(manifest: str, sources: Sources) -> io.BytesIO:
    source = sources.of(manifest)
    told = source.look(manifest)
    try:
        planned = PlannedDocument("", told.uri, told.version, told.size_bytes)
        return io.BytesIO(b"".join(source.fetch(planned)))
    except DocumentError as error:
        if (told.version, error.code) == (GONE, ErrorCode.SOURCE_MISSING):
            raise SourceError(f"there is no {manifest}; give a manifest that exists") from None
        raise SourceError(f"cannot read {manifest}: {error.message}") from None


def _lines(held: io.BytesIO) -> Iterator[str]:
    for line in held:
        text = os.fsdecode(line).lstrip("\ufeff").strip()
        if text and not text.startswith("#"):
            yield text


def _column(held: io.BytesIO, manifest: str) -> Iterator[str]:
    try:
        for batch in pq.ParquetFile(held).iter_batches(_ROWS, columns=["uri"]):
            yield from (text for text in batch.column("uri").to_pylist() if text)
    except (pa.ArrowException, OSError, KeyError) as error:
        raise SourceError(
            f"{manifest} is no Parquet file with a column uri: {str(error).splitlines()[0]}"
        ) from None

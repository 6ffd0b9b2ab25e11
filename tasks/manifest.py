"""A list of documents as the source: one address a line, or Parquet with a column `uri`.

A source that is a single object named *.txt, *.manifest or *.parquet is such a list: none of these
is a kind of document. Addresses may point anywhere; one without a protocol is a path relative to
the manifest's own folder. Empty lines and lines that begin with `#` are skipped.
"""

from __future__ import annotations

import io
import os
from collections.abc import Iterator

import pyarrow as pa
import pyarrow.parquet as pq

from schemas.errors import DocumentError, SourceError
from schemas.records import PlannedDocument
from tasks.filesystem import protocol_of
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
    held = io.BytesIO()
    told = sources.of(manifest).look(manifest)
    try:
        if told.version == GONE:
            raise SourceError(f"there is no {manifest}; give a manifest that exists")
        planned = PlannedDocument("", told.uri, told.version, told.size_bytes)
        for chunk in sources.of(manifest).fetch(planned):
            held.write(chunk)
    except DocumentError as error:
        raise SourceError(f"cannot read {manifest}: {error.message}") from None
    held.seek(0)
    lines = _column(held, manifest) if manifest.lower().endswith(".parquet") else _lines(held)
    folder = manifest.rpartition("/")[0]
    for line in lines:
        absolute = protocol_of(line) is not None or line.startswith("/")
        yield line if absolute or not folder else f"{folder}/{line}"


def _lines(held: io.BytesIO) -> Iterator[str]:
    for line in held:
        text = os.fsdecode(line).strip()
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

"""A source object's bytes at a path of this machine, in the state that was planned."""

from __future__ import annotations

import hashlib
import io
import os
import shutil
import tempfile
import uuid
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from types import TracebackType

from schemas.errors import DocumentError, ErrorCode, RunError
from schemas.records import LocalDocument, PlannedDocument
from tasks.filesystem import protocol_of
from tasks.sources import Sources

Take = Callable[[bytes], object]

_AT_ONCE = 16


class Fetcher:
    """Local files where they are, all others in a private temporary folder. A context manager.

    Args:
        sources: opens addresses.
        most_bytes: larger documents are refused unread.
    """

    def __init__(self, sources: Sources, most_bytes: int) -> None:
        self._sources = sources
        self._most_bytes = most_bytes
        self._folder = Path(tempfile.mkdtemp(prefix="pagelake-"))
        # Of its own: a slow download must not hold up a commit.
        self.threads = ThreadPoolExecutor(_AT_ONCE, thread_name_prefix="fetch")

    def fetch(self, planned: PlannedDocument) -> LocalDocument:
        """The document at a path, with the hash of its content.

        Raises:
            DocumentError: `source_missing`, `source_denied`, `source_changed` since it was listed,
                or `too_large`.
        """
        if planned.size_bytes > self._most_bytes:
            raise DocumentError(
                ErrorCode.TOO_LARGE,
                f"{planned.size_bytes:,} bytes are more than --max-document-bytes "
                f"{self._most_bytes:,}",
            )
        source = self._sources.of(planned.uri)
        if protocol_of(planned.uri) is None:
            digest = hashlib.sha256()
            for chunk in source.fetch(planned):
                digest.update(chunk)
            return _document(planned.uri, Path(planned.uri), digest.hexdigest())

        def fill(take: Take) -> None:
            for chunk in source.fetch(planned):
                take(chunk)

        return self.keep(planned.uri, fill)

    def keep(self, uri: str, fill: Callable[[Take], None]) -> LocalDocument:
        """Bytes that `fill` hands over, as a temporary document.

        Raises:
            DocumentError: what `fill` raised, or `too_large`; nothing is left behind.
            RunError: there is no room for it.
        """
        path = self._folder / uuid.uuid4().hex
        digest = hashlib.sha256()
        got = 0
        try:
            with open(path, "xb", buffering=0) as file:

                def take(chunk: bytes) -> None:
                    nonlocal got
                    got += len(chunk)
                    if got > self._most_bytes:
                        raise DocumentError(
                            ErrorCode.TOO_LARGE,
                            f"more than --max-document-bytes {self._most_bytes:,} bytes came",
                        )
                    digest.update(chunk)
                    self._write(file, chunk, uri)

                fill(take)
            return _document(uri, path, digest.hexdigest())
        except BaseException:
            path.unlink(missing_ok=True)
            raise

    def _write(self, file: io.FileIO, chunk: bytes, uri: str) -> None:
        try:
            file.write(chunk)
        except OSError as error:
            raise RunError(
                f"cannot keep {uri} in {self._folder}: {error.strerror}; make room there, or set "
                "TMPDIR to another folder"
            ) from None

    def release(self, document: LocalDocument) -> None:
        """The document is not needed any more."""
        if Path(document.path).parent == self._folder:
            with suppress(FileNotFoundError):
                os.unlink(document.path)

    def __enter__(self) -> Fetcher:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        at: TracebackType | None,
    ) -> None:
        self.threads.shutdown(wait=False, cancel_futures=True)
        shutil.rmtree(self._folder, ignore_errors=True)


def _document(uri: str, path: Path, content_sha256: str) -> LocalDocument:
    told = os.stat(path)
    return LocalDocument(
        uri=uri,
        path=str(path),
        size_bytes=told.st_size,
        content_sha256=content_sha256,
        mtime_ns=told.st_mtime_ns,
    )

"""Documents in folders of this machine."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from pathlib import Path

from schemas.errors import DocumentError, ErrorCode, SourceError
from schemas.records import PlannedDocument, SourceObject
from tasks.filesystem import local_path, protocol_of
from tasks.source import GONE, Found
from tasks.versions import local_version

_CHUNK = 2**20


class LocalSource:
    """See `tasks.source.Source`."""

    def walk(self, address: str, lake: str) -> Iterator[Found]:
        """See `Source.walk`; in the order of names."""
        root = os.path.normpath(Path(local_path(address)).absolute())
        if os.path.isfile(root):
            yield os.path.basename(root), self.look(root)
            return
        if not os.path.exists(root):
            raise SourceError(f"there is no {address}; give a folder or a file that exists")
        own = "" if protocol_of(lake) else os.path.realpath(local_path(lake))
        for entry in _walk(root, own):
            yield os.path.relpath(entry.path, root), self.look(entry.path)

    def look(self, address: str) -> SourceObject:
        """See `Source.look`."""
        path = local_path(address)
        try:
            told = os.stat(path)
        except OSError:  # a dangling link, or gone since
            return SourceObject(uri=path, version=GONE, size_bytes=0)
        return SourceObject(uri=path, version=local_version(told), size_bytes=told.st_size)

    def fetch(self, planned: PlannedDocument) -> Iterator[bytes]:
        """See `Source.fetch`."""
        try:
            if not stat.S_ISREG(os.stat(planned.uri).st_mode):
                raise DocumentError(
                    ErrorCode.UNSUPPORTED_TYPE,
                    "a pipe or device, no file; leave it out with --exclude",
                )
            with open(planned.uri, "rb") as file:
                _expect(planned, file.fileno())
                while chunk := file.read(_CHUNK):
                    yield chunk
                _expect(planned, file.fileno())
        except FileNotFoundError:
            raise DocumentError(
                ErrorCode.SOURCE_MISSING, "the file vanished after it was listed"
            ) from None
        except PermissionError:
            raise DocumentError(
                ErrorCode.SOURCE_DENIED, "no permission to read the file; change it and run again"
            ) from None
        except OSError as error:
            raise DocumentError(
                ErrorCode.SOURCE_MISSING, f"cannot be read: {error.strerror}"
            ) from None


def _expect(planned: PlannedDocument, file: int) -> None:
    if local_version(os.fstat(file)) != planned.version:
        raise DocumentError(
            ErrorCode.SOURCE_CHANGED,
            "the file changed after it was listed; the next run reads it as it is now",
        )


def _walk(folder: str, lake: str, above: tuple[str, ...] = ()) -> Iterator[os.DirEntry[str]]:
    try:
        entries = sorted(os.scandir(folder), key=lambda entry: entry.name)
    except OSError as error:
        raise SourceError(f"cannot list {folder}: {error.strerror}") from None
    above = (*above, os.path.realpath(folder))
    for entry in entries:
        if entry.name.startswith("."):
            continue
        if os.path.isdir(entry.path):  # False, not an error, for a link to itself
            real = os.path.realpath(entry.path)
            # A link to where we are would not end.
            if not entry.name.startswith("_") and real != lake and real not in above:
                yield from _walk(entry.path, lake, above)
        elif entry.is_symlink() or entry.is_file():
            yield entry

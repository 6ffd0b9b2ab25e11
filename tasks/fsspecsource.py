"""Documents at any fsspec address that is neither this machine nor S3."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import fsspec

from schemas.errors import DocumentError, ErrorCode, SourceError
from schemas.records import PlannedDocument, SourceObject
from tasks.filesystem import without_password
from tasks.source import GONE, Found, hidden
from tasks.versions import version_of

_CHUNK = 2**20


class FsspecSource:
    """See `tasks.source.Source`. Listed folder by folder; each folder fits in memory."""

    def __init__(self, fs: fsspec.AbstractFileSystem, protocol: str) -> None:
        self._fs = fs
        self._protocol = protocol

    def walk(self, address: str, lake: str) -> Iterator[Found]:
        """See `Source.walk`."""
        root = str(self._fs._strip_protocol(address)).rstrip("/")
        own = str(self._fs._strip_protocol(lake)).rstrip("/") if self._is_ours(lake) else None
        try:
            if self._fs.isfile(root):
                yield root.rpartition("/")[2], self.look(address)
                return
            if not self._fs.exists(root):
                raise SourceError(f"there is no {address}; give a folder or a file that exists")
            for _, _, files in self._fs.walk(root, detail=True):
                for path, told in ((str(each["name"]), each) for each in files.values()):
                    name = path[len(root) :].lstrip("/")
                    if hidden(name) or (own and path.startswith(f"{own}/")):
                        continue
                    yield name, self._object(path, told)
        except SourceError:
            raise
        except Exception as error:  # each maker's package has its own
            raise SourceError(f"cannot list {address}: {_told(error)}") from None

    def look(self, address: str) -> SourceObject:
        """See `Source.look`."""
        path = str(self._fs._strip_protocol(address))
        try:
            return self._object(path, self._fs.info(path))
        except Exception:  # absent or denied: its row will say which
            return SourceObject(address, GONE, 0)

    def fetch(self, planned: PlannedDocument) -> Iterator[bytes]:
        """See `Source.fetch`; looked at before and after, for want of conditional reads."""
        path = str(self._fs._strip_protocol(planned.uri))
        try:
            self._expect(planned, path)
            with self._fs.open(path, "rb", block_size=_CHUNK) as file:
                while chunk := file.read(_CHUNK):
                    yield chunk
            self._expect(planned, path)
        except DocumentError:
            raise
        except FileNotFoundError:
            raise DocumentError(
                ErrorCode.SOURCE_MISSING, "the object vanished after it was listed"
            ) from None
        except PermissionError as error:
            raise DocumentError(
                ErrorCode.SOURCE_DENIED, f"cannot be read: {_told(error)}"
            ) from None
        except Exception as error:
            raise DocumentError(
                ErrorCode.SOURCE_MISSING, f"cannot be read: {_told(error)}"
            ) from None

    def _expect(self, planned: PlannedDocument, path: str) -> None:
        found = version_of(self._fs.info(path))
        if planned.version not in (GONE, found):
            raise DocumentError(
                ErrorCode.SOURCE_CHANGED,
                "the object changed after it was listed; the next run reads it as it is now",
            )

    def _object(self, path: str, told: dict[str, Any]) -> SourceObject:
        # HTTP's paths are whole addresses.
        uri = path if "://" in path else f"{self._protocol}://{path.lstrip('/')}"
        return SourceObject(uri, version_of(told), int(told.get("size") or 0))

    def _is_ours(self, lake: str) -> bool:
        return lake.startswith(f"{self._protocol}://")


def _told(error: Exception) -> str:
    return f"{type(error).__name__}: {without_password(' '.join(str(error).split())[:300])}"

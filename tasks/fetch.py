"""A source object's bytes at a path of this machine, checked to be what was planned."""

from __future__ import annotations

import hashlib
import os
import stat

from schemas.errors import DocumentError, ErrorCode
from schemas.records import LocalDocument, PlannedDocument
from tasks.discover import local_version


def fetch(planned: PlannedDocument, most_bytes: int) -> LocalDocument:
    """A local file where it is, with the hash of its content.

    Raises:
        DocumentError: `source_missing`, `source_denied`, `source_changed` since it was listed, or
            `too_large`.
    """
    if planned.size_bytes > most_bytes:
        raise DocumentError(
            ErrorCode.TOO_LARGE,
            f"{planned.size_bytes:,} bytes are more than --max-document-bytes {most_bytes:,}",
        )
    try:
        if not stat.S_ISREG(os.stat(planned.uri).st_mode):
            raise DocumentError(
                ErrorCode.UNSUPPORTED_TYPE, "a pipe or device, no file; leave it out with --exclude"
            )
        with open(planned.uri, "rb") as file:
            told = os.fstat(file.fileno())
            if local_version(told) != planned.version:
                raise DocumentError(
                    ErrorCode.SOURCE_CHANGED,
                    "the file changed after it was listed; the next run reads it as it is now",
                )
            content = hashlib.file_digest(file, "sha256").hexdigest()
    except FileNotFoundError:
        raise DocumentError(
            ErrorCode.SOURCE_MISSING, "the file vanished after it was listed"
        ) from None
    except PermissionError:
        raise DocumentError(
            ErrorCode.SOURCE_DENIED, "no permission to read the file; change it and run again"
        ) from None
    except OSError as error:
        raise DocumentError(ErrorCode.SOURCE_MISSING, f"cannot be read: {error.strerror}") from None
    return LocalDocument(
        uri=planned.uri,
        path=planned.uri,
        size_bytes=told.st_size,
        content_sha256=content,
        mtime_ns=told.st_mtime_ns,
    )

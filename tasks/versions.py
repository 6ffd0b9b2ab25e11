"""What tells one state of a source object from another, by what its store says of it."""

from __future__ import annotations

import os
from collections.abc import Mapping
from datetime import datetime
from typing import Any

_NAMES = ("ETag", "etag", "md5Hash", "crc32c", "checksum")


def version_of(told: Mapping[str, Any]) -> str:
    """The version of an object from fsspec's `info`: ETag, MD5 or CRC, else size and time."""
    for name in _NAMES:
        if told.get(name):
            return str(told[name]).strip('"')
    time = told.get("mtime") or told.get("LastModified") or told.get("last_modified")
    time = time or told.get("created") or ""
    if isinstance(time, datetime):  # a listing may tell seconds where a look tells this
        time = time.timestamp()
    return f"{told.get('size', 0)}-{time}"


def local_version(stat: os.stat_result) -> str:
    """The version of a local file: its size and the nanosecond it was last written."""
    return f"{stat.st_size}-{stat.st_mtime_ns}"

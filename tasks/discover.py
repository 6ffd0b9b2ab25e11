"""What the source holds, as a stream in the order of names."""

from __future__ import annotations

import fnmatch
import os
from collections.abc import Iterator, Sequence
from pathlib import Path

from schemas.errors import SourceError
from schemas.records import SourceObject


def discover(
    source: str, include: Sequence[str], exclude: Sequence[str], lake: str
) -> Iterator[SourceObject]:
    """Every file under a folder, or the one file that `source` names.

    Left out, as Spark, Hive and pyarrow leave them out: folders whose name begins with `_` or `.`,
    and files whose name begins with `.`; further the lake itself, if it lies inside the source.

    Args:
        source: a folder or a file.
        include: globs, matched against the path below `source` and against the name alone; if
            there are any, a file must match one.
        exclude: globs of files to leave out.
        lake: the destination.

    Raises:
        SourceError: `source` does not exist or cannot be listed; raised before the first object.
    """
    root = Path(os.path.normpath(Path(source).absolute()))
    if root.is_file():
        return iter([_object(str(root))])
    if not root.exists():
        raise SourceError(f"there is no {source}; give a folder or a file that exists")
    try:
        os.scandir(root).close()
    except OSError as error:
        raise SourceError(f"cannot list {source}: {error.strerror}") from None
    wanted = (
        entry
        for entry in _walk(str(root), os.path.realpath(lake))
        if _matches(os.path.relpath(entry.path, root), include, exclude)
    )
    return (_object(entry.path) for entry in wanted)


def local_version(stat: os.stat_result) -> str:
    """The version of a local file: its size and the nanosecond it was last written."""
    return f"{stat.st_size}-{stat.st_mtime_ns}"


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


def _matches(path: str, include: Sequence[str], exclude: Sequence[str]) -> bool:
    def hit(globs: Sequence[str]) -> bool:
        name = os.path.basename(path)
        return any(
            fnmatch.fnmatch(path, glob)
            or fnmatch.fnmatch(name, glob)
            or (glob.startswith("**/") and fnmatch.fnmatch(path, glob[3:]))
            for glob in globs
        )

    return (not include or hit(include)) and not hit(exclude)


def _object(path: str) -> SourceObject:
    try:
        stat = os.stat(path)
    except OSError:  # a dangling link, or gone since: fetching it says so in the document's row
        return SourceObject(uri=path, version="missing", size_bytes=0)
    return SourceObject(uri=path, version=local_version(stat), size_bytes=stat.st_size)

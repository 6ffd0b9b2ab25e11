"""What the source holds, as a stream: a folder, a bucket's prefix, one object, or a manifest."""

from __future__ import annotations

import fnmatch
import os
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor

from schemas.errors import UsageError
from schemas.records import SourceObject
from tasks.filesystem import local_path, protocol_of
from tasks.manifest import addresses, is_manifest
from tasks.sources import Sources

_LOOKS_AT_ONCE = 32


def discover(
    source: str, include: Sequence[str], exclude: Sequence[str], lake: str, sources: Sources
) -> Iterator[SourceObject]:
    """Every object below an address, the one it names, or those that a manifest lists.

    A listing of any length goes by without sitting in memory. What is left out says
    `Source.walk`.

    Args:
        source: a folder, a prefix, an object; or a manifest: see `tasks.manifest`.
        include: globs, matched against the path below `source` and against the name alone; if
            there are any, an object must match one. The addresses of a manifest are matched whole.
        exclude: globs of objects to leave out.
        lake: the destination, which is no source.
        sources: opens addresses.

    Raises:
        SourceError: `source` does not exist or cannot be listed, or no further.
    """
    if is_manifest(source):
        named = addresses(source, sources)
        return _looked_at((each for each in named if wanted(each, include, exclude)), sources)
    found = sources.of(source).walk(source, lake)
    return (each for path, each in found if wanted(path, include, exclude))


def wanted(path: str, include: Sequence[str], exclude: Sequence[str]) -> bool:
    """Whether the globs let a path through."""

    def hit(globs: Sequence[str]) -> bool:
        name = os.path.basename(path)
        return any(
            fnmatch.fnmatch(path, glob)
            or fnmatch.fnmatch(name, glob)
            or (glob.startswith("**/") and fnmatch.fnmatch(path, glob[3:]))
            for glob in globs
        )

    return (not include or hit(include)) and not hit(exclude)


def _looked_at(named: Iterable[str], sources: Sources) -> Iterator[SourceObject]:
    """The objects at some addresses, in their order, several looked at ahead."""
    with ThreadPoolExecutor(_LOOKS_AT_ONCE, thread_name_prefix="look") as pool:
        ahead: deque[Future[SourceObject]] = deque()
        for address in named:
            ahead.append(pool.submit(sources.of(address).look, address))
            if len(ahead) >= _LOOKS_AT_ONCE:
                yield ahead.popleft().result()
        while ahead:
            yield ahead.popleft().result()


def below(source: str) -> str:
    """What the addresses of all objects of a source begin with, if it is not one object itself.

    Raises:
        UsageError: it is a manifest, whose addresses have nothing in common.
    """
    if is_manifest(source):
        raise UsageError(
            f"--mark-deleted compares with a listing, and {source} is a manifest; give a folder "
            "or prefix"
        )
    if (protocol := protocol_of(source)) is not None:
        # However it was spelled: `s3a://` is for Hadoop, and no object's address begins so.
        return f"{protocol.replace('s3a', 's3')}://{source.partition('://')[2]}"
    root = os.path.normpath(os.path.abspath(local_path(source)))
    return root if os.path.isfile(root) else root.rstrip("/") + "/"

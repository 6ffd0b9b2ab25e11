"""The documents inside an archive, one after the other, within limits and whatever its bytes say.

Only `zipfile`, `tarfile` and `gzip` are needed: they stream, they let other threads run while they
decompress, and nothing has to be installed. They trust what they read, though: what keeps a hostile
archive from taking all memory, or from never ending, is here and in `media.zip_file`.
"""

from __future__ import annotations

import errno
import gzip
import hashlib
import re
import stat
import tarfile
import zipfile
from collections.abc import Callable, Generator, Iterator
from contextlib import closing
from dataclasses import dataclass, field
from functools import partial
from typing import IO, Any, cast

from schemas.errors import DocumentError, ErrorCode
from tasks.media import GZIP, UNZIPPABLE, ZIP, zip_file

_Take = Callable[[bytes], object]
_Entries = Generator[tuple[str, int, Iterator[bytes]], None, None]  # name, size claimed, content

_CHUNK = 256 << 10
# Of a crafted header of 64 KiB tarfile makes a gigabyte, and holds up all threads for 4 seconds.
_MOST_HEADER = 16 << 10
_MOST_GLOBALS = 100
_MADE_BY_WINDOWS = (0, 10, 14)
_ZIP_ENCRYPTED = 0x1
_TOTAL = "unpacked, the archive has more than --max-archive-bytes"
_DOS_FOLDER = 0x10
_BROKEN = (*UNZIPPABLE, tarfile.TarError, LookupError, OSError)


@dataclass(frozen=True, slots=True)
class Limits:
    """The most that is taken out of one archive: documents, and bytes as they really unpack, of one
    and of all (of a tar with what lies between them)."""

    members: int
    member_bytes: int
    total_bytes: int


@dataclass(frozen=True, slots=True)
class Member:
    """One document of an archive: number `number` from 1 on, in the archive's order.

    `name` is unique in the archive: a relative address for people, never to be used as a path.
    `size_bytes` is what the archive claims. `read` hands the content to a function, in chunks of
    at most 256 KiB, once, before the next member is asked for. It raises DocumentError if this
    member alone fails: `too_large`, `encrypted`, `unsupported_type` or `corrupt`.
    """

    name: str
    number: int
    size_bytes: int
    read: Callable[[_Take], None] = field(repr=False, compare=False)


def walk(path: str, kind: str, limits: Limits, start: int = 1) -> Generator[Member, None, None]:
    """The documents of an archive in its order, from number `start` on; each may be read or not.

    Left out, as from a folder: names that begin with `.`, folders whose name begins with `_`, and
    what is no regular file. Numbers and names depend on the archive's bytes alone. Close the walk
    if it is left before its end.

    Args:
        path: the archive on this machine.
        kind: what `media.media_type` says it is, one of `media.ARCHIVES`.
        limits: what to stop at; members before `start` count as if they had been read.
        start: the first member to give.

    Raises:
        DocumentError: after the members before it, `corrupt` where the archive is damaged (a ZIP
            that was cut off has lost its table of contents, and gives none), `too_large` where it
            passes the limit on members or on the total, `source_missing` if it cannot be read.
    """
    meter, names, number = _Meter(limits), _Names(), 0
    entries = _in_zip(path) if kind == ZIP else _in_tar(path, kind, limits.total_bytes)
    with closing(entries):
        try:
            for stored, size, content in entries:
                if (address := _address(stored)) is None:
                    continue
                if number == limits.members:
                    raise _too_large("the archive has more than --max-archive-members", number)
                number += 1
                name = names.distinct(address)
                if number < start:
                    meter.spend(min(size, limits.member_bytes))
                else:
                    yield Member(name, number, size, partial(meter.read, content))
                    meter.spend(0)
        except _BROKEN as error:
            raise _failure(error, f"the archive is damaged after {number:,} members") from None


class _Meter:
    """Counts what comes out of one archive, and stops it at the limits."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._spent = 0

    def spend(self, size: int) -> None:
        self._spent += size
        if self._spent > self._limits.total_bytes:
            raise _too_large(_TOTAL, self._limits.total_bytes)

    def read(self, content: Iterator[bytes], take: _Take) -> None:
        for chunk in self._metered(content):
            take(chunk)  # out here, for its errors are not the archive's

    def _metered(self, content: Iterator[bytes]) -> Iterator[bytes]:
        most = left = self._limits.member_bytes
        try:
            for chunk in content:
                self.spend(min(len(chunk), left))
                left -= len(chunk)
                if left < 0:
                    raise _too_large("unpacked, it has more than --max-document-bytes", most)
                yield chunk
        except _BROKEN as error:
            raise _failure(error, "the member is damaged inside the archive") from None


class _Names:
    """Keeps equal names apart."""

    def __init__(self) -> None:
        self._counts: dict[bytes, int] = {}  # by hash, for a name may be thousands of bytes long

    def distinct(self, name: str) -> str:
        given, count = name, self._counts.get(_hash(name), 0)
        if count:
            count += 1
            while _hash(given := f"{name}#{count}") in self._counts:
                count += 1
            self._counts[_hash(name)] = count  # counting on from here, not from 2 each time
        self._counts[_hash(given)] = 1
        return given


def _hash(name: str) -> bytes:
    return hashlib.blake2b(name.encode("utf-8", "surrogatepass"), digest_size=16).digest()


class _Tape:
    """A tar's bytes as `tarfile` may read them: forwards, and up to `until`.

    Left alone it follows a size below zero back to where it was, for ever, and reads into memory
    whatever a header claims to be long.
    """

    def __init__(self, file: IO[bytes], most_bytes: int) -> None:
        self._file = file
        self._most_bytes = most_bytes
        self._at = 0
        self.until = _MOST_HEADER
        self.last = b""

    def tell(self) -> int:
        return self._at

    def seek(self, to: int) -> None:
        if to < self._at:
            raise tarfile.ReadError("a header points backwards")
        if to > self._most_bytes:
            raise _too_large(_TOTAL, self._most_bytes)
        self._at = self._file.seek(to)

    def read(self, size: int) -> bytes:
        if not 0 <= size <= self.until - self._at:
            raise tarfile.ReadError(f"a header of more than {_MOST_HEADER:,} bytes")
        self.last = self._file.read(size)
        self._at += len(self.last)
        if self._at > self._most_bytes:
            raise _too_large(_TOTAL, self._most_bytes)
        return self.last


def _in_tar(path: str, kind: str, most_bytes: int) -> _Entries:
    with cast(IO[bytes], gzip.open(path) if kind == GZIP else open(path, "rb")) as file:
        tape = _Tape(file, most_bytes)
        tar = tarfile.TarFile(fileobj=cast(Any, tape), encoding="utf-8")
        while (info := tar.next()) is not None:
            tar.members = []  # type: ignore[attr-defined]  # where it would keep them all
            if info.size < 0 or len(tar.pax_headers) > _MOST_GLOBALS:
                raise tarfile.ReadError("a header makes no sense")
            tape.until = tar.offset
            if info.isreg():
                stream = cast(IO[bytes], tar.extractfile(info))
                yield info.name, info.size, iter(partial(stream.read, _CHUNK), b"")
            tape.until = tar.offset + _MOST_HEADER
        # tarfile takes whatever it cannot read for the end, which is a block of zeros.
        if len(tape.last) < tarfile.BLOCKSIZE or any(tape.last):
            raise tarfile.ReadError("a header cannot be read, or the end is missing")
        tape.until = most_bytes + _CHUNK
        while tape.read(_CHUNK):  # to gzip's checksum
            pass


def _in_zip(path: str) -> _Entries:
    with zip_file(path) as archive:
        for info in archive.infolist():
            name = info.filename
            if info.create_system in _MADE_BY_WINDOWS:
                name = name.replace("\\", "/")
            folder = name.endswith("/") or info.external_attr & _DOS_FOLDER
            if not folder and stat.S_IFMT(info.external_attr >> 16) in (0, stat.S_IFREG):
                yield name, info.file_size, _unzipped(archive, info)


def _unzipped(archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> Iterator[bytes]:
    if info.flag_bits & _ZIP_ENCRYPTED:
        raise DocumentError(ErrorCode.ENCRYPTED, "the archive asks for a password for this member")
    # bzip2 and LZMA are unpacked by zipfile without bound: 80 MB out of each 4 kB it reads.
    if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        why = f"packed by ZIP's method {info.compress_type}; pack it anew with Deflate"
        raise DocumentError(ErrorCode.UNSUPPORTED_TYPE, why)
    yield from iter(partial(archive.open(info).read, _CHUNK), b"")


def _address(stored: str) -> str | None:
    """A stored name as people write it below the archive; None for what is left out."""
    parts = [part for part in stored.replace("\0", "").split("/") if part not in ("", ".")]
    if parts and re.fullmatch("[A-Za-z]:", parts[0]):
        del parts[0]
    hidden = any(part.startswith(".") and part != ".." for part in parts)
    if hidden or any(part.startswith("_") for part in parts[:-1]):
        return None
    return "/".join(parts) or "unnamed"


def _too_large(what: str, most: int) -> DocumentError:
    return DocumentError(ErrorCode.TOO_LARGE, f"{what} {most:,}; raise that to read all of it")


def _failure(error: Exception, damaged: str) -> DocumentError:
    # A seek to where no file can reach is an OSError too.
    if isinstance(error, OSError) and error.errno not in (None, errno.EINVAL):
        return DocumentError(ErrorCode.SOURCE_MISSING, f"cannot be read: {error.strerror}")
    why = f"{damaged}: {str(error) or type(error).__name__}; fetch or pack it anew"
    return DocumentError(ErrorCode.CORRUPT, why)

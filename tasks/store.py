"""Objects that appear whole or not at all: the few operations that the lake's durability needs.

A key is a path relative to the lake, with `/`. A tag stands for one state of an object, as an
ETag does: `replace` and `delete` refuse if the object is no longer in that state.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from schemas.errors import LakeError

_LEFT_BEHIND_SECONDS = 600


class AlreadyExists(Exception):
    """`create` found an object under its key."""


class Changed(Exception):
    """The object is gone or no longer in the state that the tag stands for."""


class LocalStore:
    """A lake in a folder of this machine.

    Files are written under `_runs/tmp` and linked into place: a link, unlike a rename, fails if
    the name is taken. Compare-and-swap is serialised by `flock` on one file.
    """

    def __init__(self, root: str | Path) -> None:
        self.root = Path(root).absolute()

    def path(self, key: str) -> str:
        """The file that holds the object, for readers that want a path."""
        return str(self.root / key)

    def prepare(self) -> None:
        """Make the folder and prove that it can be written.

        Raises:
            LakeError: the destination is a file, or cannot be created or written.
        """
        try:
            self._tmp().mkdir(parents=True, exist_ok=True)
            probe = self._write_tmp(b"")
            probe.unlink()
        except OSError as error:
            raise LakeError(
                f"cannot write to {self.root}: {error.strerror}; choose a folder you may write to"
            ) from error

    def create(self, key: str, data: bytes) -> str:
        """Write a new object; its tag.

        Raises:
            AlreadyExists: there is one under this key; it is left as it is.
        """
        source = self._write_tmp(data)
        target = self.root / key
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            os.link(source, target)
        except FileExistsError:
            raise AlreadyExists(key) from None
        finally:
            source.unlink()
        return _tag(data)

    def put(self, key: str, data: bytes) -> None:
        """Write an object whether or not there is one: for content that its key determines."""
        target = self.root / key
        target.parent.mkdir(parents=True, exist_ok=True)
        os.replace(self._write_tmp(data), target)

    def read(self, key: str) -> tuple[bytes, str]:
        """The object's bytes and its tag.

        Raises:
            FileNotFoundError: there is no such object.
        """
        data = (self.root / key).read_bytes()
        return data, _tag(data)

    def replace(self, key: str, data: bytes, tag: str) -> str:
        """Write over an object that is still in the state `tag`; its new tag.

        Raises:
            Changed: it is not.
        """
        with self._swapping():
            self._expect(key, tag)
            os.replace(self._write_tmp(data), self.root / key)
        return _tag(data)

    def delete(self, key: str, tag: str | None = None) -> None:
        """Remove an object, if it is there and (with `tag`) still in that state.

        Raises:
            Changed: a tag was given and the object is not in that state.
        """
        with self._swapping():
            if tag is not None:
                self._expect(key, tag)
            (self.root / key).unlink(missing_ok=True)

    def exists(self, key: str) -> bool:
        """Whether there is an object under this key."""
        return (self.root / key).is_file()

    def keys(self, prefix: str) -> Iterator[str]:
        """Keys under a folder, at any depth, in the order of their names."""
        base = self.root / prefix
        for folder, folders, files in os.walk(base):
            folders.sort()
            for name in sorted(files):
                yield (Path(folder) / name).relative_to(self.root).as_posix()

    def folders(self, prefix: str) -> list[str]:
        """Names of the folders directly under a prefix, sorted."""
        base = self.root / prefix
        return (
            sorted(entry.name for entry in base.iterdir() if entry.is_dir())
            if base.is_dir()
            else []
        )

    def sweep(self) -> None:
        """Remove temporary files that a killed writer left.

        Only old ones: a run that waits for the lock writes there too.
        """
        for leftover in self._tmp().iterdir():
            with suppress(FileNotFoundError):
                if time.time() - leftover.stat().st_mtime > _LEFT_BEHIND_SECONDS:
                    leftover.unlink()

    def _tmp(self) -> Path:
        return self.root / "_runs" / "tmp"

    def _write_tmp(self, data: bytes) -> Path:
        target = self._tmp() / uuid.uuid4().hex
        with open(target, "xb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        return target

    def _expect(self, key: str, tag: str) -> None:
        try:
            found = self.read(key)[1]
        except FileNotFoundError:
            raise Changed(key) from None
        if found != tag:
            raise Changed(key)

    @contextmanager
    def _swapping(self) -> Iterator[None]:
        with open(self._tmp().parent / "swap", "ab") as guard:
            fcntl.flock(guard, fcntl.LOCK_EX)
            yield


def _tag(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()

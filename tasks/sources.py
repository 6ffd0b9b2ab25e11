"""Opens the sources that addresses point to, each kind once."""

from __future__ import annotations

import threading
from collections.abc import Sequence

from tasks.filesystem import filesystem, options_for, protocol_of
from tasks.localsource import LocalSource
from tasks.source import Source


class Sources:
    """The sources of one run; usable from several threads."""

    def __init__(self, storage_option: Sequence[str] = ()) -> None:
        self._options = options_for(storage_option, "source")
        self._guard = threading.Lock()
        self._opened: dict[str | None, Source] = {None: LocalSource()}

    def of(self, address: str) -> Source:
        """What an address points into.

        Raises:
            UsageError: its kind is not known, or its package is not installed.
        """
        protocol = protocol_of(address)
        with self._guard:
            if protocol not in self._opened:
                assert protocol is not None
                self._opened[protocol] = self._open(protocol)
            return self._opened[protocol]

    def _open(self, protocol: str) -> Source:
        fs = filesystem(protocol, self._options)
        if protocol in ("s3", "s3a"):
            from tasks.s3source import S3Source

            return S3Source(fs)
        from tasks.fsspecsource import FsspecSource

        return FsspecSource(fs, protocol)

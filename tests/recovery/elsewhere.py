"""`pagelake` as on another machine: one of another name, whose clock is wrong.

The arguments are the name, the seconds by which its clock is ahead, and those of the command. What
only counts how long things take is right, as it is where the date is wrong.
"""

from __future__ import annotations

import datetime
import socket
import sys
from typing import Any

import flows.ingest  # noqa: F401 the modules that ask for the time
from flows import cli


class _Kind(type):
    def __instancecheck__(cls, thing: object) -> bool:
        return isinstance(thing, datetime.datetime)


def ahead_by(seconds: float) -> type:
    """`datetime.datetime` with a clock that is ahead."""

    class Ahead(datetime.datetime, metaclass=_Kind):
        @classmethod
        def now(cls, tz: Any = None) -> Any:
            return datetime.datetime.now(tz) + datetime.timedelta(seconds=seconds)

    return Ahead


def pretend(host: str, seconds: float) -> None:
    """Only in our own modules: others check what is at home in C."""
    socket.gethostname = lambda: host
    wrong = ahead_by(seconds)
    for name, module in list(sys.modules.items()):
        ours = name.partition(".")[0] in ("flows", "tasks")
        if ours and getattr(module, "datetime", None) is datetime.datetime:
            module.datetime = wrong  # type: ignore[attr-defined]


def main(arguments: list[str]) -> None:
    host, seconds, *rest = arguments
    pretend(host, float(seconds))
    cli.main(rest)

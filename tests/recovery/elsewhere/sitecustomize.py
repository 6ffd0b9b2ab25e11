"""Put first on PYTHONPATH, makes a process believe in another host name and another time.

PRETEND_HOST is the name, PRETEND_AHEAD the seconds by which its clock is wrong. The clock that only
counts how long things take is right, as it is on a machine whose date is wrong.
"""

from __future__ import annotations

import datetime
import os
import socket
import time
from typing import Any

_RIGHT, _ahead = datetime.datetime, float(os.environ.get("PRETEND_AHEAD", "0"))


class _Kind(type):
    def __instancecheck__(cls, thing: object) -> bool:
        return isinstance(thing, _RIGHT)


class _Wrong(_RIGHT, metaclass=_Kind):
    @classmethod
    def now(cls, tz: Any = None) -> Any:
        return _RIGHT.now(tz) + datetime.timedelta(seconds=_ahead)

    @classmethod
    def utcnow(cls) -> Any:
        return _RIGHT.utcnow() + datetime.timedelta(seconds=_ahead)

    @classmethod
    def today(cls) -> Any:
        return cls.now()


if _ahead:
    _Wrong.__name__ = _Wrong.__qualname__ = "datetime"
    _Wrong.__module__ = "datetime"
    datetime.datetime = _Wrong  # type: ignore[misc]
    right_time = time.time
    time.time = lambda: right_time() + _ahead
if "PRETEND_HOST" in os.environ:
    socket.gethostname = lambda: os.environ["PRETEND_HOST"]

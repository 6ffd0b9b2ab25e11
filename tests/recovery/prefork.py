"""Commands without the second of CPU that their imports take: a process that has done them, and
forks for each order on its standard input.

A command has a session of its own, and the environment, arguments and files for its output that the
order says. On standard output stands when it has begun and how it has ended, a JSON object a line.
"""

from __future__ import annotations

import importlib
import json
import os
import select
import signal
import sys
import tempfile
import threading
from contextlib import suppress
from typing import Any

_NEEDED = ("flows.cli", "flows.ingest", "flows.upkeep", "flows.show", "tasks.s3store")
_POLL_SECONDS = 0.02


def main() -> None:
    for name in _NEEDED:
        importlib.import_module(name)
    _tell({"threads": threading.active_count()})  # those of libraries know what a fork is
    running: set[int] = set()
    orders = b""
    while True:
        if select.select([0], [], [], _POLL_SECONDS)[0]:
            if not (read := os.read(0, 2**16)):
                break
            *lines, orders = (orders + read).split(b"\n")
            for line in lines:
                order = json.loads(line)
                pid = _fork(order)
                if pid == 0:
                    return _become(order)
                running.add(pid)
                _tell({"id": order["id"], "pid": pid})
        for pid in list(running):
            ended, status = os.waitpid(pid, os.WNOHANG)
            if ended:
                running.remove(pid)
                _tell({"ended": pid, "code": os.waitstatus_to_exitcode(status)})
    for pid in running:
        with suppress(ProcessLookupError):
            os.killpg(pid, signal.SIGKILL)


def _fork(order: dict[str, Any]) -> int:
    """0 in the new process, which leads a session by the time this returns in the old one."""
    ready, leads = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.setsid()
    else:
        os.close(leads)
        os.read(ready, 1)
    os.close(ready)
    if pid == 0:
        os.close(leads)
    return pid


def _become(order: dict[str, Any]) -> None:
    os.environ.clear()
    os.environ.update(order["environment"])
    tempfile.tempdir = None
    nothing = os.open(os.devnull, os.O_RDONLY)
    out, err = (os.open(path, os.O_WRONLY | os.O_CREAT) for path in (order["out"], order["err"]))
    for source, target in ((nothing, 0), (out, 1), (err, 2)):
        os.dup2(source, target)
        os.close(source)
    # As with `python -m flows.cli`: it is what worker processes import first.
    sys.modules["__main__"] = importlib.import_module("flows.cli")
    importlib.import_module(order["module"]).main(order["arguments"])


def _tell(told: dict[str, Any]) -> None:
    os.write(1, json.dumps(told).encode() + b"\n")


if __name__ == "__main__":
    main()

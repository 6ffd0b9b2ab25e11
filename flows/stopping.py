"""Ctrl-C and SIGTERM: take no more in, commit what is finished, leave."""

from __future__ import annotations

import asyncio
import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from tasks.pool import WorkerPool

ABANDON_AFTER = 10.0
"""Seconds that pages under way get to finish after a signal."""

LEAVE_WITHIN = 20.0
"""Seconds after which the process ends, whatever it is doing."""


@contextmanager
def stop_signals(
    stopping: asyncio.Event, pool: WorkerPool, abandon: Callable[[], None]
) -> Iterator[list[int]]:
    """Ctrl-C and SIGTERM take no more in; a second one, or 20 seconds, ends the process at once.

    Pages that are still under way after 10 seconds are given up by calling `abandon`. Gives the
    list of signals received. Outside the main thread signals are the caller's affair.
    """
    received: list[int] = []
    if threading.current_thread() is not threading.main_thread():
        yield received
        return
    loop = asyncio.get_running_loop()

    def stop(number: int) -> None:
        if received:
            os._exit(128 + number)  # the workers die with us
        received.append(number)
        stopping.set()
        pool.stop()
        loop.call_later(ABANDON_AFTER, abandon)
        loop.call_later(LEAVE_WITHIN, os._exit, 128 + number)

    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop, number)
    try:
        yield received
    finally:
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.remove_signal_handler(number)

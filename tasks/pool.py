"""Worker processes: where documents are parsed, rendered, read and laid out, each call with a
deadline after which its process is killed and replaced."""

from __future__ import annotations

import asyncio
import ctypes
import multiprocessing
import os
import signal
import sys
from collections.abc import Callable
from concurrent.futures import Future
from concurrent.futures import TimeoutError as DeadlinePassed
from types import TracebackType
from typing import Any, TypeVar

from pebble import ProcessExpired, ProcessPool

from schemas.errors import DocumentError, ErrorCode

T = TypeVar("T")

_WORKER_ENVIRONMENT = {
    "OMP_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    # glibc would learn to keep ever larger tensors in its heap, which then never shrinks again.
    "MALLOC_MMAP_THRESHOLD_": "16777216",
    "MALLOC_TRIM_THRESHOLD_": "67108864",
}
_PR_SET_PDEATHSIG = 1
_MOST_CALLS = 1_000  # of one process, which is then replaced: what libraries leak stays small


class Stopped(Exception):
    """The pool takes no more calls: the run has been asked to stop."""


class WorkerPool:
    """Processes that run module-level functions on picklable arguments.

    Pebble's pool kills a process whose call is over its deadline, and one that dies takes only its
    own call with it. Processes start with the first call, as fresh interpreters: a fork would copy
    the threads' locks of this one.
    """

    def __init__(self, processes: int) -> None:
        self.processes = processes
        self._pool: ProcessPool | None = None
        # One call more than processes is handed over, so that none waits for the next; the rest
        # queue here, where they can still be called off.
        self._slots = asyncio.Semaphore(processes + 1)
        self._stopped = False

    def stop(self) -> None:
        """Take no more calls; those that are running end."""
        self._stopped = True

    async def run(self, seconds: float, function: Callable[..., T], *arguments: Any) -> T:
        """Call `function(*arguments)` in a worker.

        Raises:
            Stopped: the pool had been stopped before the call began.
            DocumentError: what the function raised; `render_timeout`, `render_crash` or
                `render_memory` if the worker did not survive; `internal` for any other error,
                which would be a defect of ours.
        """
        async with self._slots:
            if self._stopped:
                raise Stopped
            if self._pool is None:
                self._pool = self._start()
            call = self._pool.schedule(function, args=arguments, timeout=seconds)
            return await self._outcome(call, function.__name__, seconds)

    async def _outcome(self, call: Future[T], name: str, seconds: float) -> T:
        try:
            return await asyncio.wrap_future(call)
        except DocumentError:
            raise
        except (DeadlinePassed, TimeoutError):
            raise DocumentError(
                ErrorCode.RENDER_TIMEOUT, f"{name} was stopped after {seconds:g} s"
            ) from None
        except ProcessExpired as died:
            raise DocumentError(
                ErrorCode.RENDER_CRASH, f"the worker died in {name} (exit code {died.exitcode})"
            ) from None
        except MemoryError:
            raise DocumentError(ErrorCode.RENDER_MEMORY, f"{name} ran out of memory") from None
        except Exception as error:
            raise DocumentError(
                ErrorCode.INTERNAL, f"{name} failed: {type(error).__name__}: {error}"
            ) from error

    def __enter__(self) -> WorkerPool:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        at: TracebackType | None,
    ) -> None:
        if self._pool is not None:
            self._pool.stop()
            self._pool.join()

    def _start(self) -> ProcessPool:
        for name, value in _WORKER_ENVIRONMENT.items():
            os.environ.setdefault(name, value)
        return ProcessPool(
            max_workers=self.processes,
            max_tasks=_MOST_CALLS,
            initializer=_begin_worker,
            context=multiprocessing.get_context("spawn"),
        )


def _begin_worker() -> None:
    """Ctrl-C is for the parent to act on; and when the parent dies, by any means, so do we."""
    from tasks.onethread import compute_in_one_thread

    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    compute_in_one_thread()
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() == 1:
            os._exit(1)

"""`pagelake` in a session of its own, to be killed or frozen with all that it has started."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress

import psutil

from tests.conftest import ROOT, Ended


class Command:
    """One that runs, or has ended."""

    def __init__(
        self, arguments: Sequence[str], environment: Mapping[str, str], module: str = "flows.cli"
    ) -> None:
        own = ("PREFECT_", "AWS_")
        surroundings = {k: v for k, v in os.environ.items() if not k.startswith(own)}
        self._process = subprocess.Popen(
            [sys.executable, "-m", module, *arguments],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            cwd=ROOT,
            env=surroundings | environment,
            start_new_session=True,
        )

    def send(self, number: signal.Signals) -> None:
        """A signal to the whole tree, as far as it is still there."""
        with suppress(ProcessLookupError):
            os.killpg(self._process.pid, number)

    def kill(self) -> None:
        self.send(signal.SIGKILL)

    @property
    def running(self) -> bool:
        return self._process.poll() is None

    def wait(self, seconds: float = 120) -> Ended:
        """Until it has ended, and nothing that it started is left."""
        try:
            out, err = self._process.communicate(timeout=seconds)
        except subprocess.TimeoutExpired:
            self.kill()
            out, err = self._process.communicate()
            raise AssertionError(f"no end within {seconds} s:\n{out}{err}") from None
        until = time.monotonic() + 10
        while left := self._left():
            assert time.monotonic() < until, f"{left} outlive their parent"
            time.sleep(0.01)
        return Ended(self._process.returncode, out, err)

    def _left(self) -> list[psutil.Process]:
        found = []
        for process in psutil.process_iter():
            with suppress(ProcessLookupError, psutil.NoSuchProcess):
                ours = os.getsid(process.pid) == self._process.pid
                if ours and process.status() != psutil.STATUS_ZOMBIE:
                    found.append(process)
        return found

"""`pagelake` in a session of its own, to be killed or frozen with all that it has started."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any

import psutil

from tests.conftest import ROOT, Ended


class Command:
    """One that runs, or has ended."""

    def __init__(self, pid: int, output: Path, code: Future[int]) -> None:
        self._pid, self._output, self._code = pid, output, code

    def send(self, number: signal.Signals) -> None:
        """A signal to the whole tree, as far as it is still there."""
        with suppress(ProcessLookupError):
            os.killpg(self._pid, number)

    def kill(self) -> None:
        self.send(signal.SIGKILL)

    @property
    def running(self) -> bool:
        return not self._code.done()

    def wait(self, seconds: float = 120) -> Ended:
        """Until it has ended, and nothing that it started is left."""
        try:
            code = self._code.result(seconds)
        except TimeoutError:
            self.kill()
            raise AssertionError(f"no end within {seconds} s:\n{self._said('err')}") from None
        until = time.monotonic() + 10
        while left := self._left():
            assert time.monotonic() < until, f"{left} outlive their parent"
            time.sleep(0.01)
        return Ended(code, self._said("out"), self._said("err"))

    def _said(self, where: str) -> str:
        return self._output.with_suffix(f".{where}").read_text()

    def _left(self) -> list[psutil.Process]:
        found = []
        for process in psutil.process_iter():
            with suppress(ProcessLookupError, psutil.NoSuchProcess):
                ours = os.getsid(process.pid) == self._pid
                if ours and process.status() != psutil.STATUS_ZOMBIE:
                    found.append(process)
        return found


class Launcher:
    """Starts commands by `prefork.py`; from any thread."""

    def __init__(self, orders: IO[str], news: IO[str], folder: Path) -> None:
        self._orders, self._news, self._folder = orders, news, folder
        self._guard = threading.Lock()
        self._begun: dict[str, Future[int]] = {}
        self._ended: dict[int, Future[int]] = {}

    def start(
        self, module: str, arguments: Sequence[str], environment: Mapping[str, str]
    ) -> Command:
        """Call `main` of a module with these arguments."""
        own = ("PREFECT_", "AWS_")
        surroundings = {k: v for k, v in os.environ.items() if not k.startswith(own)}
        begun = Future[int]()
        with self._guard:
            name = str(len(self._begun))
            self._begun[name] = begun
            output = self._folder / name
            order: dict[str, Any] = {
                "id": name,
                "module": module,
                "arguments": list(arguments),
                "environment": surroundings | {"TMPDIR": str(self._folder)} | environment,
                "out": str(output.with_suffix(".out")),
                "err": str(output.with_suffix(".err")),
            }
            self._orders.write(json.dumps(order) + "\n")
            self._orders.flush()
        pid = begun.result(60)
        return Command(pid, output, self._ended[pid])

    def listen(self) -> None:
        """Take note of what has begun and ended, until there is nothing more to hear."""
        for line in self._news:
            told = json.loads(line)
            if "id" in told:
                self._ended[told["pid"]] = Future()
                self._begun[told["id"]].set_result(told["pid"])
            elif "ended" in told:
                self._ended[told["ended"]].set_result(told["code"])
            else:
                assert told == {"threads": 1}, "a fork would leave the others behind"


@contextmanager
def launching(folder: Path) -> Iterator[Launcher]:
    """A launcher; when it goes, so do the commands that still run."""
    with subprocess.Popen(
        [sys.executable, "-m", "tests.recovery.prefork"],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    ) as process:
        assert process.stdin is not None and process.stdout is not None
        launcher = Launcher(process.stdin, process.stdout, folder)
        listener = threading.Thread(target=launcher.listen)
        listener.start()
        try:
            yield launcher
        finally:
            process.stdin.close()
            listener.join()

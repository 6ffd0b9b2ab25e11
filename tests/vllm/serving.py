"""A real vLLM server as a child of the tests: awaited, stopped, killed, started again."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Self

ENVIRONMENT = {
    "HF_HUB_OFFLINE": "1",
    "VLLM_NO_USAGE_STATS": "1",
    "VLLM_CPU_KVCACHE_SPACE": "1",
    # Else it binds itself to the first of two cores, as does any other engine beside it.
    "VLLM_CPU_OMP_THREADS_BIND": "nobind",
}
"""What any process needs in which a vLLM runs here."""

_ROOT = Path(__file__).resolve().parent.parent.parent
_ARGUMENTS = (
    *("--dtype", "bfloat16", "--enforce-eager", "--max-model-len", "4096", "--max-num-seqs", "4"),
    *("--no-enable-prefix-caching", "--mm-processor-cache-gb", "0"),
)
_OPTIONS = ("dtype=bfloat16", "enforce_eager=true", "max_model_len=4096", "max_num_seqs=4")
_READY_WITHIN_S = 300.0
_STOPPED_WITHIN_S = 8.0  # left to itself, it waits for its clients for minutes


class Served:
    """A server on a free port of this machine, which it keeps when it is started again.

    As a context manager it is ready inside and gone after. What it says is appended to `log`.
    `command` lacks the port; `environment` is what it has besides that of the tests.
    """

    def __init__(
        self, command: Sequence[str], log: Path, environment: Mapping[str, str] = ENVIRONMENT
    ) -> None:
        self.port = _free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.log = log
        self._command = [*command, "--port", str(self.port)]
        self._environment = os.environ | environment
        self._process: subprocess.Popen[bytes] | None = None

    @classmethod
    def by_vllm(
        cls, model: Path, folder: Path, *arguments: str, name: str = "deepseek-ocr", **env: str
    ) -> Self:
        """`vllm serve`; its log is put into `folder`. `arguments` win over the usual ones."""
        command = [sys.executable, "-m", "vllm.entrypoints.cli.main", "serve", str(model)]
        command += ["--host", "127.0.0.1", "--served-model-name", name, *_ARGUMENTS, *arguments]
        return cls(command, folder / "vllm.log", ENVIRONMENT | env)

    @classmethod
    def by_pagelake(cls, weights: Path, folder: Path, *arguments: str) -> Self:
        """`pagelake serve`; its log is put into `folder`."""
        command = [sys.executable, "-m", "flows.cli", "serve", "--weights", str(weights)]
        command += ["--api-servers", "1", *arguments]
        for option in _OPTIONS:
            command += ["--engine-option", option]
        return cls(command, folder / "vllm.log")

    def __enter__(self) -> Self:
        try:
            self.start()
            self.await_ready()
        except BaseException:
            self.kill()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop()

    def start(self) -> None:
        """Start it, and do not wait until it is ready."""
        if self._process is not None:
            raise RuntimeError("it runs already")
        with self.log.open("ab") as log:
            # A group of its own: the engine and its workers are processes of their own too.
            self._process = subprocess.Popen(
                self._command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                env=self._environment,
                cwd=_ROOT,
                start_new_session=True,
            )

    def await_ready(self, within_s: float = _READY_WITHIN_S) -> None:
        """Return when it answers.

        Raises:
            RuntimeError: it ended, or did not answer in time; with the end of its log.
        """
        deadline = time.monotonic() + within_s
        while not self._healthy():
            if self._process is None or self._process.poll() is not None:
                raise RuntimeError(f"the server ended before it was ready\n{self.last_words()}")
            if time.monotonic() > deadline:
                raise RuntimeError(f"the server is not ready in time\n{self.last_words()}")
            time.sleep(0.5)

    def stop(self) -> None:
        """Ask it to end, and end it if it does not within some seconds."""
        if self._process is not None:
            self._process.terminate()
            with suppress(subprocess.TimeoutExpired):  # then it is killed below
                self._process.wait(_STOPPED_WITHIN_S)
        self.kill()

    def kill(self) -> None:
        """End it at once, with all its processes."""
        if self._process is not None:
            with suppress(ProcessLookupError):  # all of its group is gone already
                os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()
            self._process = None

    def last_words(self) -> str:
        """The end of its log."""
        return self.log.read_text(errors="replace")[-4000:]

    def _healthy(self) -> bool:
        try:
            with urllib.request.urlopen(f"{self.url}/health", timeout=5) as answer:
                return bool(answer.status == 200)
        except OSError:  # refused, reset, timed out: all of urllib's errors are of this kind
            return False


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port

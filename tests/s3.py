"""moto's S3 server in a process of its own, and the few calls that tests make to it directly.

Nothing is patched in the process of the tests: clients reach the server by its address, through
the environment that `S3Server.environment` holds.
"""

from __future__ import annotations

import ctypes
import http.client
import io
import logging
import os
import signal
import socket
import subprocess
import sys
import threading
import uuid
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import boto3.session
import botocore.session
from botocore.config import Config

ROOT = Path(__file__).parent.parent
KEY = SECRET = "testing"
REGION = "us-east-1"
PR_SET_PDEATHSIG = 1

WSGI = Callable[[dict[str, Any], Any], Iterable[bytes]]


@dataclass(frozen=True)
class S3Server:
    """A server that runs, and what is in it."""

    endpoint: str

    @property
    def environment(self) -> dict[str, str]:
        """What makes clients use it, once AWS_PROFILE is gone from the rest.

        Enough for botocore and s3fs. pyarrow needs `endpoint_override` besides: told by the
        environment alone, it looks for the bucket in the name of the host.
        """
        return {
            "AWS_ENDPOINT_URL": self.endpoint,
            "AWS_ACCESS_KEY_ID": KEY,
            "AWS_SECRET_ACCESS_KEY": SECRET,
            "AWS_DEFAULT_REGION": REGION,
            "AWS_EC2_METADATA_DISABLED": "true",
            "AWS_CONFIG_FILE": os.devnull,
            "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
        }

    def client(self, endpoint: str | None = None, **config: Any) -> Any:
        """A boto3 client of it, or of a proxy in front of it; `config` goes to botocore's Config.

        It is the caller's to close.
        """
        # Whatever profile is chosen where the tests run has no say here.
        plain = botocore.session.Session(
            session_vars={
                "profile": (None, None, None, None),
                "config_file": (None, None, os.devnull, None),
            }
        )
        return boto3.session.Session(botocore_session=plain).client(
            "s3",
            endpoint_url=endpoint or self.endpoint,
            aws_access_key_id=KEY,
            aws_secret_access_key=SECRET,
            region_name=REGION,
            config=Config(**config),
        )

    @cached_property
    def _own(self) -> Any:
        return self.client(max_pool_connections=32)

    def bucket(self) -> str:
        """Make a bucket that no one else has, and say its name."""
        name = f"bucket-{uuid.uuid4().hex}"
        self._own.create_bucket(Bucket=name)
        return name

    def keys(self, bucket: str, prefix: str = "") -> list[str]:
        """All keys with this prefix, in S3's order."""
        pages = self._own.get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=prefix)
        return [found["Key"] for page in pages for found in page.get("Contents", [])]

    def get(self, bucket: str, key: str) -> bytes:
        return self._own.get_object(Bucket=bucket, Key=key)["Body"].read()

    def put(self, bucket: str, key: str, data: bytes) -> None:
        self._own.put_object(Bucket=bucket, Key=key, Body=data)


@contextmanager
def serving() -> Iterator[S3Server]:
    """A new, empty server on a free port of 127.0.0.1 that dies with the thread that called this.

    Linux ties PR_SET_PDEATHSIG to the thread, not the process: call this from one that stays.
    """
    # The port is bound here and handed down, so that no one can take it in between and whoever
    # connects early waits for the server instead of being refused.
    with socket.create_server(("127.0.0.1", 0), backlog=128) as listening:
        port = listening.getsockname()[1]
        process = subprocess.Popen(
            [sys.executable, "-m", "tests.s3", str(listening.fileno()), str(os.getpid())],
            cwd=ROOT,
            pass_fds=[listening.fileno()],
            stdin=subprocess.DEVNULL,
            start_new_session=True,  # Ctrl-C is for the tests, which still need it to tidy up
        )
    server = S3Server(f"http://127.0.0.1:{port}")
    try:
        _wait_for(server, seconds=30)
        with closing(server._own):
            yield server
    finally:
        process.terminate()
        try:
            process.wait(5)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _wait_for(server: S3Server, seconds: float) -> None:
    connection = http.client.HTTPConnection(urlsplit(server.endpoint).netloc, timeout=seconds)
    try:
        connection.request("GET", "/")
        status = connection.getresponse().status
    finally:
        connection.close()
    if status != 200:
        raise RuntimeError(f"moto answers {status} to its first request")


def as_s3_is(app: WSGI) -> WSGI:
    """moto's app with every request in one piece, and one Server header in each answer.

    moto looks whether a key is there and puts it in two steps: with a thread for each request,
    two writers with If-None-Match may both succeed, which S3 rules out. Bodies are read before
    the lock is taken, so that a slow sender holds up no one. As for the header, aiohttp refuses
    answers with two of it when Python runs in development mode.
    """
    lock = threading.Lock()

    def call(environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        def start(status: str, headers: list[tuple[str, str]], *failed: Any) -> Any:
            kept = [header for header in headers if header[0].lower() != "server"]
            return start_response(status, kept, *failed)

        chunked = environ.get("wsgi.input_terminated", False)
        size = -1 if chunked else int(environ.get("CONTENT_LENGTH") or 0)
        environ["wsgi.input"] = io.BytesIO(environ["wsgi.input"].read(size))
        with lock:
            return app(environ, start)

    return call


def main(listening: int, parent: int) -> None:
    """Serve on a socket that is already listening, for as long as the parent lives."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0):
        raise OSError(ctypes.get_errno(), "prctl")
    if os.getppid() != parent:
        return  # it went before it could be asked for the signal
    from moto.moto_server.werkzeug_app import (
        DomainDispatcherApplication,
        MotoRequestHandler,
        create_backend_app,
    )
    from werkzeug.serving import make_server

    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    app = as_s3_is(DomainDispatcherApplication(create_backend_app))
    make_server(
        "127.0.0.1", 0, app, threaded=True, request_handler=MotoRequestHandler, fd=listening
    ).serve_forever()


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]))

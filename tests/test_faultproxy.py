"""The S3 server and the proxy of the tests: that they are what the tests of the lake count on."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import closing
from typing import Any

import pytest
import s3fs
from botocore.exceptions import (
    ClientError,
    ConnectionClosedError,
    IncompleteReadError,
    ResponseStreamingError,
)

from tests.faultproxy import (
    Call,
    CutBody,
    Delay,
    LostAnswer,
    Proxy,
    Refuse,
    Request,
    Reset,
    Slow,
    Without,
    deletes,
    gets,
    heads,
    lists,
    parts,
    proxying,
    puts,
)
from tests.s3 import ROOT, S3Server, serving

ODD = ["a b", "a+b", "ü", "u\u0308", "a%2Fb", "x#y", "q?z=1&y", "d//e", "./f", "g/../h", "&<'>"]


@pytest.fixture(scope="module")
def server() -> Iterator[S3Server]:
    with serving() as server:
        yield server


@pytest.fixture
def proxy(server: S3Server) -> Iterator[Proxy]:
    with proxying(server.endpoint) as proxy:
        yield proxy


@pytest.fixture
def bucket(server: S3Server) -> str:
    return server.bucket()


@pytest.fixture
def client(server: S3Server, proxy: Proxy) -> Iterator[Any]:
    """A client through the proxy that tries everything once."""
    with closing(
        server.client(proxy.endpoint, retries={"total_max_attempts": 1}, read_timeout=5)
    ) as client:
        yield client


@pytest.fixture
def fs(server: S3Server, proxy: Proxy) -> Iterator[s3fs.S3FileSystem]:
    fs = s3fs.S3FileSystem(
        key="testing",
        secret="testing",
        client_kwargs={"endpoint_url": proxy.endpoint, "region_name": "us-east-1"},
        skip_instance_cache=True,
        use_listings_cache=False,
    )
    yield fs
    fs.close_session(fs.loop, fs._s3creator)


def status(caught: pytest.ExceptionInfo[ClientError]) -> int:
    return caught.value.response["ResponseMetadata"]["HTTPStatusCode"]


def test_s3fs_with_odd_keys(
    fs: s3fs.S3FileSystem, server: S3Server, proxy: Proxy, bucket: str
) -> None:
    for key in ODD:
        fs.pipe_file(f"{bucket}/odd/{key}", key.encode())
        assert fs.cat_file(f"{bucket}/odd/{key}") == key.encode()
    wanted = sorted((f"odd/{key}" for key in ODD), key=str.encode)
    assert server.keys(bucket, "odd/") == wanted
    assert sorted(fs.find(f"{bucket}/odd")) == sorted(f"{bucket}/{key}" for key in wanted)
    assert [r.key for r in proxy.requests if puts()(r)] == [f"odd/{key}" for key in ODD]
    fs.rm(f"{bucket}/odd", recursive=True)
    assert server.keys(bucket) == []
    assert {k for r in proxy.requests if deletes("ü")(r) for k in r.deleted} >= set(wanted)


def test_targets_and_headers_go_through_as_sent() -> None:
    sent = (
        b"PUT /b/%41%2f+%c3%BC//./../~!*'()?list-type=2&prefix=a+b%20c%2F&x HTTP/1.1\r\n"
        b'Host: some.where\r\nAuthorization: AWS4 x\r\nContent-MD5: abc=\r\nIf-Match: "e"\r\n'
        b"X-Amz-Meta-a_b: 1\r\nRange: bytes=1-2\r\nContent-Encoding: gzip\r\n"
        b"Content-Length: 4\r\n\r\nbody"
    )
    answer = (
        b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: 4\r\n"
        b'ETag: "x"\r\nConnection: close\r\n\r\nraw!'
    )
    with (
        socket.create_server(("127.0.0.1", 0)) as store,
        proxying(_address(store)) as proxy,
        _connected(proxy.endpoint) as client,
    ):
        client.sendall(sent)
        connection, _ = store.accept()
        with connection:
            got = b""
            while not got.endswith(b"body"):
                got += connection.recv(65536)
            connection.sendall(answer)
        back = b""
        while not back.endswith(b"raw!"):
            back += client.recv(65536)
    lines = set(got.split(b"\r\n")) - {b"Connection: close"}
    assert lines == set(sent.split(b"\r\n"))
    assert {b'ETag: "x"', b"Content-Encoding: gzip", b"Content-Length: 4"} < set(
        back.split(b"\r\n")
    )


def _address(listening: socket.socket) -> str:
    return "http://{}:{}".format(*listening.getsockname())


def _connected(endpoint: str) -> socket.socket:
    host, _, port = endpoint.removeprefix("http://").partition(":")
    return socket.create_connection((host, int(port)), timeout=10)


def test_objects_of_many_pieces(client: Any, server: S3Server, bucket: str) -> None:
    data = os.urandom(6 * 2**20)
    client.put_object(Bucket=bucket, Key="large", Body=data)
    assert client.head_object(Bucket=bucket, Key="large")["ContentLength"] == len(data)
    assert client.get_object(Bucket=bucket, Key="large")["Body"].read() == data
    ranged = client.get_object(Bucket=bucket, Key="large", Range="bytes=5-1000004")
    assert ranged["Body"].read() == data[5:1000005]
    for number in range(5):
        server.put(bucket, f"pages/{number}", b"")
    pages = client.get_paginator("list_objects_v2").paginate(
        Bucket=bucket, Prefix="pages/", PaginationConfig={"PageSize": 2}
    )
    assert [len(page["Contents"]) for page in pages] == [2, 2, 1]


def test_multipart(fs: s3fs.S3FileSystem, server: S3Server, proxy: Proxy, bucket: str) -> None:
    data = os.urandom(6 * 2**20)
    with fs.open(f"{bucket}/large", "wb", block_size=5 * 2**20) as file:
        file.write(data)
        file.write(data)
    assert server.get(bucket, "large") == data * 2
    assert sum(map(parts("large"), proxy.requests)) == 2
    assert [r.method for r in proxy.requests if puts("large")(r)] == ["POST"]


def test_conditional_writes(
    client: Any, fs: s3fs.S3FileSystem, server: S3Server, proxy: Proxy, bucket: str
) -> None:
    client.put_object(Bucket=bucket, Key="k", Body=b"1", IfNoneMatch="*")
    with pytest.raises(ClientError) as caught:
        client.put_object(Bucket=bucket, Key="k", Body=b"2", IfNoneMatch="*")
    assert status(caught) == 412
    with pytest.raises(FileExistsError):
        fs.pipe_file(f"{bucket}/k", b"2", mode="create")
    tag = client.head_object(Bucket=bucket, Key="k")["ETag"]
    client.put_object(Bucket=bucket, Key="k", Body=b"3", IfMatch=tag)
    with pytest.raises(ClientError) as caught:
        client.put_object(Bucket=bucket, Key="k", Body=b"4", IfMatch=tag)
    assert status(caught) == 412
    with pytest.raises(ClientError) as caught:
        client.delete_object(Bucket=bucket, Key="k", IfMatch=tag)
    assert status(caught) == 412
    assert server.get(bucket, "k") == b"3"

    proxy.on(puts("k"), Without("if-none-MATCH"))
    client.put_object(Bucket=bucket, Key="k", Body=b"5", IfNoneMatch="*")
    assert server.get(bucket, "k") == b"5"


def test_one_of_many_conditional_writers_wins(client: Any, server: S3Server, bucket: str) -> None:
    def write(key: str, writer: int) -> None:
        start.wait()
        try:
            client.put_object(Bucket=bucket, Key=key, Body=b"%d" % writer, IfNoneMatch="*")
            won[key] += 1
        except ClientError:
            pass

    won: Counter[str] = Counter()
    start = threading.Barrier(8)
    for key in map(str, range(5)):
        threads = [threading.Thread(target=write, args=(key, writer)) for writer in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert won == dict.fromkeys(map(str, range(5)), 1)


def test_refusals(client: Any, server: S3Server, proxy: Proxy, bucket: str) -> None:
    for number, code in [
        (503, "SlowDown"),
        (403, "AccessDenied"),
        (403, "RequestTimeTooSkewed"),
        (409, "ConditionalRequestConflict"),
        (404, "NoSuchBucket"),
    ]:
        proxy.on(puts("^k$"), Refuse(number, code, "<not> now"))
        with pytest.raises(ClientError, match="<not> now") as caught:
            client.put_object(Bucket=bucket, Key="k", Body=b"x" * 2**20)
        assert (status(caught), caught.value.response["Error"]["Code"]) == (number, code)
    assert server.keys(bucket) == []
    proxy.on(heads("k"), Refuse(403, "AccessDenied"))
    with pytest.raises(ClientError, match="403"):
        client.head_object(Bucket=bucket, Key="k")
    client.put_object(Bucket=bucket, Key="k", Body=b"")
    proxy.on(lists("^pre"), Refuse(503, "SlowDown"), times=None)
    client.list_objects_v2(Bucket=bucket)
    for _ in range(3):
        with pytest.raises(ClientError, match="SlowDown"):
            client.list_objects_v2(Bucket=bucket, Prefix="pre")
    proxy.clear()
    client.list_objects_v2(Bucket=bucket, Prefix="pre")


def test_resets_and_lost_answers(client: Any, server: S3Server, proxy: Proxy, bucket: str) -> None:
    proxy.on(gets(), Reset())
    with pytest.raises(ConnectionClosedError) as caught:
        client.get_object(Bucket=bucket, Key="reset")
    assert "ConnectionResetError(104" in repr(caught.value.kwargs["error"])
    proxy.on(puts(), Reset())
    with pytest.raises(ConnectionClosedError):
        client.put_object(Bucket=bucket, Key="reset", Body=b"x")
    assert server.keys(bucket) == []
    proxy.on(puts(), LostAnswer())
    with pytest.raises(ConnectionClosedError):
        client.put_object(Bucket=bucket, Key="lost", Body=b"x")
    assert server.get(bucket, "lost") == b"x"
    proxy.on(deletes("lost"), LostAnswer())
    with pytest.raises(ConnectionClosedError):
        client.delete_object(Bucket=bucket, Key="lost")
    assert server.keys(bucket) == []


def test_bodies_cut_and_slow(client: Any, server: S3Server, proxy: Proxy, bucket: str) -> None:
    server.put(bucket, "k", os.urandom(200_000))
    proxy.on(gets("k"), CutBody(150_000))
    body = client.get_object(Bucket=bucket, Key="k")["Body"]
    got = bytearray()
    with pytest.raises((ResponseStreamingError, IncompleteReadError)):
        while True:
            got += body.read(1000)
    assert len(got) == 150_000
    proxy.on(gets("k"), CutBody(200_000))
    assert len(client.get_object(Bucket=bucket, Key="k")["Body"].read()) == 200_000
    proxy.on(gets("k"), Slow(0.05, chunk=50_000))
    began = time.monotonic()
    assert client.get_object(Bucket=bucket, Key="k")["Body"].read() == server.get(bucket, "k")
    assert time.monotonic() - began >= 0.2


def test_delays_and_calls(client: Any, server: S3Server, proxy: Proxy, bucket: str) -> None:
    steps: list[tuple[str, list[str]]] = []

    def step(request: Request) -> None:
        steps.append((request.key, server.keys(bucket)))

    proxy.on(puts(), Delay(0.2))
    proxy.on(puts(), Call(step, before=True))
    proxy.on(puts(), Call(step, before=False))
    proxy.on(puts(), LostAnswer())
    proxy.on(puts(), Refuse(503, "SlowDown"))
    began = time.monotonic()
    with pytest.raises(ConnectionClosedError):
        client.put_object(Bucket=bucket, Key="k", Body=b"")
    assert time.monotonic() - began >= 0.2
    assert steps == [("k", []), ("k", ["k"])]
    with pytest.raises(ClientError, match="SlowDown"):
        client.put_object(Bucket=bucket, Key="k", Body=b"")


def test_what_goes_wrong_in_the_proxy_is_raised(server: S3Server, bucket: str) -> None:
    def fail(request: Request) -> None:
        raise LookupError(request.key)

    with pytest.raises(LookupError, match="k"), proxying(server.endpoint) as proxy:
        proxy.on(gets(), Call(fail, before=True))
        with (
            closing(server.client(proxy.endpoint, retries={"total_max_attempts": 1})) as client,
            pytest.raises(ConnectionClosedError),
        ):
            client.get_object(Bucket=bucket, Key="k")


def test_the_proxy_goes_with_requests_still_waiting(server: S3Server) -> None:
    came = threading.Event()
    with proxying(server.endpoint) as proxy:
        proxy.on(gets(), Call(lambda _: came.set(), before=True))
        proxy.on(gets(), Delay(60))
        client = _connected(proxy.endpoint)
        client.sendall(b"GET /bucket/key HTTP/1.1\r\nHost: some.where\r\n\r\n")
        assert came.wait(10)
        began = time.monotonic()
    assert time.monotonic() - began < 5
    with client:
        assert client.recv(100) == b""


def test_chaos_is_the_same_for_a_seed(
    client: Any, server: S3Server, proxy: Proxy, bucket: str
) -> None:
    def spoiled(seed: int, keys: list[str]) -> dict[str, list[str]]:
        proxy.chaos(seed, 0.5, [Refuse(503, "SlowDown"), LostAnswer()])
        told: dict[str, list[str]] = {key: [] for key in sorted(keys)}
        for key in keys + keys:
            try:
                client.head_object(Bucket=bucket, Key=key)
            except (ClientError, ConnectionClosedError) as error:
                told[key].append(str(error))
        return told

    keys = [str(number) for number in range(20)]
    for key in keys:
        server.put(bucket, key, b"")
    first = spoiled(1, keys)
    assert spoiled(1, keys[::-1]) == first
    assert spoiled(2, keys) != first
    told = Counter(error[:20] for errors in first.values() for error in errors)
    assert len(told) == 2
    proxy.clear()


@pytest.mark.parametrize("before", [True, False])
def test_a_client_killed_at_a_step(server: S3Server, bucket: str, before: bool) -> None:
    def kill(request: Request) -> None:
        process.kill()
        process.wait()

    with proxying(server.endpoint) as proxy:
        proxy.on(puts(), Call(kill, before))
        surroundings = {k: v for k, v in os.environ.items() if not k.startswith("AWS_")}
        process = subprocess.Popen(
            [
                sys.executable,
                "-c",
                "import boto3\nboto3.client('s3').put_object("
                f"Bucket='{bucket}', Key='k', Body=b'x' * 2**20)",
            ],
            env=surroundings | server.environment | {"AWS_ENDPOINT_URL": proxy.endpoint},
        )
        assert process.wait(10) == -signal.SIGKILL
    assert len(proxy.requests) == 1
    assert server.keys(bucket) == ([] if before else ["k"])


def test_the_server_dies_with_its_parent() -> None:
    parent = subprocess.Popen(
        [
            sys.executable,
            "-c",
            "import time\nfrom tests.s3 import serving\n"
            "with serving() as server:\n    print(server.endpoint, flush=True)\n    time.sleep(60)",
        ],
        stdout=subprocess.PIPE,
        text=True,
        cwd=ROOT,
    )
    with parent:
        assert parent.stdout is not None
        endpoint = parent.stdout.readline().strip()
        _connected(endpoint).close()
        parent.kill()
    for _ in range(100):
        try:
            _connected(endpoint).close()
        except ConnectionRefusedError:
            return
        time.sleep(0.05)
    pytest.fail("the server outlived its parent")

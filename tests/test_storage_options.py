"""How object stores are reached, and that what opens them is never told to anyone."""

from __future__ import annotations

import io
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from tests.conftest import QUICK, Ended, pagelake_forked, side_by_side
from tests.documents import write_pdf
from tests.faultproxy import Proxy, Refuse, Request, gets, lists, proxying
from tests.s3 import S3Server

SECRETS = {
    "source.key": "AKIAOFTHESOURCE",
    "source.secret": "hidden/of+the=source",
    "dest.key": "AKIAOFTHELAKE",
    "dest.secret": "hidden/of+the=lake",
    "dest.token": "hidden-session-token",
}
KMS = "arn:aws:kms:eu-west-1:111122223333:key/1234abcd"
CREDENTIALS = """
[default]
aws_access_key_id = AKIAOFDEFAULT
aws_secret_access_key = hidden-of-default
[reader]
aws_access_key_id = AKIAOFTHEREADER
aws_secret_access_key = hidden-of-the-reader
"""


@dataclass(frozen=True)
class Ran:
    """A command that has ended, and what it asked of the source's store and of the lake's."""

    ended: Ended
    of_source: list[Request]
    of_lake: list[Request]

    @property
    def requests(self) -> list[Request]:
        return self.of_source + self.of_lake


@dataclass(frozen=True)
class Stores:
    """A store behind two proxies, with documents in the bucket `source`."""

    s3: S3Server
    source: str
    folder: Path
    stack: ExitStack

    def proxies(self) -> tuple[Proxy, Proxy]:
        return (
            self.stack.enter_context(proxying(self.s3.endpoint)),
            self.stack.enter_context(proxying(self.s3.endpoint)),
        )

    def run(
        self, lake: str, *arguments: str, options: dict[str, str], environment: dict[str, str]
    ) -> Ran:
        """A command over the source, with nothing but these ways to reach the stores."""
        source, dest = self.proxies()
        told = {"source.endpoint_url": source.endpoint, "dest.endpoint_url": dest.endpoint}
        given = [f"--storage-option={k}={v}" for k, v in {**told, **options}.items()]
        command, *rest = arguments
        ended = pagelake_forked(
            command,
            f"s3://{self.source}/in",
            lake,
            *(QUICK if command == "ingest" else QUICK[:2]),
            *given,
            *rest,
            AWS_EC2_METADATA_DISABLED="true",
            **environment,
        )
        return Ran(ended, source.requests, dest.requests)


@dataclass(frozen=True)
class Stories:
    """The commands that the tests look at; `first` and `by_environment` are of lakes in buckets."""

    s3: S3Server
    lake: str
    first: Ran
    again: Ran
    by_environment: Ran
    anonymous: Ran
    unsigned: Ran
    profile: Ran
    denied: Ran
    local_lake: Path


@pytest.fixture(scope="module")
def stories(s3: S3Server, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stories]:
    folder, bucket = tmp_path_factory.mktemp("options"), s3.bucket()
    for number in range(2):
        path = write_pdf(folder / f"{number}.pdf", 1, f"Letter {number}.")
        s3.put(bucket, f"in/{number}.pdf", path.read_bytes())
    (folder / "credentials").write_text(CREDENTIALS)
    with ExitStack() as stack:
        stores = Stores(s3, bucket, folder, stack)
        lake, other = s3.bucket(), s3.bucket()
        found: dict[str, Ran] = {}

        def two_accounts() -> None:
            options = {
                **SECRETS,
                "region": "eu-west-1",
                "source.requester_pays": "true",
                "dest.sse": "aws:kms",
                "dest.kms_key_id": KMS,
            }
            ours = partial(stores.run, f"s3://{lake}/ocr", "ingest", options=options)
            found["first"] = ours("--json", environment={"AWS_DEFAULT_REGION": "us-west-2"})
            found["again"] = ours(environment={})

        def by_environment() -> None:
            found["by_environment"] = stores.run(
                f"s3://{other}/ocr",
                "ingest",
                options={},
                environment={
                    "AWS_SHARED_CREDENTIALS_FILE": str(folder / "credentials"),
                    "AWS_PROFILE": "reader",
                    "AWS_REGION": "ap-south-1",
                    "AWS_REQUEST_PAYER": "requester",
                    "AWS_SERVER_SIDE_ENCRYPTION": "aws:kms",
                    "AWS_SSE_KMS_KEY_ID": KMS,
                },
            )

        def anonymous() -> None:
            found["anonymous"] = stores.run(
                str(folder / "lake"),
                "ingest",
                options={"anon": "true"},
                environment={"AWS_ACCESS_KEY_ID": "AKIANOTUSED", "AWS_SECRET_ACCESS_KEY": "x"},
            )

        def without_writing() -> None:
            nowhere = str(folder / "nowhere")
            found["unsigned"] = stores.run(
                nowhere, "plan", options={}, environment={"AWS_NO_SIGN_REQUEST": "true"}
            )
            shared = {"AWS_SHARED_CREDENTIALS_FILE": str(folder / "credentials")}
            found["profile"] = stores.run(
                nowhere, "plan", options={"profile": "reader"}, environment=shared
            )

        side_by_side(two_accounts, by_environment, anonymous, without_writing)
        yield Stories(s3, lake, local_lake=folder / "lake", **found)

"""How object stores are reached, and that what opens them is never told to anyone."""

from __future__ import annotations

import io
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from tests.conftest import QUICK, Ended, pagelake_forked, side_by_side
from tests.documents import write_pdf
from tests.faultproxy import Refuse, Request, gets, lists, proxying, puts
from tests.s3 import S3Server

KMS = "arn:aws:kms:eu-west-1:111122223333:key/1234abcd"
TWO_ACCOUNTS = (
    "source.key=AKIAOFTHESOURCE",
    "source.secret=hidden/of+the=source",
    "source.requester_pays=true",
    "dest.key=AKIAOFTHELAKE",
    "dest.secret=hidden/of+the=lake",
    "dest.token=hidden-session-token",
    "dest.sse=aws:kms",
    f"dest.kms_key_id={KMS}",
    "region=eu-west-1",
)
ENVIRONMENT = {
    "AWS_PROFILE": "reader",
    "AWS_REGION": "ap-south-1",
    "AWS_REQUEST_PAYER": "requester",
    "AWS_SERVER_SIDE_ENCRYPTION": "aws:kms",
    "AWS_SSE_KMS_KEY_ID": KMS,
}
CREDENTIALS = """
[default]
aws_access_key_id = AKIAOFDEFAULT
aws_secret_access_key = hidden-of-default
[reader]
aws_access_key_id = AKIAOFTHEREADER
aws_secret_access_key = hidden-of-the-reader
"""
# No one may ever read any of these in what is printed or written.
SECRETS = ("hidden", "AKIAOF")


@dataclass(frozen=True)
class Ran:
    """A command that has ended, and what it asked of the source's store and of the lake's."""

    ended: Ended
    of_source: list[Request]
    of_lake: list[Request]


@dataclass(frozen=True)
class Stores:
    """A store with two documents in the bucket `source`, reached by each side its own way."""

    s3: S3Server
    source: str
    folder: Path

    def run(self, command: str, lake: str, *options: str, **environment: str) -> Ran:
        with proxying(self.s3.endpoint) as source, proxying(self.s3.endpoint) as dest:
            source.on(gets("denied.pdf"), Refuse(403, "AccessDenied"), None)
            ways = (f"source.endpoint_url={source.endpoint}", f"dest.endpoint={dest.endpoint}")
            ended = pagelake_forked(
                command,
                f"s3://{self.source}/in",
                lake,
                *(QUICK if command == "ingest" else QUICK[:2]),
                *(f"--storage-option={option}" for option in (*ways, *options)),
                "--json",
                **environment,
                AWS_SHARED_CREDENTIALS_FILE=str(self.folder / "credentials"),
                AWS_EC2_METADATA_DISABLED="true",
            )
            return Ran(ended, source.requests, dest.requests)


@pytest.fixture(scope="module")
def stores(s3: S3Server, tmp_path_factory: pytest.TempPathFactory) -> Stores:
    folder, bucket = tmp_path_factory.mktemp("options"), s3.bucket()
    for name in ("denied.pdf", "letter.pdf"):
        s3.put(bucket, f"in/{name}", write_pdf(folder / name, 1, f"A {name}.").read_bytes())
    (folder / "credentials").write_text(CREDENTIALS)
    return Stores(s3, bucket, folder)


@dataclass(frozen=True)
class Lakes:
    """The lakes that were made, each bucket by the name of its story, and the stories."""

    buckets: dict[str, str]
    ran: dict[str, Ran]


@pytest.fixture(scope="module")
def lakes(stores: Stores) -> Lakes:
    buckets = {name: stores.s3.bucket() for name in ("accounts", "environment")}
    addresses = {name: f"s3://{bucket}/ocr" for name, bucket in buckets.items()}
    addresses["folder"] = str(stores.folder / "lake")
    used = {"AWS_ACCESS_KEY_ID": "AKIAOFNOUSE", "AWS_SECRET_ACCESS_KEY": "hidden-of-no-use"}
    steps = {
        "accounts": partial(stores.run, "ingest", addresses["accounts"], *TWO_ACCOUNTS),
        "environment": partial(stores.run, "ingest", addresses["environment"], **ENVIRONMENT),
        "anon": partial(stores.run, "ingest", addresses["folder"], "anon=true", **used),
        "unsigned": partial(stores.run, "plan", "nowhere", AWS_NO_SIGN_REQUEST="true", **used),
        "profile": partial(stores.run, "plan", "nowhere", "profile=reader", **used),
        "default": partial(stores.run, "plan", "nowhere", AWS_DEFAULT_REGION="eu-north-1"),
    }
    ran = dict(zip(steps, side_by_side(*steps.values()), strict=True))
    return Lakes(buckets, ran)


def credential(request: Request) -> tuple[str, str]:
    """The access key and the region that a request was signed with."""
    scope = request.headers["Authorization"].partition("Credential=")[2].split("/")
    return scope[0], scope[2]


def test_each_side_is_asked_with_its_own_account(lakes: Lakes) -> None:
    ran = lakes.ran["accounts"]
    assert ran.ended.code == 3, ran.ended.err  # one document is denied
    assert {credential(each) for each in ran.of_source} == {("AKIAOFTHESOURCE", "eu-west-1")}
    assert {credential(each) for each in ran.of_lake} == {("AKIAOFTHELAKE", "eu-west-1")}
    assert not any("x-amz-security-token" in each.headers for each in ran.of_source)
    tokens = {each.headers["x-amz-security-token"] for each in ran.of_lake}
    assert tokens == {"hidden-session-token"}


def test_the_environment_is_heeded(lakes: Lakes) -> None:
    ran = lakes.ran["environment"]
    assert ran.ended.code == 3, ran.ended.err
    signed = {credential(each) for each in ran.of_source + ran.of_lake}
    assert signed == {("AKIAOFTHEREADER", "ap-south-1")}


@pytest.mark.parametrize(("name", "sides"), [("accounts", 1), ("environment", 2)])
def test_the_requester_pays_on_every_request(lakes: Lakes, name: str, sides: int) -> None:
    ran = lakes.ran[name]
    paid = [ran.of_source, ran.of_lake][:sides]
    methods = {(each.method, "list-type" in each.query) for side in paid for each in side}
    assert methods >= {("GET", True), ("GET", False), ("HEAD", False)}
    for side in paid:
        assert {each.headers.get("x-amz-request-payer") for each in side} == {"requester"}
    if sides == 1:
        assert not any("x-amz-request-payer" in each.headers for each in ran.of_lake)


@pytest.mark.parametrize("name", ["accounts", "environment"])
def test_every_object_is_written_encrypted_by_the_key(lakes: Lakes, name: str) -> None:
    written = [each for each in lakes.ran[name].of_lake if puts()(each)]
    assert len(written) > 8
    for each in written:
        assert each.headers["x-amz-server-side-encryption"] == "aws:kms"
        assert each.headers["x-amz-server-side-encryption-aws-kms-key-id"] == KMS


@pytest.mark.parametrize("name", ["anon", "unsigned"])
def test_nothing_is_signed_for_anonymous_access(lakes: Lakes, name: str) -> None:
    ran = lakes.ran[name]
    assert ran.ended.code in (0, 3), ran.ended.err
    assert any(lists()(each) for each in ran.of_source)
    assert not any("Authorization" in each.headers for each in ran.of_source)


def test_a_profile_and_the_default_one_are_found_in_the_file(lakes: Lakes) -> None:
    keys = {name: credential(lakes.ran[name].of_source[0]) for name in ("profile", "default")}
    assert keys == {
        "profile": ("AKIAOFTHEREADER", "us-east-1"),
        "default": ("AKIAOFDEFAULT", "eu-north-1"),
    }


def test_no_secret_is_printed(lakes: Lakes) -> None:
    for name, ran in lakes.ran.items():
        told = ran.ended.out + ran.ended.err
        assert told and not any(secret in told for secret in SECRETS), name


@pytest.mark.parametrize("name", ["accounts", "environment"])
def test_no_secret_is_in_the_lake(stores: Stores, lakes: Lakes, name: str) -> None:
    keys = stores.s3.keys(lakes.buckets[name])
    assert {key.split("/")[1] for key in keys} == {"_runs", "documents", "pages"}
    for key in keys:
        data = stores.s3.get(lakes.buckets[name], key)
        told = data.decode("latin-1")
        if key.endswith(".parquet"):
            told += str(pq.read_table(io.BytesIO(data)).to_pylist())
        assert not any(secret in told for secret in SECRETS), key


def wrong(stores: Stores, refuse: Refuse, *options: str) -> Ended:
    """How a command ends with these options at a store that does nothing."""
    with proxying(stores.s3.endpoint) as proxy:
        proxy.on(lambda _: True, refuse, None)
        return pagelake_forked(
            "ingest",
            f"s3://{stores.source}/in",
            str(stores.folder / "new"),
            *(f"--storage-option={option}" for option in options),
            AWS_ENDPOINT_URL=proxy.endpoint,
            AWS_ACCESS_KEY_ID="AKIAOFNOUSE",
            AWS_SECRET_ACCESS_KEY="hidden-of-no-use",
        )


@pytest.mark.parametrize(
    ("option", "told"),
    [
        ("hidden", "--storage-option wants KEY=VALUE"),
        ("=hidden", "--storage-option wants KEY=VALUE"),
        ("secrte=hidden", "unexpected keyword argument 'secrte'"),
        ("endpoint_url=hidden:1", "s3:// cannot be opened: ValueError: Invalid endpoint: …"),
        ("endpoint_url=user:hidden@there", "s3:// cannot be opened: ValueError"),
        ("region=hid den", "s3:// cannot be opened: InvalidRegionError"),
        ("config_kwargs=hidden", "s3:// cannot be opened: TypeError"),
        ("client_kwargs=hidden", "s3:// cannot be opened: ValueError"),
        ("secret=hidden", "s3:// cannot be opened: PartialCredentialsError"),
        ("profile=hidden", "s3:// cannot be opened: ProfileNotFound"),
    ],
)
def test_a_wrong_option_is_told_without_its_value(stores: Stores, option: str, told: str) -> None:
    ended = wrong(stores, Refuse(403, "AccessDenied"), option)
    lines = ended.err.strip().splitlines()
    assert (ended.code, len(lines)) == (2, 1), ended.err
    assert lines[0].startswith("pagelake: ") and told in lines[0]
    assert not (stores.folder / "new").exists()
    name = option.partition("=")[0]
    assert not any(secret in lines[0].replace(name, "") for secret in SECRETS)


@pytest.mark.parametrize(
    ("code", "message"),
    [
        ("InvalidAccessKeyId", "The AWS Access Key Id AKIAOFNOUSE does not exist."),
        ("SignatureDoesNotMatch", "AWS4-HMAC-SHA256 AKIAOFNOUSE hidden-of-no-use"),
        ("NoSuchThing", "See http://user:hidden-of-no-use@there/ for more."),
    ],
)
def test_what_the_store_says_of_secrets_is_not_repeated(
    stores: Stores, code: str, message: str
) -> None:
    options = ("key=AKIAOFNOUSE", "secret=hidden-of-no-use")
    ended = wrong(stores, Refuse(403, code, message), *options)
    [line] = ended.err.strip().splitlines()
    assert ended.code == 2 and line.startswith("pagelake: cannot l")
    assert not any(secret in line for secret in SECRETS)

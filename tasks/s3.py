"""Single requests to S3 through s3fs, and what their refusals mean in words."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any
from urllib.parse import urlsplit

from aiohttp import ClientError as BodyError
from botocore.exceptions import (
    BotoCoreError,
    ClientError,
    EndpointConnectionError,
    NoCredentialsError,
)
from fsspec.asyn import sync
from s3fs import S3FileSystem

from tasks.filesystem import without_password

_CHUNK = 2**20
_BROKEN_BODIES = 6

_WORDS = {
    "AccessDenied": "access is denied; check the credentials and the bucket's policy",
    "403": "access is denied; check the credentials and the bucket's policy",
    "NoSuchBucket": "there is no such bucket",
    "InvalidAccessKeyId": "the access key is not known to the store; check the credentials",
    "SignatureDoesNotMatch": "the secret key does not fit the access key; check the credentials",
    "ExpiredToken": "the session token has expired; renew it",
    "RequestTimeTooSkewed": "this machine's clock is more than 15 minutes off; set it",
    "InvalidObjectState": "the object is archived (Glacier); restore it first",
    "SlowDown": "the store asks for fewer requests, and went on asking; try again later",
    "503": "the store asks for fewer requests, and went on asking; try again later",
    "500": "the store fails inside, and went on failing; try again later",
}
_OTHER_REGION = {
    "PermanentRedirect",
    "AuthorizationHeaderMalformed",
    "IllegalLocationConstraintException",
    "301",
    "Redirect",
}
_ELSEWHERE = "the bucket is in another region; set AWS_DEFAULT_REGION or the right endpoint"


class Refused(Exception):
    """The store did not do it and said why; `code` is S3's, such as `NoSuchKey`."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(code, message)
        self.code = code
        self.message = message

    @property
    def missing(self) -> bool:
        """There is no such object."""
        return self.code in ("NoSuchKey", "NoSuchVersion", "404")

    @property
    def conditional(self) -> bool:
        """A condition of the request did not hold."""
        return self.code in ("PreconditionFailed", "412")

    @property
    def conflicting(self) -> bool:
        """Another conditional request to the same key is under way."""
        return self.code in ("ConditionalRequestConflict", "OperationAborted", "409")

    @property
    def denied(self) -> bool:
        """It may not be read."""
        return self.code in ("AccessDenied", "403", "InvalidObjectState", "AllAccessDisabled")


def call(fs: S3FileSystem, method: str, **arguments: Any) -> dict[str, Any]:
    """One request, tried again by botocore and s3fs as long as the failure may pass.

    Raises:
        Refused: the store said no, or could not be reached.
    """
    try:
        answer: dict[str, Any] = fs.call_s3(method, **arguments)
    except RecursionError:  # botocore asks where the bucket is, and is sent elsewhere again
        raise Refused("301", _ELSEWHERE) from None
    except (OSError, BotoCoreError, ClientError) as error:
        raise refusal(error) from None
    return answer


def get(fs: S3FileSystem, bucket: str, key: str, if_match: str | None) -> Body:
    """The object, in one state of it.

    Args:
        if_match: the ETag that the object must have, if it matters.

    Raises:
        Refused: the store said no, or the object has another ETag.
    """
    conditions = {"IfMatch": if_match} if if_match else {}
    return Body(fs, bucket, key, call(fs, "get_object", Bucket=bucket, Key=key, **conditions))


class Body:
    """An object's bytes as they come, and its ETag.

    A body that breaks off is asked for again from there, of the same state of the object.
    """

    def __init__(self, fs: S3FileSystem, bucket: str, key: str, answer: dict[str, Any]) -> None:
        self._fs, self._bucket, self._key = fs, bucket, key
        self._answer = answer
        self.etag = etag(answer)
        self._size = int(answer["ContentLength"])

    def chunks(self) -> Iterator[bytes]:
        """The bytes in chunks of at most a megabyte.

        Raises:
            Refused: the body kept breaking off, or the object has changed meanwhile.
        """
        got = broken = 0
        try:
            while got < self._size:
                pieces: list[bytes] = []
                try:
                    sync(self._fs.loop, _fill, pieces, self._answer["Body"])
                    if not pieces:
                        raise BodyError("the body ended too early")
                except (BodyError, BotoCoreError, TimeoutError, OSError) as error:
                    self._answer["Body"].close()
                    if got + _size(pieces) == self._size:  # all is here, and yet it is wrong
                        pieces.clear()
                    broken += 1
                    if broken == _BROKEN_BODIES:
                        raise Refused(
                            "BrokenBody", _one_line(f"it broke off {broken} times: {error}")
                        ) from None
                    time.sleep(min(0.1 * 2**broken, 5))
                    self._answer = call(
                        self._fs,
                        "get_object",
                        Bucket=self._bucket,
                        Key=self._key,
                        IfMatch=self.etag,
                        Range=f"bytes={got + _size(pieces)}-",
                    )
                if pieces:
                    got += _size(pieces)
                    yield b"".join(pieces)
        finally:
            self._answer["Body"].close()


async def _fill(pieces: list[bytes], body: Any) -> None:
    """Read the next megabyte of a body, or less at its end; what came before an error counts."""
    while (missing := _CHUNK - _size(pieces)) and (piece := await body.read(missing)):
        pieces.append(piece)


def _size(pieces: list[bytes]) -> int:
    return sum(map(len, pieces))


def listed(
    fs: S3FileSystem, bucket: str, prefix: str, delimiter: str = ""
) -> Iterator[dict[str, Any]]:
    """The answers to a listing, a thousand objects each, as they come.

    Raises:
        Refused: it cannot be listed, or no further.
    """
    more: dict[str, str] = {"Delimiter": delimiter} if delimiter else {}
    while True:
        answer = call(fs, "list_objects_v2", Bucket=bucket, Prefix=prefix, **more)
        yield answer
        if not answer.get("IsTruncated"):
            return
        more["ContinuationToken"] = answer["NextContinuationToken"]


def refusal(error: BaseException) -> Refused:
    """Why a request failed: one line without secrets."""
    cause = error if isinstance(error, ClientError) else error.__cause__
    if isinstance(cause, ClientError):
        told = cause.response.get("Error", {})
        code = str(told.get("Code", "")) or type(error).__name__
        if code in _OTHER_REGION:
            words = _ELSEWHERE
        else:
            words = _WORDS.get(code) or without_password(f"{code}: {told.get('Message', '')}")
        return Refused(code, _one_line(words))
    if isinstance(error, FileExistsError):
        return Refused("PreconditionFailed", "there is one already")
    if isinstance(error, NoCredentialsError):
        words = "there are no credentials; set AWS_PROFILE or AWS_ACCESS_KEY_ID and its secret"
        return Refused("NoCredentials", words)
    if isinstance(error, EndpointConnectionError):
        asked = urlsplit(without_password(error.kwargs["endpoint_url"]))
        return Refused("Unreachable", f"{asked.scheme}://{asked.netloc} cannot be reached")
    return Refused(type(error).__name__, _one_line(without_password(str(error))))


def split(address: str) -> tuple[str, str]:
    """Bucket and key of an address; the key is taken as it stands, whatever is in it."""
    bucket, _, key = address.partition("://")[2].partition("/")
    return bucket, key


def etag(answer: dict[str, Any]) -> str:
    """The ETag of an answer or a listed object, without its quotes."""
    return str(answer["ETag"]).strip('"')


def _one_line(text: str) -> str:
    return " ".join(text.split())[:300]

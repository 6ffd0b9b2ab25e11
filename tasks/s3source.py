"""Documents in S3 buckets: listed a thousand at a time, read in the state that was listed."""

from __future__ import annotations

from collections.abc import Iterator

from s3fs import S3FileSystem

from schemas.errors import DocumentError, ErrorCode, ListingBroke, SourceError
from schemas.records import PlannedDocument, SourceObject
from tasks.s3 import Refused, call, etag, get, listed, split
from tasks.source import GONE, Found, hidden


class S3Source:
    """See `tasks.source.Source`."""

    def __init__(self, fs: S3FileSystem) -> None:
        self._fs = fs

    def walk(self, address: str, lake: str) -> Iterator[Found]:
        """See `Source.walk`; a listing never sits in memory."""
        bucket, key = split(address)
        if not bucket:
            raise SourceError(f"{address} names no bucket; give s3://BUCKET/PREFIX")
        unsaid: Refused | None = None
        if key and not key.endswith("/"):
            try:
                only = self._head(address)
            except Refused as refused:
                if not refused.code.isdigit():
                    raise SourceError(f"cannot look at {address}: {refused.message}") from None
                # A HEAD's refusal has no body to say why; the listing's has.
                unsaid = None if refused.missing else refused
                key += "/"
            else:
                yield key.rpartition("/")[2], only
                return
        given = 0
        own = "".join(f"{part}/" for part in split(lake)) if lake.startswith("s3") else None
        try:
            for answer in listed(self._fs, bucket, key):
                for told in answer.get("Contents", ()):
                    name = told["Key"][len(key) :]
                    if not name or name.endswith("/") or hidden(name):  # a folder's own mark
                        continue
                    if own and f"{bucket}/{told['Key']}".startswith(own):
                        continue
                    uri = f"s3://{bucket}/{told['Key']}"
                    given += 1
                    yield name, SourceObject(uri, etag(told), told["Size"])
        except Refused as refused:
            if given:
                raise ListingBroke(
                    f"the listing of {address} broke off after {given:,} objects: "
                    f"{refused.message}; run the same command again to go on"
                ) from None
            raise SourceError(f"cannot list {address}: {refused.message}") from None
        if unsaid and not given:
            raise SourceError(f"cannot look at {address}: {unsaid.message}")

    def look(self, address: str) -> SourceObject:
        """See `Source.look`."""
        try:
            return self._head(address)
        except Refused as refused:
            if refused.missing or refused.denied:  # a key may be denied where a listing is not
                return SourceObject(address, GONE, 0)
            raise SourceError(f"cannot look at {address}: {refused.message}") from None

    def _head(self, address: str) -> SourceObject:
        bucket, key = split(address)
        told = call(self._fs, "head_object", Bucket=bucket, Key=key)
        return SourceObject(f"s3://{bucket}/{key}", etag(told), told["ContentLength"])

    def fetch(self, planned: PlannedDocument) -> Iterator[bytes]:
        """See `Source.fetch`."""
        bucket, key = split(planned.uri)
        expected = None if planned.version == GONE else planned.version
        try:
            yield from get(self._fs, bucket, key, expected).chunks()
        except Refused as refused:
            raise _document_error(refused) from None


def _document_error(refused: Refused) -> DocumentError:
    if refused.missing:
        return DocumentError(ErrorCode.SOURCE_MISSING, "the object vanished after it was listed")
    if refused.conditional:
        return DocumentError(
            ErrorCode.SOURCE_CHANGED,
            "the object changed after it was listed; the next run reads it as it is now",
        )
    code = ErrorCode.SOURCE_DENIED if refused.denied else ErrorCode.SOURCE_MISSING
    return DocumentError(code, f"cannot be read: {refused.message}")

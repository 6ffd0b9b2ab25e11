"""Addresses, and the fsspec filesystems behind them: s3://, gs://, az:// and whatever fsspec knows.

Credentials, region and endpoint come from the environment as every tool of the store's maker reads
them; `--storage-option KEY=VALUE` overrides them, for one side with `source.` or `dest.` before the
key. Neither is ever written anywhere.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import fsspec

from schemas.errors import UsageError

Side = Literal["source", "dest"]

_PROTOCOL = re.compile(r"([a-z][a-z0-9+.-]*)://", re.I)
_EXTRAS = {"gs": "gs", "gcs": "gs", "az": "az", "abfs": "az", "abfss": "az"}
_ON = {"1", "true", "yes", "on", "requester"}
_TIMES = {"connect_timeout": 10, "read_timeout": 60, "max_pool_connections": 64}
_TRIES = {"mode": "standard", "total_max_attempts": 6}
_S3 = ("s3", "s3a")


def protocol_of(address: str) -> str | None:
    """`s3`, `gs` and so on; None for a path of this machine."""
    found = _PROTOCOL.match(address)
    protocol = found[1].lower() if found else None
    return None if protocol in (None, "file", "local") else protocol


def local_path(address: str) -> str:
    """The path that a local address stands for."""
    return re.sub(r"^(file|local)://", "", address)


def joined(address: str, below: str) -> str:
    """The address of something below another."""
    return f"{address.rstrip('/')}/{below}" if below else address


def options_for(given: Sequence[str], side: Side) -> dict[str, Any]:
    """The `--storage-option`s that count for one side; switches and objects are JSON.

    Raises:
        UsageError: one is not KEY=VALUE; it is not repeated, for it may be a secret.
    """
    found: dict[str, Any] = {}
    for option in sorted(given, key=lambda option: option.startswith(("source.", "dest."))):
        name, equals, value = option.partition("=")
        if not (name and equals):
            raise UsageError("--storage-option wants KEY=VALUE, for example region=eu-west-1")
        at, dot, rest = name.partition(".")
        if dot and at in ("source", "dest"):
            if at != side:
                continue
            name = rest
        found[name] = _value(value)
    return found


def filesystem(protocol: str, options: Mapping[str, Any]) -> fsspec.AbstractFileSystem:
    """The filesystem of a protocol.

    Raises:
        UsageError: fsspec does not know it, its package is missing, or it refuses the options.
    """
    try:
        told = _s3_options(options) if protocol in _S3 else options
        found = fsspec.filesystem(protocol, use_listings_cache=False, **told)
        if protocol in _S3:
            found.connect()  # or a wrong option would show with the first request only
        return found
    except ImportError:
        extra = _EXTRAS.get(protocol)
        way = f"pip install 'pagelake[{extra}]'" if extra else "install fsspec's package for it"
        raise UsageError(f"{protocol}:// needs a package that is not installed; {way}") from None
    except Exception as error:  # each maker's package has its own
        raise UsageError(
            f"{protocol}:// cannot be opened: {_told(error, options)}; check the address, "
            "--storage-option and the environment"
        ) from None


def without_password(text: str) -> str:
    """Text in which no address carries a user and password any more."""
    return re.sub(r"://[^/@\s]+@", "://", text)


def _told(error: Exception, options: Mapping[str, Any]) -> str:
    """What an error says, but for the values of options: one may be a secret."""
    text = " ".join(str(error).split())
    for value in filter(None, options.values()):
        text = text.replace(str(value), "…")
    return f"{type(error).__name__}: {without_password(text)[:200]}"


def _s3_options(options: Mapping[str, Any]) -> dict[str, Any]:
    """The options as s3fs takes them, completed from the environment variables of AWS's tools."""
    told = dict(options)
    client = dict(told.pop("client_kwargs", {}))
    region = told.pop("region", None) or os.environ.get("AWS_REGION")
    if (region and "AWS_DEFAULT_REGION" not in os.environ) or "region" in options:
        client.setdefault("region_name", region)
    if (endpoint := told.pop("endpoint", None)) is not None:
        told.setdefault("endpoint_url", endpoint)
    if "anon" not in told and (_is_on("AWS_NO_SIGN_REQUEST") or _is_on("AWS_SKIP_SIGNATURE")):
        told["anon"] = True
    if "requester_pays" not in told and _is_on("AWS_REQUEST_PAYER"):
        told["requester_pays"] = True
    sse = told.pop("sse", None) or os.environ.get("AWS_SERVER_SIDE_ENCRYPTION")
    key = told.pop("kms_key_id", None) or os.environ.get("AWS_SSE_KMS_KEY_ID")
    extra = dict(told.pop("s3_additional_kwargs", {}))
    if sse or key:
        extra.setdefault("ServerSideEncryption", sse or "aws:kms")
    if key:
        extra.setdefault("SSEKMSKeyId", key)
    config = {**_TIMES, "retries": _TRIES, **told.pop("config_kwargs", {})}
    return {
        **told,
        "client_kwargs": client,
        "config_kwargs": config,
        "s3_additional_kwargs": extra,
        "default_block_size": 2**20,
    }


def _is_on(name: str) -> bool:
    return os.environ.get(name, "").lower() in _ON


def _value(text: str) -> Any:
    """Switches, lists and objects as JSON has them; all else, keys of digits too, is text."""
    if text in ("true", "false") or text[:1] in ("{", "["):
        try:
            return json.loads(text)
        except ValueError:
            return text
    return text

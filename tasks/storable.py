"""Text as Parquet and every reader of it can hold it."""

from __future__ import annotations


def clean(text: str) -> str:
    """Text without lone surrogates (a question mark stands for each) and without NULs."""
    return text.replace("\0", "").encode("utf-8", "replace").decode("utf-8")

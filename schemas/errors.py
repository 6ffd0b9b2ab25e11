"""Everything that can go wrong, in one tree.

    PagelakeError
    ├── UsageError            the command cannot mean anything: exit 2
    │   ├── SourceError       the source is missing, empty or unreadable
    │   ├── RecipeMismatch    the lake was read with another recipe
    │   └── WrongModel        an engine serves another model than the one asked for
    ├── RunError              the run itself failed: exit 1
    │   ├── LakeError         the destination cannot be read or written
    │   ├── LakeLocked        another run is writing to this lake
    │   ├── LockLost          another run took this lake over while we were writing
    │   ├── ListingBroke      the source was listed to somewhere, and no further
    │   ├── ClaimHeld         another worker is reading this shard
    │   ├── ClaimLost         another worker took this shard over
    │   ├── EngineLost        no engine answers, or the only one died
    │   └── Interrupted       Ctrl-C or SIGTERM: exit 130 or 143
    └── DocumentError         one document or page failed: a row with a code, never the end of a run

Each message says what happened, to what, and what to do about it.
"""

from __future__ import annotations

from enum import StrEnum

__all__ = [
    "ClaimHeld",
    "ClaimLost",
    "DocumentError",
    "EngineLost",
    "ErrorCode",
    "Interrupted",
    "LakeError",
    "LakeLocked",
    "ListingBroke",
    "LockLost",
    "PagelakeError",
    "RecipeMismatch",
    "RunError",
    "SourceError",
    "UsageError",
    "WrongModel",
]


class ErrorCode(StrEnum):
    """Why a document or a page failed, as it stands in `error_code`."""

    SOURCE_MISSING = "source_missing"
    SOURCE_DENIED = "source_denied"
    SOURCE_CHANGED = "source_changed"
    UNSUPPORTED_TYPE = "unsupported_type"
    ENCRYPTED = "encrypted"
    CORRUPT = "corrupt"
    NO_PAGES = "no_pages"
    TOO_LARGE = "too_large"
    TOO_MANY_PAGES = "too_many_pages"
    RENDER_TIMEOUT = "render_timeout"
    RENDER_CRASH = "render_crash"
    RENDER_MEMORY = "render_memory"
    ENGINE_ERROR = "engine_error"
    ENGINE_TIMEOUT = "engine_timeout"
    LOOP = "loop"
    TRUNCATED = "truncated"
    EMPTY_OUTPUT = "empty_output"
    INTERNAL = "internal"

    @property
    def transient(self) -> bool:
        """Whether the next run should try again: the cause may be gone by then."""
        return self in TRANSIENT


TRANSIENT = frozenset(
    {
        ErrorCode.SOURCE_MISSING,
        ErrorCode.SOURCE_DENIED,
        ErrorCode.ENGINE_ERROR,
        ErrorCode.ENGINE_TIMEOUT,
        ErrorCode.RENDER_MEMORY,
        ErrorCode.INTERNAL,
    }
)


class PagelakeError(Exception):
    """Base of all errors that pagelake raises; `exit_code` is what the command ends with."""

    exit_code = 1


class UsageError(PagelakeError):
    """What was asked for cannot be done, whatever the documents say."""

    exit_code = 2


class SourceError(UsageError):
    """The source does not exist, holds nothing, or cannot be listed."""


class RecipeMismatch(UsageError):
    """The lake's newest documents were read with another recipe than this run would use."""


class WrongModel(UsageError):
    """An engine does not serve the model whose answers the lake is to hold."""


class RunError(PagelakeError):
    """The run failed for a reason that is not a document's."""


class LakeError(RunError):
    """The destination cannot be read or written, or is not a lake this version understands."""


class LakeLocked(RunError):
    """Another writer holds the lake."""


class LockLost(RunError):
    """Another writer has taken the lake over; nothing more may be committed by this one."""


class ListingBroke(RunError):
    """The source could be listed to somewhere and no further; what was planned stands."""


class ClaimHeld(RunError):
    """Another worker is reading the shard."""


class ClaimLost(RunError):
    """Another worker has taken the shard over."""


class EngineLost(RunError):
    """There is no engine to ask any more: pages that were not read have no rows and stay to do."""


class Interrupted(RunError):
    """The run was asked to stop; what was finished is committed."""

    def __init__(self, message: str, signal_number: int) -> None:
        super().__init__(message)
        self.exit_code = 128 + signal_number


class DocumentError(PagelakeError):
    """One document or page cannot be read.

    `args` are `(code, message)`, so that it survives being pickled between processes.
    """

    def __init__(self, code: ErrorCode, message: str) -> None:
        super().__init__(code, message)
        self.code = code
        self.message = message

    def __str__(self) -> str:
        return f"{self.code}: {self.message}"

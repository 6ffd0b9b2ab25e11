"""What a run has done so far, for people: a bar on a terminal, plain lines in a log."""

from __future__ import annotations

import logging
import sys
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Protocol

from schemas.records import DocumentFacts, PageResult, PlannedDocument

if TYPE_CHECKING:
    from rich.progress import Progress

log = logging.getLogger("pagelake")

_SECONDS_BETWEEN_LINES = 10.0
_MOST_FAILURES_KEPT = 1_000


class Tally:
    """Counts of one run: `pages_read` as they finish, everything else as it is committed."""

    def __init__(self) -> None:
        self.began = time.monotonic()
        self.documents = Counter[str]()
        self.pages = Counter[str]()
        self.pages_read = 0
        self.copied = 0
        self.deleted = 0
        self.prompt_tokens = 0
        self.output_tokens = 0
        self.failures: list[tuple[str, int | None, str, str]] = []

    def document(self, planned: PlannedDocument, facts: DocumentFacts, failed_pages: int) -> None:
        """A document is complete."""
        whole = facts.error_code is not None or 0 < failed_pages == facts.page_count
        self.documents["failed" if whole else "partial" if failed_pages else "ok"] += 1
        if facts.error_code is not None:
            self._fails(planned.uri, None, facts.error_code, facts.error_message or "")

    def page(self, page: PageResult) -> None:
        """A page is committed."""
        self.pages[page.status] += 1
        self.copied += "copied" in page.flags
        self.prompt_tokens += page.prompt_tokens or 0
        self.output_tokens += page.output_tokens or 0
        if page.error_code is not None:
            message = page.error_message or ""
            self._fails(page.source_uri, page.page_number, page.error_code, message)

    @property
    def any_failed(self) -> bool:
        """Whether any document or page of this run failed."""
        return bool(self.documents["failed"] or self.documents["partial"] or self.pages["failed"])

    @property
    def seconds(self) -> float:
        """Since the run began."""
        return time.monotonic() - self.began

    def summary(self, run_id: str) -> dict[str, Any]:
        """What `--json` prints and what the run's summary keeps."""
        pages = sum(self.pages.values())
        return {
            "run_id": run_id,
            "documents": sum(self.documents.values()),
            "documents_failed": self.documents["failed"] + self.documents["partial"],
            "pages": {
                "total": pages,
                **{status: self.pages[status] for status in ("ok", "empty", "failed")},
            },
            "pages_copied": self.copied,
            "documents_deleted": self.deleted,
            "seconds": round(self.seconds, 3),
            "pages_per_second": round(pages / self.seconds, 3) if pages else 0.0,
            "prompt_tokens": self.prompt_tokens,
            "output_tokens": self.output_tokens,
        }

    def _fails(self, uri: str, page: int | None, code: str, message: str) -> None:
        if len(self.failures) < _MOST_FAILURES_KEPT:
            self.failures.append((uri, page, str(code), message))


class Watcher(Protocol):
    """Something that shows how a run goes on."""

    def show(self, tally: Tally, pages_known: int) -> None:
        """A page has been finished; of `pages_known` pages known so far."""


class Lines:
    """A line every ten seconds through logging."""

    def __init__(self) -> None:
        self._last = time.monotonic()

    def show(self, tally: Tally, pages_known: int) -> None:
        """See `Watcher`."""
        if time.monotonic() - self._last >= _SECONDS_BETWEEN_LINES:
            self._last = time.monotonic()
            log.info("%s", status_line(tally, pages_known))


class Bar:
    """A bar of rich's, which must have been started."""

    def __init__(self, progress: Progress) -> None:
        self._progress = progress
        self._task = progress.add_task("listing", total=None)

    def show(self, tally: Tally, pages_known: int) -> None:
        """See `Watcher`."""
        self._progress.update(
            self._task,
            completed=tally.pages_read,
            total=pages_known,
            description=status_line(tally, pages_known),
        )


@contextmanager
def watching() -> Iterator[Watcher]:
    """A bar if standard error is a terminal, else lines."""
    if not sys.stderr.isatty():
        yield Lines()
        return
    from rich.console import Console
    from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

    with Progress(
        SpinnerColumn(),
        BarColumn(bar_width=30),
        TextColumn("{task.description}"),
        TimeElapsedColumn(),
        console=Console(stderr=True),
        transient=True,
    ) as progress:
        yield Bar(progress)


def status_line(tally: Tally, pages_known: int) -> str:
    """One line that says how far a run is."""
    pages = tally.pages_read
    failed = f", {tally.pages['failed']} failed" if tally.pages["failed"] else ""
    return (
        f"{pages} of {pages_known} pages{failed}, {sum(tally.documents.values())} documents, "
        f"{pages / max(tally.seconds, 1e-3):.1f} pages/s"
    )

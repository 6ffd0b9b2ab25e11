"""What reading documents would cost, by what the lake's own documents have cost."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from tasks.known import KnownDocuments
from tasks.runs import closed_runs, read_summary
from tasks.store import Store

_RUNS_LOOKED_AT = 10


@dataclass(frozen=True, slots=True)
class Cost:
    """An estimate. Seconds and tokens are None if no run of this lake has shown any."""

    pages: int
    seconds: float | None
    tokens: int | None

    def told(self) -> dict[str, Any]:
        """As JSON has it."""
        return asdict(self)


def cost_of(store: Store, known: KnownDocuments, documents: int, size_bytes: int) -> Cost | None:
    """What so many documents of so many bytes together would cost; None in an empty lake.

    Pages are the mean of two estimates, by the lake's pages a document and by its pages a byte;
    seconds and tokens are those of the last runs, by page.
    """
    read = known.read_so_far()
    if read is None:
        return None
    by_count = documents * read.pages / read.documents
    by_size = size_bytes * read.pages / read.size_bytes if read.size_bytes else by_count
    pages = round((by_count + by_size) / 2)
    runs = [read_summary(store, run_id) for run_id in closed_runs(store)[-_RUNS_LOOKED_AT:]]
    seen = sum(run["pages"]["total"] - run["pages_copied"] for run in runs)
    if not seen:
        return Cost(pages, None, None)
    seconds = sum(run["seconds"] for run in runs if run["pages"]["total"])
    tokens = sum(run["prompt_tokens"] + run["output_tokens"] for run in runs)
    return Cost(pages, round(pages * seconds / seen, 1), round(pages * tokens / seen) or None)

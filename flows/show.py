"""What the commands print for people."""

from __future__ import annotations

import csv
import json
from collections.abc import Sequence
from typing import Any, TextIO

from flows.ingest import Outcome

_MOST_FAILURES = 20
_MOST_WIDTH = 100


def show_outcome(outcome: Outcome, dest: str, to: TextIO) -> None:
    """A run's summary, and what failed and why."""
    told = outcome.summary
    if told["documents_deleted"]:
        print(f"{told['documents_deleted']} documents are gone: noted in deleted_at", file=to)
    if not told["pages"]["total"] and not told["documents"]:
        print(f"{dest} is up to date: nothing to read ({told['seconds']:.1f} s)", file=to)
        return
    pages = told["pages"]
    copied = f", {told['pages_copied']} copied" if told["pages_copied"] else ""
    print(
        f"{told['documents']} documents, {pages['total']} pages in {told['seconds']:.1f} s "
        f"({told['pages_per_second']:.1f} pages/s): {pages['ok']} ok, {pages['empty']} empty, "
        f"{pages['failed']} failed{copied}",
        file=to,
    )
    if not told["finished"]:
        print("stopped at --max-pages; the same command goes on from there", file=to)
    if outcome.failures:
        shown = outcome.failures[:_MOST_FAILURES]
        rows = [(uri, page or "", code, message) for uri, page, code, message in shown]
        show_rows(("document", "page", "error_code", "error_message"), rows, "table", to)
        if len(outcome.failures) > _MOST_FAILURES:
            print(
                f"… and more: pagelake sql {dest} \"select * from pages where status = 'failed'\"",
                file=to,
            )


def show_plan(planned: dict[str, Any], to: TextIO) -> None:
    """What a run would do."""
    print(
        f"{planned['listed']} documents listed: {planned['new']} new or changed, "
        f"{planned['again']} to try again, {planned['bytes']:,} bytes to read",
        file=to,
    )
    if (cost := planned["cost"]) is not None:
        seconds = "" if cost["seconds"] is None else f", {_duration(cost['seconds'])}"
        tokens = "" if cost["tokens"] is None else f", {cost['tokens']:,} tokens"
        print(
            f"about {cost['pages']:,} pages{seconds}{tokens}, as this lake went so far",
            file=to,
        )
    recipe = planned["recipe"]
    print(f"recipe {recipe['recipe_id']}: " + _pairs(recipe, "recipe_id"), file=to)
    for run_id in planned["unfinished_runs"]:
        print(f"unfinished run {run_id} would be finished first", file=to)


def show_status(found: dict[str, Any], to: TextIO) -> None:
    """What a lake holds."""
    for name in ("documents", "pages", "origins", "failures", "recipes"):
        if found[name]:
            print(f"{name:10} " + _pairs(found[name]), file=to)
    for run_id in found["unfinished_runs"]:
        print(f"unfinished run {run_id}: the next ingest finishes it", file=to)
    if found["writer"]:
        print("writing    " + _pairs(found["writer"]), file=to)


def show_compacted(told: dict[str, Any], dest: str, to: TextIO) -> None:
    """What a compaction has done."""
    if told["shards"]:
        print(
            f"{told['parts_before']} parts of {told['shards']} shards became {told['parts_after']}",
            file=to,
        )
    if told["removed"]:
        print(f"{told['removed']} files removed that had been empty for a week", file=to)
    if not told["shards"] and not told["removed"]:
        print(f"{dest} has nothing to merge", file=to)


def show_forgotten(told: dict[str, Any], to: TextIO) -> None:
    """What has gone with a document."""
    names = ("documents", "pages", "blocks")
    rows = ", ".join(f"{told[name]} of {name}" for name in names)
    print(f"{told['uri']} is forgotten: rows {rows}; {told['figures']} figures", file=to)


def show_reparsed(told: dict[str, Any], dest: str, to: TextIO) -> None:
    """What parsing anew has done."""
    version = told["parser_version"]
    if not told["parsed"] + told["kept"] + told["failed"]:
        print(f"{dest} is parsed by parser {version}: nothing to do", file=to)
        return
    print(f"{told['parsed']} pages parsed anew by parser {version}", file=to)
    if told["kept"]:
        print(f"{told['kept']} pages kept: to parse them takes the page's image", file=to)
    if told["failed"]:
        print(f"{told['failed']} pages kept: the parser did not survive them", file=to)


def show_rows(columns: Sequence[str], rows: Sequence[Sequence[Any]], form: str, to: TextIO) -> None:
    """Rows as an aligned table, as CSV, or as one JSON object a line."""
    if form == "csv":
        writer = csv.writer(to)
        writer.writerow(columns)
        writer.writerows(rows)
    elif form == "json":
        for row in rows:
            print(json.dumps(dict(zip(columns, row, strict=True)), default=str), file=to)
    else:
        table = [list(columns), *([_cell(value) for value in row] for row in rows)]
        widths = [max(len(row[i]) for row in table) for i in range(len(columns))]
        for row in table:
            cells = (cell.ljust(width) for cell, width in zip(row, widths, strict=True))
            print("  ".join(cells).rstrip(), file=to)


def _duration(seconds: float) -> str:
    for length, name in ((86_400, "days"), (3_600, "hours"), (60, "minutes")):
        if seconds >= 2 * length:
            return f"{seconds / length:.1f} {name}"
    return f"{seconds:.0f} seconds"


def _cell(value: Any) -> str:
    text = "" if value is None else str(value)
    text = "".join(letter if letter.isprintable() else " " for letter in text)
    return text if len(text) <= _MOST_WIDTH else text[: _MOST_WIDTH - 1] + "…"


def _pairs(values: dict[str, Any], *but: str) -> str:
    return ", ".join(f"{name} {value}" for name, value in values.items() if name not in but)


def show_bench(told: dict[str, Any], to: TextIO) -> None:
    """How fast a benchmark went."""
    full = "" if told["engine_full"] is None else f"{told['engine_full']:.1%}"
    print(
        f"{told['pages']} pages by {told['engine']} ({told['model'] or 'CPU'}) in "
        f"{told['seconds']:.1f} s, {told['pages_failed']} failed; {told['cores']} cores",
        file=to,
    )
    names = ("requests_per_second", "total_tokens_per_second", "output_tokens_per_second")
    row = [*(told[name] for name in names), told["pages_per_second"], full]
    heads = ("requests/s (QPS)", "total tokens/s", "output tokens/s", "pages/s", "engine full")
    show_rows((*heads, "CPU-s a page"), [(*row, told["cpu_seconds_a_page"])], "table", to)

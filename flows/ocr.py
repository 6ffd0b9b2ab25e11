"""The Prefect flow `ocr`: `flows.ingest` with a flow run around it.

Imported only where a Prefect server is used. The flow's parameters are the fields of
`IngestSettings`, flat and with the same names, descriptions and limits as on the command line.
"""

from __future__ import annotations

import inspect
from typing import Any

from prefect import flow
from prefect.artifacts import create_markdown_artifact, create_table_artifact
from prefect.logging import get_run_logger

from flows.ingest import Outcome, run_ingest
from schemas.settings import IngestSettings
from tasks.progress import Lines

_FIELDS = IngestSettings.model_fields
_MOST_FAILURES = 200


def ocr(**parameters: Any) -> Outcome:
    """Read the documents of a source into a lake; what the lake knows already is not read again."""
    settings = IngestSettings(**parameters)
    log = get_run_logger()
    log.info("reading %s into %s", settings.source, settings.dest)
    outcome = run_ingest(settings, Lines())
    pages = outcome.summary["pages"]
    log.info(
        "%d documents, %d pages, %d failed",
        outcome.summary["documents"],
        pages["total"],
        pages["failed"],
    )
    create_markdown_artifact(_markdown(outcome, settings), description="What this run read")
    if outcome.failures:
        names = ("document", "page", "error_code", "error_message")
        rows = [dict(zip(names, row, strict=True)) for row in outcome.failures[:_MOST_FAILURES]]
        create_table_artifact(rows, description="What failed and why")
    return outcome


def _markdown(outcome: Outcome, settings: IngestSettings) -> str:
    told = outcome.summary
    rows = {
        "source": settings.source,
        "lake": settings.dest,
        "documents": told["documents"],
        "with failures": told["documents_failed"],
        **{f"pages {name}": count for name, count in told["pages"].items()},
        "seconds": told["seconds"],
        "pages a second": told["pages_per_second"],
    }
    return "\n".join(["| | |", "| --- | --- |", *(f"| {k} | {v} |" for k, v in rows.items())])


def _signature() -> inspect.Signature:
    """The settings' fields as the flow's parameters, which Prefect makes its form from."""
    return inspect.Signature(
        [
            inspect.Parameter(
                name,
                inspect.Parameter.KEYWORD_ONLY,
                annotation=field.annotation,
                default=inspect.Parameter.empty
                if field.is_required()
                else field.get_default(call_default_factory=True),
            )
            for name, field in _FIELDS.items()
        ]
    )


def _arguments() -> str:
    """The fields' descriptions as a docstring has them: where Prefect's form takes them from."""
    lines = (f"    {name}: {field.description}" for name, field in _FIELDS.items())
    return "\n\nArgs:\n" + "\n".join(lines)


ocr.__doc__ = (ocr.__doc__ or "") + _arguments()
ocr.__signature__ = _signature()  # type: ignore[attr-defined]
ocr = flow(name="ocr", flow_run_name="{source} to {dest}", persist_result=False)(ocr)

"""The command `pagelake`. Options are made from the fields of `schemas.settings`."""

from __future__ import annotations

import json
import logging
import os
import sys
import typing
from collections.abc import Callable
from typing import Any, Literal, TypeVar

import click
from pydantic import BaseModel, ValidationError
from pydantic_core import PydanticUndefined

from schemas.errors import PagelakeError, UsageError
from schemas.settings import (
    CompactSettings,
    ForgetSettings,
    IngestSettings,
    PlanSettings,
    ReparseSettings,
    ServeSettings,
)


class _Command(click.Group):
    """Turns pagelake's errors into one line and an exit code."""

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except PagelakeError as error:
            click.echo(f"pagelake: {error}", err=True)
            ctx.exit(error.exit_code)


M = TypeVar("M", bound=BaseModel)

_storage_option = click.option(
    "--storage-option",
    multiple=True,
    help=PlanSettings.model_fields["storage_option"].description,
)


@click.group(cls=_Command, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="pagelake")
def main() -> None:
    """Documents in, a lake of Parquet out: every page's text, layout, tables and figures."""
    logging.basicConfig(stream=sys.stderr, format="%(asctime)s %(message)s", datefmt="%H:%M:%S")
    logging.getLogger("pagelake").setLevel(logging.INFO)  # the clouds' packages tell every request


def _options(
    model: type[BaseModel], without: str = ""
) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Decorates a command with an option a field; SOURCE, DEST and URI are arguments."""

    def decorate(command: Callable[..., Any]) -> Callable[..., Any]:
        for name, field in reversed(model.model_fields.items()):
            if name == without:
                continue
            if name in ("source", "dest", "uri"):
                command = click.argument(name)(command)
                continue
            default = None if field.default is PydanticUndefined else field.default
            kind, many = _click_type(field.annotation)
            extra: dict[str, Any] = {"is_flag": True} if kind is bool else {"type": kind}
            command = click.option(
                f"--{name.replace('_', '-')}",
                name,
                default=None,
                multiple=many,
                help=(field.description or "") + _default_note(default),
                **extra,
            )(command)
        return command

    return decorate


def _click_type(annotation: Any) -> tuple[Any, bool]:
    """What click is to make of a field's type, and whether the option may be given again."""
    if typing.get_origin(annotation) is Literal:
        return click.Choice(typing.get_args(annotation)), False
    if typing.get_origin(annotation) is tuple:
        return str, True
    members = [kind for kind in typing.get_args(annotation) if kind is not type(None)]
    return (members[0] if members else annotation), False


def _default_note(default: Any) -> str:
    return f" [default: {default}]" if default not in (None, (), False) else ""


def _settings(model: type[M], given: dict[str, Any]) -> M:
    try:
        return model(**{name: value for name, value in given.items() if value not in (None, ())})
    except ValidationError as error:
        first = error.errors()[0]
        option = "--" + str(first["loc"][0]).replace("_", "-")
        raise UsageError(f"{option}: {first['msg']} (was {first['input']!r})") from None


@main.command()
@_options(IngestSettings)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object last.")
def ingest(as_json: bool, **given: Any) -> None:
    """Read the documents of SOURCE into the lake DEST.

    What the lake knows already is not read again. Exit code 0: every page was read; 3: some
    documents or pages failed, their rows say why; 2: the command makes no sense; 1: the run failed.
    """
    settings = _settings(IngestSettings, given)
    if os.environ.get("PREFECT_API_URL"):
        from flows.ocr import ocr

        outcome = ocr(**settings.model_dump(mode="json", exclude_unset=True))
    else:
        from flows.ingest import run_ingest
        from tasks.progress import watching

        with watching() as watcher:
            outcome = run_ingest(settings, watcher)
    from flows.show import show_outcome

    show_outcome(outcome, settings.dest, sys.stderr if as_json else sys.stdout)
    if as_json:
        click.echo(json.dumps(outcome.summary))
    click.get_current_context().exit(3 if outcome.any_failed else 0)


@main.command()
@_options(PlanSettings)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def plan(as_json: bool, **given: Any) -> None:
    """Show what `ingest SOURCE DEST` would read, and do nothing."""
    settings = _settings(PlanSettings, given)
    from flows.plan import run_plan
    from flows.show import show_plan

    planned = run_plan(settings)
    click.echo(json.dumps(planned)) if as_json else show_plan(planned, sys.stdout)


@main.command()
@_options(IngestSettings, without="dest")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def bench(as_json: bool, **given: Any) -> None:
    """Read SOURCE into a temporary lake and print how fast it went.

    Requests, tokens and pages a second over the time in which the engine had something to do, and
    the share of that time in which it had all it could take.
    """
    meant = _settings(IngestSettings, {**given, "dest": "a temporary folder"})
    from flows.bench import run_bench
    from flows.show import show_bench
    from tasks.progress import watching

    with watching() as watcher:
        told = run_bench(meant.model_dump(exclude={"dest"}, exclude_unset=True), watcher)
    click.echo(json.dumps(told)) if as_json else show_bench(told, sys.stdout)


@main.command()
@_options(ServeSettings)
def serve(**given: Any) -> None:
    """Serve a model with vLLM, for `ingest --engine-url` here or elsewhere.

    Runs `vllm serve` with the flags that the model needs, its n-gram processor among them, and
    prints the command.
    """
    from flows.serve import run_serve

    run_serve(_settings(ServeSettings, given))


@main.command()
@_options(CompactSettings)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def compact(as_json: bool, **given: Any) -> None:
    """Merge small files of the lake DEST into few large ones, sorted by address.

    Merged files are left behind empty for a week, in the way of whoever was writing them.
    """
    settings = _settings(CompactSettings, given)
    from flows.show import show_compacted
    from flows.upkeep import run_compact

    told = run_compact(settings)
    click.echo(json.dumps(told)) if as_json else show_compacted(told, settings.dest, sys.stdout)


@main.command()
@_options(ForgetSettings)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def forget(as_json: bool, **given: Any) -> None:
    """Take the document URI out of every file of the lake DEST, in all its versions.

    An archive is forgotten with its members. Remove the document from the source first: the next
    ingest reads what it finds there.
    """
    settings = _settings(ForgetSettings, given)
    from flows.show import show_forgotten
    from flows.upkeep import run_forget

    told = run_forget(settings)
    click.echo(json.dumps(told)) if as_json else show_forgotten(told, sys.stdout)


@main.command()
@_options(ReparseSettings)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def reparse(as_json: bool, **given: Any) -> None:
    """Parse anew, by today's parser, what engines have said of the pages in the lake DEST.

    No engine is asked and no source is read: Markdown, text and blocks come out of raw_output.
    """
    settings = _settings(ReparseSettings, given)
    from flows.show import show_reparsed
    from flows.upkeep import run_reparse

    told = run_reparse(settings)
    click.echo(json.dumps(told)) if as_json else show_reparsed(told, settings.dest, sys.stdout)


@main.command()
@click.argument("dest")
@_storage_option
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def status(dest: str, storage_option: tuple[str, ...], as_json: bool) -> None:
    """Show what the lake DEST holds: documents, pages, failures, runs, and who is writing."""
    from flows.show import show_status
    from tasks.query import lake_status

    found = lake_status(dest, storage_option)
    click.echo(json.dumps(found)) if as_json else show_status(found, sys.stdout)


@main.command()
@click.argument("dest")
@click.argument("query")
@_storage_option
@click.option(
    "--format",
    "form",
    type=click.Choice(["table", "csv", "json"]),
    default="table",
    show_default=True,
    help="How to print the rows.",
)
def sql(dest: str, query: str, storage_option: tuple[str, ...], form: str) -> None:
    """Query the lake DEST with DuckDB.

    documents, pages and blocks show the newest version of each source document; documents_all,
    pages_all and blocks_all show every version.
    """
    from flows.show import show_rows
    from tasks.query import run_query

    columns, rows = run_query(dest, query, storage_option)
    show_rows(columns, rows, form, sys.stdout)


if __name__ == "__main__":
    main()

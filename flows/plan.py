"""What a run would read and what that would cost: the listing against what the lake knows."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import chain, islice
from typing import Any

from schemas.errors import RecipeMismatch, SourceError
from schemas.records import SourceObject
from schemas.settings import PlanSettings, Recipe
from tasks.cost import cost_of
from tasks.discover import discover
from tasks.engines.choice import recipe_of
from tasks.known import KnownDocuments, Todo
from tasks.runs import open_runs
from tasks.sources import Sources
from tasks.stores import check_version, is_lake, store_of


def run_plan(settings: PlanSettings) -> dict[str, Any]:
    """What `run_ingest` would read; nothing is written.

    Raises:
        UsageError: as `run_ingest`.
        LakeError: the lake cannot be read.
    """
    count = 0

    def counted() -> Iterator[SourceObject]:
        nonlocal count
        for found in listing_of(settings, Sources(settings.storage_option)):
            count += 1
            yield found

    recipe = recipe_of(settings)
    store = store_of(settings.dest, settings.storage_option)
    if is_lake(store):
        check_version(store)
    new = again = size = 0
    with KnownDocuments(store) as known:
        check_recipe(known, recipe, settings)
        for todo in todos_of(known, counted(), recipe, settings):
            new, again = new + (todo.stored is None), again + (todo.stored is not None)
            size += todo.document.size_bytes
        cost = cost_of(store, known, new + again, size)
    return {
        "listed": count,
        "new": new,
        "again": again,
        "bytes": size,
        "cost": cost.told() if cost else None,
        "unfinished_runs": open_runs(store),
        "recipe": {"recipe_id": recipe.recipe_id, **recipe.model_dump(exclude_none=True)},
    }


def listing_of(settings: PlanSettings, sources: Sources) -> Iterator[SourceObject]:
    """The source's objects; the first is asked for here, so that an empty source shows at once."""
    found = discover(settings.source, settings.include, settings.exclude, settings.dest, sources)
    first = next(found, None)
    if first is None:
        raise SourceError(
            f"nothing to read in {settings.source}: no file matches; "
            "check the folder and --include and --exclude"
        )
    return chain([first], found)


def todos_of(
    known: KnownDocuments, listing: Iterator[SourceObject], recipe: Recipe, settings: PlanSettings
) -> Iterator[Todo]:
    """What of a listing is to be read."""
    return islice(known.todo(listing, recipe.recipe_id, settings.retry_failed), settings.limit)


def check_recipe(known: KnownDocuments, recipe: Recipe, settings: PlanSettings) -> None:
    """Raise `RecipeMismatch` if the lake was read by another recipe, and that was not wanted."""
    newest = known.newest_recipe()
    if newest in (None, recipe.recipe_id) or settings.new_recipe:
        return
    told = ", ".join(
        f"{name} {value}" for name, value in recipe.model_dump(exclude_none=True).items()
    )
    raise RecipeMismatch(
        f"the lake was read by recipe {newest}, this run would use {recipe.recipe_id} "
        f"({told}) and "
        f"read {known.pages_of_other_recipes(recipe.recipe_id)} pages again; "
        "pass --new-recipe to do that, or the options of the earlier run"
    )

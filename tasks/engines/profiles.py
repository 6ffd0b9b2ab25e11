"""What an engine must be told of a model, and what of it decides the answer."""

from __future__ import annotations

from dataclasses import dataclass

from schemas.settings import PlanSettings, Recipe


@dataclass(frozen=True, slots=True)
class Profile:
    """One model: the engine that runs it, its name in the lake, and how pages are rendered."""

    engine: str
    model: str
    render: str


RAPIDOCR = Profile(engine="rapidocr", model="PP-OCRv6-small", render="150dpi-long1650..2600")

PROFILES = {profile.engine: profile for profile in (RAPIDOCR,)}


def choose(settings: PlanSettings) -> Profile:
    """The profile that `--engine` means on this machine."""
    return RAPIDOCR if settings.engine == "auto" else PROFILES[settings.engine]


def recipe_of(profile: Profile, settings: PlanSettings) -> Recipe:
    """What decides the raw answer of a run with these settings."""
    return Recipe(
        model=profile.model,
        render=profile.render,
        text_layer=settings.text_layer,
        layout=settings.layout,
    )

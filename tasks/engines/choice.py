"""Which engine reads, with which model, and the recipe that this makes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from schemas.errors import UsageError
from schemas.settings import PlanSettings, Recipe
from tasks.engines.arguments import has_gpu_and_vllm
from tasks.engines.ngram import NGramArguments
from tasks.engines.profiles import Profile, profile_of
from tasks.target import CpuTarget, Target

CPU_ENGINE = "rapidocr"
CPU_MODEL = "PP-OCRv6-small"

DEFAULT_MODEL = "deepseek-ocr"
DEFAULT_PROMPT = "markdown"


@dataclass(frozen=True, slots=True)
class Asked:
    """A model and what it is asked about every page."""

    profile: Profile
    mode: str
    prompt: str

    @property
    def target(self) -> Target:
        """How pages are rendered for it."""
        return self.profile.targets[self.mode]


def engine_of(settings: PlanSettings) -> Literal["rapidocr", "vllm", "server"]:
    """The engine that `--engine` means on this machine.

    Raises:
        UsageError: options that contradict each other.
    """
    engine = settings.engine
    if engine == "auto":
        engine = "rapidocr"
        if settings.engine_url:
            engine = "server"
        elif has_gpu_and_vllm():
            engine = "vllm"
    if engine == "server" and not settings.engine_url:
        raise UsageError("--engine server: give the server's address with --engine-url")
    if engine != "server" and settings.engine_url:
        raise UsageError(f"--engine {engine}: --engine-url is for the engine server")
    return engine


def asked_of(settings: PlanSettings) -> Asked | None:
    """What these settings ask of which model; None for the CPU engine.

    Raises:
        UsageError: the model does not exist, or has no such mode or prompt.
    """
    if engine_of(settings) == "rapidocr":
        for name in ("model", "mode", "prompt"):
            if getattr(settings, name) is not None:
                raise UsageError(
                    f"--{name} is for the engines vllm and server: the CPU engine has one model"
                )
        return None
    profile = profile_of(settings.model or DEFAULT_MODEL)
    mode, _ = profile.target(settings.mode)
    prompt = settings.prompt or DEFAULT_PROMPT
    profile.question(prompt)
    if settings.pages_per_prompt > 1:
        if prompt != "describe":
            raise UsageError("--pages-per-prompt is for --prompt describe")
        if settings.pages_per_prompt > profile.images_a_prompt:
            raise UsageError(
                f"--pages-per-prompt {settings.pages_per_prompt}: {profile.model} takes "
                f"{profile.images_a_prompt} at most"
            )
    return Asked(profile, mode, prompt)


def asked_by(recipe: Recipe) -> Asked | None:
    """What a recipe asks of which model; None if it is the CPU engine's."""
    if recipe.model == CPU_MODEL or recipe.mode is None or recipe.prompt is None:
        return None
    return Asked(profile_of(recipe.model), recipe.mode, recipe.prompt)


def recipe_of(settings: PlanSettings) -> Recipe:
    """What decides the raw answer of a run with these settings.

    Raises:
        UsageError: see `engine_of` and `asked_of`.
    """
    asked = asked_of(settings)
    if asked is None:
        return Recipe(
            model=CPU_MODEL,
            render=CpuTarget().name,
            text_layer=settings.text_layer,
            layout=settings.layout,
        )
    return Recipe(
        model=asked.profile.model,
        render=asked.target.name,
        text_layer=settings.text_layer,
        layout=settings.layout,
        revision=settings.revision,
        mode=asked.mode,
        prompt=asked.prompt,
        ngram=_in_short(asked.profile.ngram) if asked.profile.ngram else None,
        pages_per_prompt=settings.pages_per_prompt if settings.pages_per_prompt > 1 else None,
        fallback=settings.fallback if settings.fallback != "none" else None,
    )


def _in_short(ngram: NGramArguments) -> str:
    spared = ",".join(map(str, sorted(ngram.whitelist_token_ids)))
    return f"{ngram.ngram_size}/{ngram.window_size}/{spared}"

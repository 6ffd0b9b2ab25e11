"""What is tried when a model's answer about a page was no good, one rung after the other."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

from tasks.check import Complaint
from tasks.engines.ask import Ask
from tasks.engines.choice import Asked
from tasks.engines.ngram import NGramArguments

STRONGER_NGRAM = "stronger_ngram"
OTHER_MODE = "other_mode"
OTHER_PROMPT = "other_prompt"
TURNED = "turned_page"
WARMER = "warmer"

LADDERS: dict[Complaint, tuple[str, ...]] = {
    Complaint.LOOP: (STRONGER_NGRAM, OTHER_MODE, OTHER_PROMPT, TURNED, WARMER),
    Complaint.TRUNCATED: (OTHER_MODE, STRONGER_NGRAM, OTHER_PROMPT, TURNED, WARMER),
    Complaint.EMPTY_OUTPUT: (OTHER_PROMPT, OTHER_MODE, TURNED, WARMER),
    Complaint.HALLUCINATED: (OTHER_MODE, TURNED, OTHER_PROMPT, WARMER),
    Complaint.DEGENERATE_BOXES: (OTHER_MODE, WARMER),
}
"""Rungs by what was wrong first. Whatever most often mends it comes first; the page is turned late,
because finding out whether it lies on a side costs a look by the CPU engine."""

_STRONGER_SIZE, _STRONGER_WINDOW = 15, 500
_WARMER = 0.3


@dataclass(frozen=True, slots=True)
class Rung:
    """One more try: what is asked, in which mode, and whether of the page turned upright."""

    name: str
    mode: str
    ask: Ask
    upright: bool = False


def first_try(asked: Asked, max_tokens: int) -> Rung:
    """How every page is asked about at first."""
    profile = asked.profile
    ask = Ask(profile.question(asked.prompt), max_tokens, ngram=profile.ngram)
    return Rung("", asked.mode, ask)


def ladder(asked: Asked, complaint: Complaint, first: Rung) -> Iterator[Rung]:
    """The rungs that this model has against a complaint about its first answer."""
    profile = asked.profile
    for name in LADDERS[complaint]:
        if name == STRONGER_NGRAM and profile.ngram is not None:
            yield replace(first, name=name, ask=replace(first.ask, ngram=_stronger(profile.ngram)))
        elif name == OTHER_MODE:
            for mode in [mode for mode in profile.targets if mode != asked.mode]:
                yield replace(first, name=name, mode=mode)
        elif name == OTHER_PROMPT and (other := _other_prompt(asked)) is not None:
            yield replace(first, name=name, ask=replace(first.ask, question=other))
        elif name == TURNED:
            yield replace(first, name=name, upright=True)
        elif name == WARMER:
            ngram = _stronger(profile.ngram) if profile.ngram else None
            yield replace(
                first, name=name, ask=replace(first.ask, ngram=ngram, temperature=_WARMER)
            )


def _stronger(ngram: NGramArguments) -> NGramArguments:
    """Shorter pieces in a wider window, and nothing spared: cells must end too."""
    return NGramArguments(
        ngram_size=min(ngram.ngram_size, _STRONGER_SIZE),
        window_size=max(ngram.window_size, _STRONGER_WINDOW),
        whitelist_token_ids=frozenset(),
    )


def _other_prompt(asked: Asked) -> str | None:
    """The plain question after a page's words, for the purposes that it can stand in for."""
    prompts = asked.profile.prompts
    stands_in = {"markdown": "free", "ocr": "free", "free": "markdown"}
    other = stands_in.get(asked.prompt)
    return prompts.get(other) if other else None

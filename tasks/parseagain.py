"""What an engine once said of a page, parsed by today's parser. No engine is asked, no image seen.

Figures stay what was cut out when the page was read: a figure that stands where one stood keeps its
picture.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from schemas.records import Block, Box, ParsedPage
from tasks import grounding
from tasks.check import Complaint, without_loop
from tasks.engines.choice import CPU_ENGINE
from tasks.engines.profiles import PROFILES, profile_of

_SAME = 0.5  # of the area that two boxes cover together: so much in common is the same figure

Figure = tuple[str, Box]
"""The `figure_uri` of a block, and its box."""


@dataclass(frozen=True, slots=True)
class Said:
    """What an engine said of a page, with what its row tells of both.

    `flags` are the row's; `figures` those of its old blocks.
    """

    raw: str
    engine: str
    model: str
    width_pt: float
    height_pt: float
    turn: int
    flags: tuple[str, ...]
    with_layout: bool
    figures: tuple[Figure, ...] = ()


def parser_version() -> str:
    """Today's. Runs in a worker process, which may load what parsing needs."""
    from tasks.parse import PARSER_VERSION

    return PARSER_VERSION


def can_parse(engine: str | None, model: str | None, with_layout: bool) -> bool:
    """Whether an answer can be parsed without the image that it is about.

    The lines of the CPU engine can only if no layout is asked for: the layout network looks at the
    picture, and without it would see no figures and other tables.
    """
    if engine == CPU_ENGINE:
        return not with_layout
    return any(profile.model == model for profile in PROFILES)


def parse_again(said: Said, version: str) -> ParsedPage:
    """The page as `tasks.parse` would make it today. Runs in a worker process."""
    if said.engine == CPU_ENGINE:
        return _lines(said, version)
    raw = without_loop(said.raw) if Complaint.LOOP in said.flags else said.raw
    found = profile_of(said.model).parser(raw, said.width_pt, said.height_pt, said.turn)
    if Complaint.HALLUCINATED in said.flags:
        return ParsedPage(version, markdown="", text="", flags=found.flags)
    if not said.with_layout:
        return replace(grounding.page(found, version), blocks=())
    blocks = with_figures([piece.block for piece in found.pieces], said.figures)
    pieces = (replace(p, block=block) for p, block in zip(found.pieces, blocks, strict=True))
    return grounding.page(replace(found, pieces=tuple(pieces)), version)


def with_figures(blocks: Sequence[Block], figures: Sequence[Figure]) -> list[Block]:
    """The blocks, figures among them with the picture that was cut out at their place."""
    pairs = sorted(
        (
            (_in_common(block.box, box), number, uri)
            for number, block in enumerate(blocks)
            for uri, box in figures
            if block.kind == "figure" and block.box is not None
        ),
        key=lambda pair: (-pair[0], pair[1]),
    )
    given: dict[int, str] = {}
    for share, number, uri in pairs:
        if share >= _SAME and number not in given and uri not in given.values():
            given[number] = uri
    return [replace(block, figure_uri=given.get(number)) for number, block in enumerate(blocks)]


def _in_common(one: Box, other: Box) -> float:
    """The area that lies in both boxes, as a share of what they cover together."""
    across = min(one[2], other[2]) - max(one[0], other[0])
    down = min(one[3], other[3]) - max(one[1], other[1])
    both = max(across, 0.0) * max(down, 0.0)
    together = _area(one) + _area(other) - both
    return both / together if together > 0 else 0.0


def _area(box: Box) -> float:
    return (box[2] - box[0]) * (box[3] - box[1])


def _lines(said: Said, version: str) -> ParsedPage:
    from tasks.parse import lines_of
    from tasks.readingorder import reading_order
    from tasks.turn import upright_size

    lines = lines_of(said.raw, *upright_size(said.width_pt, said.height_pt, said.turn))
    ordered = [lines[place].text for place in reading_order([line.box for line in lines])]
    return ParsedPage(version, markdown="", text="\n".join(ordered))

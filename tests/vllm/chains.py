"""A language model made by hand that says answers by heart: nothing is trained.

It has DeepSeek-V2's form without experts and without latent attention, so that vLLM loads it as
DeepSeek-OCR's. Every place of every answer is a token of its own (see `tokens.py`), so that the
next token follows from the current one alone. A token's vector is a random code of +1 and -1, and
the row of the token that follows it, by which the vector is multiplied, is the same code: 1 for the
right token, hardly anything for all others. What else is needed stands in channels of its own:

- the first layer's attention attends to all that came before alike, and brings the shade that
  image tokens carry to every place: with it the question's last token chooses an answer's first;
- the last token of an answer says so, and the end token looks for that;
- a token of a cycle says so, and the way out looks for it: second best, for when it is forbidden
  to go on with the cycle.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor

WIDTH, LAYERS, HEADS, INNER = 384, 2, 6, 256
MOST_SHADES, MOST_CYCLES = 32, 16

_CODES = 320
_SHADES = _CODES
_CYCLES = _SHADES + MOST_SHADES
_ENDING = _CYCLES + MOST_CYCLES
_NO_SHADE = _ENDING + 1

_SHARP = 40.0  # logits of a right token: at temperature 0.3 it is as certain as at 0
_WAY_OUT, _SHADE, _ANY = 0.75, 0.3, 0.15  # of that: second best; of the shade; of no shade
_MARGIN = 0.05 * _SHARP  # by which a token must lead; bfloat16 blurs less than that


@dataclass(frozen=True, slots=True)
class Chain:
    """One answer as tokens.

    Attributes:
        shade: of the image; None for an image without one.
        question: the last token of what is asked.
        text: said first; all of it, and the end, unless there is a `cycle`.
        cycle: said again and again after `text`.
        way_out: said where the cycle may not go on, and then the end.
    """

    shade: int | None
    question: int
    text: Sequence[int]
    cycle: Sequence[int] = ()
    way_out: Sequence[int] = ()

    @property
    def first(self) -> int | None:
        """The first token; None if the answer is empty."""
        said = [*self.text, *self.cycle]
        return said[0] if said else None


def shade_vectors(count: int) -> Tensor:
    """What an image token of each shade must be: (count, WIDTH)."""
    vectors = torch.zeros(count, WIDTH)
    vectors[torch.arange(count), _SHADES + torch.arange(count)] = 1
    return vectors


def language_model(
    chains: Sequence[Chain], end: int, vocabulary: int, seed: int
) -> dict[str, Tensor]:
    """The weights that are not zero, by their names in the checkpoint, for these answers.

    Raises:
        RuntimeError: a token would not be followed by the right one.
    """
    generator = torch.Generator().manual_seed(seed)
    embed, head = torch.zeros(vocabulary, WIDTH), torch.zeros(vocabulary, WIDTH)
    used = {token for chain in chains for token in (*_tokens(chain), chain.question)}
    for token in sorted(used):
        embed[token, :_CODES] = torch.randint(2, (_CODES,), generator=generator) * 2.0 - 1

    def follow(before: int, after: int) -> None:
        head[after, :_CODES] += embed[before, :_CODES] * (_SHARP / _CODES)

    head[end, _ENDING] = _SHARP
    cycles = iter(range(_CYCLES, _CYCLES + MOST_CYCLES))
    for chain in chains:
        first = end if chain.first is None else chain.first
        follow(chain.question, first)
        embed[chain.question, _NO_SHADE] = 1
        if chain.shade is None:
            head[first, _NO_SHADE] = _ANY * _SHARP
        else:
            head[first, _SHADES + chain.shade] = _SHADE * _SHARP
        said = [*chain.text, *chain.cycle]
        for before, after in pairwise(said):
            follow(before, after)
        if chain.cycle:
            follow(chain.cycle[-1], chain.cycle[0])
            channel = next(cycles)
            embed[list(chain.cycle), channel] = 1
            if chain.way_out:
                head[chain.way_out[0], channel] = _WAY_OUT * _SHARP
        elif said:
            embed[said[-1], _ENDING] = 1
        if chain.way_out:
            for before, after in pairwise(chain.way_out):
                follow(before, after)
            embed[chain.way_out[-1], _ENDING] = 1
    weights = {"model.embed_tokens.weight": embed, "lm_head.weight": head} | _layers()
    check(chains, end, embed.bfloat16().float(), head.bfloat16().float())
    return weights


def check(chains: Sequence[Chain], end: int, embed: Tensor, head: Tensor) -> None:
    """Go through all answers, early and late, and see that the right token leads at every place.

    Raises:
        RuntimeError: at some place it does not.
    """
    known = sorted({t for chain in chains for t in _tokens(chain)} | {end})
    row = {token: number for number, token in enumerate(known)}
    heads = torch.cat([head[known], torch.zeros(1, WIDTH)])  # the last one stands for all others

    def lead(before: int, after: int, shade: Tensor, barred: int | None) -> float:
        logits = heads @ (embed[before] + shade)
        if barred is not None:
            logits[row[barred]] = -torch.inf
        right = logits[row[after]].item()
        logits[row[after]] = -torch.inf
        return right - logits.max().item()

    for number, chain in enumerate(chains):
        for share in (0.2, 0.95):  # of what came before that are image tokens
            shade = torch.zeros(WIDTH)
            if chain.shade is not None:
                shade[_SHADES + chain.shade] = share
            places = [(*place, None) for place in _places(chain, end)]
            if chain.way_out:
                ahead = [*chain.cycle, chain.cycle[0]]
                pairs = pairwise(ahead)
                places += [(before, chain.way_out[0], barred) for before, barred in pairs]
            if share > 0.5:
                first = end if chain.first is None else chain.first
                places.append((chain.question, first, None))
            leads = (lead(before, after, shade, barred) for before, after, barred in places)
            least = min(leads, default=_MARGIN)
            if least < _MARGIN:
                raise RuntimeError(f"answer {number}: a wrong token is {-least:.2f} ahead")


def _places(chain: Chain, end: int) -> list[tuple[int, int]]:
    """Each token of an answer with the one after it, the question left out."""
    said = [*chain.text, *chain.cycle, *chain.cycle[:1]]
    out = [*chain.way_out, *([end] if chain.way_out else [])]
    if not chain.cycle and said:
        said.append(end)
    return [*pairwise(said), *pairwise(out)]


def _tokens(chain: Chain) -> list[int]:
    return [*chain.text, *chain.cycle, *chain.way_out]


def _layers() -> dict[str, Tensor]:
    """Two layers of which only the first does anything: it carries the shade to every place."""
    carried = torch.zeros(WIDTH, WIDTH)
    shades = torch.arange(_SHADES, _SHADES + MOST_SHADES)
    carried[shades, shades] = 1
    nothing = {
        **{f"self_attn.{name}_proj.weight": torch.zeros(WIDTH, WIDTH) for name in "qkvo"},
        **{f"mlp.{name}_proj.weight": torch.zeros(INNER, WIDTH) for name in ("gate", "up")},
        "mlp.down_proj.weight": torch.zeros(WIDTH, INNER),
        "input_layernorm.weight": torch.ones(WIDTH),
        "post_attention_layernorm.weight": torch.ones(WIDTH),
    }
    first = nothing | {
        "self_attn.v_proj.weight": carried,
        # The norm before it has made a lone channel this large.
        "self_attn.o_proj.weight": carried / WIDTH**0.5,
    }
    layers = [first, *([nothing] * (LAYERS - 1))]
    weights = {
        f"model.layers.{n}.{name}": w for n, each in enumerate(layers) for name, w in each.items()
    }
    return weights | {"model.norm.weight": torch.ones(WIDTH)}

"""DeepSeek-OCR's vision tower with weights made by hand: it says which shade most of a view has.

vLLM builds the tower in one size only (SAM ViT-B, then CLIP-L, 0.8 GB), so that it cannot be made
small, but nearly all of it can be zero: a block of zeros passes on what came in. What is not zero:

- SAM's patches: their mean brightness l, from -1 to 1, and a constant 1. The norms of its neck turn
  (l, 1) into a direction, the angle arctan(l). Two strided convolutions keep one patch of sixteen,
  16 x 16 pixels of each cell of 64 x 64: between lines of text it is clean, where no mean would be.
- CLIP's layer 0: how far the angle is from that of each shade, |sin(difference)|.
- layer 1: 1 for the shade that is near enough, else 0.
- layer 2: attention that attends to all cells alike, which gives each shade's share of the view;
  then 1 for a shade that prevails, else 0.
- the projector: each shade's 1 becomes that shade's vector, for the language model.

So all image tokens of a view are the same, and a shade's whatever is drawn on a part of the page.
Each value is kept as a pair of opposites where a layer norm is to come, whose mean is then zero.
Weights are kept as bfloat16 rounds them. Names and shapes: vLLM's `deepencoder.py` and `clip.py`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

Shapes = dict[str, tuple[int, ...]]

_SAM, _NECK, _CLIP, _HIDDEN = 768, 256, 1024, 4096
_SAM_LAYERS, _SAM_GLOBAL, _CLIP_LAYERS = 12, (2, 5, 8, 11), 24
_BRIGHT, _ONE = 0, 2  # where the angle's sine and cosine stand; the opposite is one further
_FAR, _NEAR, _SHARE, _PREVAILS = 16, 128, 256, 384  # where each layer's values begin

_LENGTH = math.sqrt(_CLIP / 2)  # of (sine, cosine) after a norm over pairs of opposites
_STEEP = 200.0  # quick GELU as a ramp: from here on it is one
_AT_ALL, _FULLY = 0.15, 0.22  # share of a view at which a shade begins to prevail, and does


@dataclass(frozen=True, slots=True)
class Tower:
    """`weights` that are not zero, and the `shapes` of all that are, by their names in the file."""

    weights: dict[str, Tensor]
    shapes: Shapes


def tower(greys: Sequence[int], vectors: Tensor) -> Tower:
    """The tower and projector for shades of these grey levels, which become these `vectors`.

    127, with which pages are padded, is no shade, and none may be near it.
    """
    weights = {f"model.sam_model.{name}": w for name, w in _sam().items()}
    weights |= {f"model.vision_model.{name}": w for name, w in _clip(greys).items()}
    projector = torch.zeros(vectors.shape[1], 2 * _CLIP)  # CLIP's channels, then SAM's
    projector[:, _PREVAILS : _PREVAILS + len(greys)] = vectors.T
    weights["model.projector.layers.weight"] = projector
    shapes = _all_shapes() | {"model.projector.layers.bias": (vectors.shape[1],)}
    rounded = {name: weight.bfloat16() for name, weight in weights.items()}
    return Tower(rounded, {name: shape for name, shape in shapes.items() if name not in weights})


def look(made: Tower, view: Tensor) -> Tensor:
    """What the tower makes of a view (3, side, side) of pixels from -1 to 1: its image tokens.

    The same arithmetic as in vLLM, blocks of zeros left out.
    """
    sam = {n.removeprefix("model.sam_model."): w for n, w in made.weights.items()}
    x = view[None].bfloat16()
    x = functional.conv2d(x, sam["patch_embed.proj.weight"], sam["patch_embed.proj.bias"], 16)
    for convolution, norm, padding in (("neck.0", "neck.1", 0), ("neck.2", "neck.3", 1)):
        x = functional.conv2d(x, sam[f"{convolution}.weight"], padding=padding)
        x = functional.layer_norm(x.movedim(1, -1), (_NECK,), sam[f"{norm}.weight"], eps=1e-6)
        x = x.movedim(-1, 1)
    for convolution in ("net_2", "net_3"):
        x = functional.conv2d(x, sam[f"{convolution}.weight"], stride=2, padding=1)
    cells = x.flatten(2).transpose(1, 2)[0]

    clip = {n.removeprefix("model.vision_model."): w for n, w in made.weights.items()}
    x = torch.cat([torch.zeros_like(cells[:1]), cells])  # the class token
    x = functional.layer_norm(x, (_CLIP,), clip["pre_layrnorm.weight"], eps=1e-5)
    for number in range(3):
        layer = f"transformer.layers.{number}"
        if number == 2:
            values = functional.layer_norm(x, (_CLIP,), clip[f"{layer}.layer_norm1.weight"])
            values = values @ clip[f"{layer}.self_attn.qkv_proj.weight"][2 * _CLIP :].T
            mean = values.float().mean(0, keepdim=True).bfloat16()
            x = x + mean @ clip[f"{layer}.self_attn.out_proj.weight"].T
        h = functional.layer_norm(x, (_CLIP,), clip[f"{layer}.layer_norm2.weight"], eps=1e-5)
        h = functional.linear(h, clip[f"{layer}.mlp.fc1.weight"], clip[f"{layer}.mlp.fc1.bias"])
        x = x + (h * torch.sigmoid(1.702 * h)) @ clip[f"{layer}.mlp.fc2.weight"].T
    return functional.linear(
        torch.cat([x[1:], cells], -1), made.weights["model.projector.layers.weight"]
    )


def _sam() -> dict[str, Tensor]:
    patch, one = torch.zeros(_SAM, 3, 16, 16), torch.zeros(_SAM)
    patch[0] = 1 / 768
    one[1] = 1
    opposites = torch.zeros(_NECK, _SAM, 1, 1)
    opposites[_BRIGHT, 0], opposites[_BRIGHT + 1, 0] = 1, -1
    opposites[_ONE, 1], opposites[_ONE + 1, 1] = 1, -1
    alike = torch.zeros(_NECK, _NECK, 3, 3)
    weights = {
        "patch_embed.proj.weight": patch,
        "patch_embed.proj.bias": one,
        "neck.0.weight": opposites,
        "neck.1.weight": torch.ones(_NECK),
        "neck.2.weight": alike,
        "neck.3.weight": torch.ones(_NECK),
    }
    for name, inputs, outputs in (("net_2", 256, 512), ("net_3", 512, 1024)):
        weights[f"{name}.weight"] = torch.zeros(outputs, inputs, 3, 3)
    for channel in range(4):
        alike[channel, channel, 1, 1] = 1
        for name in ("net_2", "net_3"):
            weights[f"{name}.weight"][channel, channel, 1, 1] = 1
    return weights


def _clip(greys: Sequence[int]) -> dict[str, Tensor]:
    """Layers 0 to 2, see above; unit 2n and 2n + 1 of a layer's hidden ones are shade n's."""
    ones = torch.ones(_CLIP)
    weights = {"pre_layrnorm.weight": ones}
    angles = [math.atan(grey / 127.5 - 1) for grey in sorted([*greys, 127])]
    up, up_bias, down = {}, {}, {}
    for layer in range(3):
        up[layer], up_bias[layer] = torch.zeros(_HIDDEN, _CLIP), torch.zeros(_HIDDEN)
        down[layer] = torch.zeros(_CLIP, _HIDDEN)
    values, out = torch.zeros(3 * _CLIP, _CLIP), torch.zeros(_CLIP, _CLIP)
    for number, grey in enumerate(greys):
        first, second = 2 * number, 2 * number + 1
        angle = math.atan(grey / 127.5 - 1)
        # Layer 0: z = sin(angle seen - angle) and -z, of which quick GELU passes the positive one.
        for unit, sign in ((first, 1), (second, -1)):
            up[0][unit, _BRIGHT] = sign * _STEEP / _LENGTH * math.cos(angle)
            up[0][unit, _ONE] = -sign * _STEEP / _LENGTH * math.sin(angle)
            _write(down[0], _FAR + 2 * number, unit, 1 / _STEEP)
        # Layer 1: from 16 where the angle is near down to 0 half way to the next shade.
        apart = min(abs(angle - other) for other in angles if other != angle)
        for unit, at, sign in ((first, 32, 1), (second, 16, -1)):
            up[1][unit, _FAR + 2 * number] = -32 / math.sin(apart / 2)
            up_bias[1][unit] = at
            _write(down[1], _NEAR + 2 * number, unit, sign / 4)
        # Layer 2: the mean of those, 4 in each cell of this shade; a ramp from 0 to 8.
        values[2 * _CLIP + number, _NEAR + 2 * number] = 1
        out[_SHARE + 2 * number, number], out[_SHARE + 2 * number + 1, number] = 1, -1
        steep = 8 / (_FULLY - _AT_ALL)
        for unit, begin, sign in ((first, _AT_ALL, 1), (second, _FULLY, -1)):
            up[2][unit, _SHARE + 2 * number] = steep / 4
            up_bias[2][unit] = -steep * begin
            down[2][_PREVAILS + number, unit] = sign / 8
    for layer in range(3):
        name = f"transformer.layers.{layer}"
        weights[f"{name}.layer_norm2.weight"] = ones
        weights[f"{name}.mlp.fc1.weight"] = up[layer]
        weights[f"{name}.mlp.fc1.bias"] = up_bias[layer]
        weights[f"{name}.mlp.fc2.weight"] = down[layer]
    weights["transformer.layers.2.layer_norm1.weight"] = ones
    weights["transformer.layers.2.self_attn.qkv_proj.weight"] = values
    weights["transformer.layers.2.self_attn.out_proj.weight"] = out
    return weights


def _write(down: Tensor, channel: int, unit: int, factor: float) -> None:
    down[channel, unit], down[channel + 1, unit] = factor, -factor


def _all_shapes() -> Shapes:
    shapes: Shapes = {"model.sam_model.pos_embed": (1, 64, 64, _SAM)}
    for layer in range(_SAM_LAYERS):
        window = 64 if layer in _SAM_GLOBAL else 14
        block = {f"attn.rel_pos_{axis}": (2 * window - 1, 64) for axis in "hw"}
        block |= _norm("norm1", _SAM) | _norm("norm2", _SAM)
        block |= _linear("attn.qkv", _SAM, 3 * _SAM) | _linear("attn.proj", _SAM, _SAM)
        block |= _linear("mlp.lin1", _SAM, 4 * _SAM) | _linear("mlp.lin2", 4 * _SAM, _SAM)
        shapes |= {f"model.sam_model.blocks.{layer}.{name}": s for name, s in block.items()}
    for norm in (1, 3):
        shapes |= _norm(f"model.sam_model.neck.{norm}", _NECK)
    shapes |= {
        "model.vision_model.embeddings.class_embedding": (_CLIP,),
        "model.vision_model.embeddings.patch_embedding.weight": (_CLIP, 3, 14, 14),
        "model.vision_model.embeddings.position_embedding.weight": (257, _CLIP),
    }
    shapes |= _norm("model.vision_model.pre_layrnorm", _CLIP)
    for layer in range(_CLIP_LAYERS):
        block = _norm("layer_norm1", _CLIP) | _norm("layer_norm2", _CLIP)
        block |= _linear("self_attn.qkv_proj", _CLIP, 3 * _CLIP)
        block |= _linear("self_attn.out_proj", _CLIP, _CLIP)
        block |= _linear("mlp.fc1", _CLIP, _HIDDEN) | _linear("mlp.fc2", _HIDDEN, _CLIP)
        shapes |= {
            f"model.vision_model.transformer.layers.{layer}.{name}": s for name, s in block.items()
        }
    return shapes


def _norm(name: str, width: int) -> Shapes:
    return {f"{name}.weight": (width,), f"{name}.bias": (width,)}


def _linear(name: str, inputs: int, outputs: int) -> Shapes:
    return {f"{name}.weight": (outputs, inputs), f"{name}.bias": (outputs,)}

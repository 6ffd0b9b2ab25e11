"""How much is drawn on the picture of a page."""

from __future__ import annotations

import numpy as np
from PIL import Image

CELL = 16
"""Pixels along a cell's side: a letter or two at the size at which pages are rendered."""

_SPOT = 4  # pixels along the side of what is averaged: noise and single specks vanish in it
_VISIBLE = 18  # grey levels within a cell; a black speck of one pixel gives 16, faint pencil 20


def ink(picture: Image.Image) -> float:
    """The share of the picture's cells in which something can be seen, 0.0 for a blank page.

    Paper may be of any colour, noisy from scanning or JPEG, and lit unevenly: what counts is the
    contrast within a cell of 16 by 16 pixels.
    """
    spots = np.asarray(picture.convert("L").reduce(_SPOT))
    a_cell = CELL // _SPOT
    height, width = spots.shape
    missing = ((0, -height % a_cell), (0, -width % a_cell))
    if missing != ((0, 0), (0, 0)):
        spots = np.pad(spots, missing, mode="edge")
    rows = spots.reshape(-1, a_cell, spots.shape[1])
    # Down first, over whole rows: numpy is slow along short axes.
    darkest = rows.min(axis=1).reshape(rows.shape[0], -1, a_cell)
    lightest = rows.max(axis=1).reshape(rows.shape[0], -1, a_cell)
    low, high = darkest[..., 0], lightest[..., 0]
    for place in range(1, a_cell):
        low, high = np.minimum(low, darkest[..., place]), np.maximum(high, lightest[..., place])
    return float(np.mean(high - low >= _VISIBLE))

"""Rows of several tables, put in the order of a number that each row has."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pyarrow as pa

Keyed = tuple[pa.Table, np.ndarray]
"""Rows, and for each of them the number that says where it goes."""

_STEP = 2_000


def in_key_order(found: Sequence[Keyed], schema: pa.Schema) -> Keyed:
    """All rows in the order of their numbers and, if they are blocks, of their block numbers.

    They are put together in small steps: in one go, Arrow would copy all texts of a column into one
    piece, which cannot hold 2 GiB.
    """
    if not found:
        return schema.empty_table(), np.empty(0, np.int64)
    keys = np.concatenate([each for _, each in found])
    ranks = [keys]
    if "block_number" in schema.names:
        ranks.insert(0, np.concatenate([rows["block_number"].to_numpy() for rows, _ in found]))
    order = np.lexsort(ranks)
    starts = np.cumsum([0, *(len(each) for _, each in found)])
    steps = (order[begin : begin + _STEP] for begin in range(0, len(order), _STEP))
    pieces = [_taken(found, starts, step) for step in steps]
    return pa.concat_tables(pieces) if pieces else schema.empty_table(), keys[order]


def _taken(found: Sequence[Keyed], starts: np.ndarray, step: np.ndarray) -> pa.Table:
    """The rows that stand at these places of all rows, in this order."""
    sources = np.searchsorted(starts, step, side="right") - 1
    taken, places = [], []
    for source in np.unique(sources):
        mine = np.flatnonzero(sources == source)
        taken.append(found[source][0].take(pa.array(step[mine] - starts[source])))
        places.append(mine)
    return pa.concat_tables(taken).take(pa.array(np.argsort(np.concatenate(places))))

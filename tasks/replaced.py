"""Old rows of documents that failed as a whole and have been read anew, in another shard."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from contextlib import suppress

import pyarrow as pa
import pyarrow.compute as pc

from schemas.errors import LakeError
from schemas.records import PlannedDocument
from schemas.tables import DOCUMENTS
from tasks.rows import parquet
from tasks.store import Changed, Store, read_rows

_TRIES = 10


def remove_rows(store: Store, documents: Iterable[PlannedDocument]) -> None:
    """Take the rows of these documents out of the objects that they replace them in.

    Done again, it finds nothing more to do.
    """
    by_key = defaultdict[str, list[str]](list)
    for planned in documents:
        if planned.replaces is not None:
            by_key[planned.replaces].append(planned.document_id)
    for key, ids in by_key.items():
        for _ in range(_TRIES):  # another job of this run may be mending rows next to them
            data, tag = store.read(key)
            old = read_rows(data, DOCUMENTS)
            gone = pc.is_in(old["document_id"], value_set=pa.array(ids))
            if not pc.any(gone).as_py():
                break
            with suppress(Changed):
                store.replace(key, parquet(old.filter(pc.invert(gone))), tag)
                break
        else:
            raise LakeError(f"{key} was changed again and again; run the command again")

"""What a writer does first, once it holds the lock: finish what those before it have left."""

from __future__ import annotations

from tasks.emptying import settle_compactions
from tasks.forget import Forgotten, finish_forgetting
from tasks.lock import LakeLock
from tasks.store import Store


def settle(store: Store, lock: LakeLock) -> list[Forgotten]:
    """Finish or give up compactions, and finish forgetting; in a lake at rest it costs two lists.

    Returns:
        What has been forgotten that was not yet.

    Raises:
        LockLost: another writer has taken the lake over.
    """
    settle_compactions(store, lock)
    return finish_forgetting(store, lock)

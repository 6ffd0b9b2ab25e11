"""Cases that take long, done two at a time though pytest asks for them one by one."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from typing import Generic, TypeVar

C = TypeVar("C")
T = TypeVar("T")


class Pairs(Generic[C, T]):
    """Does the cases in their order, and begins the next ones while one is waited for."""

    def __init__(self, pool: ThreadPoolExecutor, cases: Sequence[C], do: Callable[[C], T]) -> None:
        self._pool, self._cases, self._do = pool, list(cases), do
        self._begun: dict[C, Future[T]] = {}

    def of(self, case: C) -> T:
        """What doing a case gave, or the error that it ended with."""
        at = self._cases.index(case)
        for each in self._cases[at : at + 3]:
            if each not in self._begun:
                self._begun[each] = self._pool.submit(self._do, each)
        return self._begun[case].result()


@contextmanager
def in_pairs(cases: Sequence[C], do: Callable[[C], T]) -> Iterator[Pairs[C, T]]:
    with ThreadPoolExecutor(2) as pool:
        try:
            yield Pairs(pool, cases, do)
        finally:
            pool.shutdown(cancel_futures=True)

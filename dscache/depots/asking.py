"""Asking a depot: many small questions at once, since most of it is waiting for answers; and from a
thread that is not the caller's, who can be interrupted then.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from typing import TypeVar

from dscache.depots import Depot, Listed, Stored

_AT_ONCE = 16
_AT_A_TIME = 1000

Item = TypeVar("Item")
Result = TypeVar("Result")


def together(function: Callable[[Item], Result], items: Iterable[Item]) -> list[Result]:
    """What a function says of each item, in their order; of several errors one is raised.

    After an error nothing more is begun, and what was begun has ended. After an interrupt, what a
    server keeps waiting is left alone, and ends with its timeout.
    """
    executor = ThreadPoolExecutor(_AT_ONCE, thread_name_prefix="dscache-depot")
    try:
        futures = [executor.submit(function, item) for item in items]
        found = [future.result() for future in futures]
    except Exception:
        executor.shutdown(cancel_futures=True)
        raise
    finally:
        executor.shutdown(wait=False, cancel_futures=True)
    return found


class Interruptible:
    """A depot that does not keep the caller from being interrupted: the packages that ask stores do
    not hear of Ctrl-C before a server has answered.
    """

    def __init__(self, depot: Depot) -> None:
        self._depot = depot
        self.url = depot.url

    def read(self, key: str, limit: int) -> Stored | None:
        return _waited(lambda: self._depot.read(key, limit))

    def size(self, key: str) -> int | None:
        return _waited(lambda: self._depot.size(key))

    def create(self, key: str, data: bytes) -> bool:
        return _waited(lambda: self._depot.create(key, data))

    def replace(self, key: str, data: bytes, version: str) -> bool:
        return _waited(lambda: self._depot.replace(key, data, version))

    def upload(self, key: str, chunks: Iterable[bytes], size: int) -> None:
        _waited(lambda: self._depot.upload(key, chunks, size))

    def list(self, prefix: str) -> Iterator[Listed]:
        found = self._depot.list(prefix)
        while some := _waited(lambda: list(islice(found, _AT_A_TIME))):
            yield from some

    def remove(self, keys: Iterable[str]) -> None:
        _waited(lambda: self._depot.remove(keys))


def _waited(question: Callable[[], Result]) -> Result:
    """What a question to a depot gives. Only the main thread is ever interrupted."""
    if threading.current_thread() is not threading.main_thread():
        return question()
    return together(lambda _: question(), [None])[0]

"""Many small questions to a depot, or files for it, at once: most of it is waiting for answers. And
how often to try again what others change at the same time.
"""

from __future__ import annotations

import random
import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from typing import TypeVar

from dscache.depots import Depot, Listed, Stored
from dscache.errors import TransferError

_AT_ONCE = 16
_AT_A_TIME = 1000
#: How often something is tried that others change, and the most seconds between two attempts: the
#: first, twice as much each time, and never more than the second.
_ATTEMPTS = 60
_SHORTEST, _LONGEST = 0.02, 0.5

Item = TypeVar("Item")
Result = TypeVar("Result")


def together(function: Callable[[Item], Result], items: Iterable[Item]) -> list[Result]:
    """What a function says of each item, in their order; of several errors one is raised.

    After an error nothing more is begun, and what was begun has ended. After an interrupt, what a
    server keeps waiting is left alone, and ends with its timeout.
    """
    executor = ThreadPoolExecutor(_AT_ONCE, thread_name_prefix="dscache-publish")
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


def waits() -> Iterator[float]:
    """Seconds to wait after each attempt; by chance, so that not all come again together."""
    for number in range(_ATTEMPTS):
        yield random.uniform(0, min(_LONGEST, _SHORTEST * 2**number))


def conflict(file: str, depot: Depot) -> TransferError:
    """The error after the last attempt."""
    return TransferError(
        f"{depot.url}/{file}: others change it again and again",
        hint="publish again; nothing is lost, and what is there already is not uploaded again",
        file=file,
    )

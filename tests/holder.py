"""A lock of the store in another process, which lets go, or dies, when it is told to."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from dscache.store import Store
from tests.children import running

KEY = "sha256-" + "0" * 64
HOLD = """
import sys
from dscache.store import Store
lock = Store(sys.argv[1]).locks.attempt(sys.argv[2])
print("held" if lock else "free", flush=True)
sys.stdin.readline()
if lock:
    lock.release()
print("released", flush=True)
sys.stdin.readline()
"""


@contextmanager
def held(
    store: Store, prelude: str = ""
) -> Iterator[tuple[int, Callable[[], None], Callable[[], None]]]:
    """Another process has the lock; yields its pid, and how to make it release or die.

    It runs `prelude` before anything else.
    """
    with running(prelude + HOLD, store.layout.root, KEY) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        stdin, stdout = process.stdin, process.stdout
        assert stdout.readline() == "held\n"

        def release() -> None:
            stdin.write("\n")
            stdin.flush()
            stdout.readline()

        yield process.pid, release, process.kill

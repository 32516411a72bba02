"""Contention: how often to try again what others change at the same time, and giving up."""

from __future__ import annotations

import random
from collections.abc import Iterator

from dscache.depots import Depot
from dscache.errors import TransferError

#: How often something is tried that others change, and the most seconds between two attempts: the
#: first, twice as much each time, and never more than the second.
_ATTEMPTS = 60
_SHORTEST, _LONGEST = 0.02, 0.5


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

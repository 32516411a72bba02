"""Failures: errors of the cache that torchvision's datasets, and their users, catch as their own.

MNIST goes on to its next mirror after a `RuntimeError` or a `URLError`; a file that is not what it
should be is a `RuntimeError` everywhere in torchvision. Each class here is both.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from urllib.error import URLError

from dscache.errors import DscacheError, IntegrityError, NotCached, TransferError, UnsafeError


class Unreachable(TransferError, URLError):
    """It could not be downloaded."""


class Offline(NotCached, URLError):
    """It is not in the cache, and this is offline mode."""


class Corrupted(IntegrityError, RuntimeError):
    """What came is not what torchvision expects."""


class Refused(UnsafeError, RuntimeError):
    """A redirect or a member of an archive is refused."""


_AS: dict[type[DscacheError], type[DscacheError]] = {
    TransferError: Unreachable,
    NotCached: Offline,
    IntegrityError: Corrupted,
    UnsafeError: Refused,
}


@contextmanager
def translated() -> Iterator[None]:
    """Raise what torchvision would raise. Of the disk it raises `OSError`, as the cache does."""
    try:
        yield
    except tuple(_AS) as error:
        kind = next(kind for base, kind in _AS.items() if isinstance(error, base))
        raise kind(error.message, hint=error.hint, **error.facts) from error

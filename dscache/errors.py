"""The error tree: every failure the library reports, with its exit code and its facts.

One root, one class per kind of trouble. An error says what happened in its message, what to do in
`hint`, and carries the facts (file, url, sizes) as data, so that a program need not parse text.
This module knows nothing of how errors are shown.
"""

from __future__ import annotations

from typing import Any


class DscacheError(Exception):
    """Root of all errors raised on purpose.

    Attributes:
        code: exit code of the command line for this kind of error.
        hint: what the user can do; empty where nothing sensible can be said.
        facts: named values of this failure, shown in JSON documents.
    """

    code = 1

    def __init__(self, message: str, *, hint: str = "", **facts: Any) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint
        self.facts = facts

    def __str__(self) -> str:
        return self.message

    def __reduce__(self) -> tuple[Any, ...]:
        return _rebuild, (type(self), self.message, self.hint, self.facts)


def _rebuild(
    kind: type[DscacheError], message: str, hint: str, facts: dict[str, Any]
) -> DscacheError:
    return kind(message, hint=hint, **facts)


class UsageError(DscacheError, ValueError):
    """A name, option or value that is not well formed."""

    code = 2


class NotFound(DscacheError, KeyError):
    """No such dataset, version, registry or file."""

    code = 3


class NotCached(NotFound):
    """The dataset exists, but its bytes are not in the cache and may not be fetched now."""


class ManualDownload(DscacheError):
    """The bytes must be fetched by a person; the message holds the instructions."""

    code = 3


class TransferError(DscacheError, OSError):
    """Every source failed, retries included."""

    code = 4


class IntegrityError(DscacheError, ValueError):
    """Bytes arrived, but they are not the ones the registry promised."""

    code = 5


class StorageError(DscacheError, OSError):
    """The cache or the target folder cannot take what it should."""

    code = 6


class UnsafeError(DscacheError, ValueError):
    """Input that would reach outside the folders it may touch, or weaken a connection."""

    code = 7


class InvalidFile(DscacheError, ValueError):
    """A registry, lock or configuration file that cannot be used."""

    code = 8

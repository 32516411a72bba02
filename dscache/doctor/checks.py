"""How a check comes out: fine, with something to know, or failed with what to do."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

from dscache.errors import DscacheError, StorageError
from dscache.results import Check

_UNKNOWN = "look at the file or folder that the message names, and run `dscache doctor` again"


def fine(name: str, detail: str) -> Check:
    """Nothing need be done."""
    return Check(name, "ok", detail)


def warning(name: str, detail: str, hint: str) -> Check:
    """It works, but who knows can do better."""
    return Check(name, "warn", detail, hint)


def failure(name: str, detail: str, hint: str, code: int = StorageError.code) -> Check:
    """It does not work."""
    return Check(name, "fail", detail, hint, code)


def of_error(name: str, error: OSError | DscacheError) -> Check:
    """The failure that an error means."""
    if isinstance(error, DscacheError):
        return failure(name, str(error), error.hint or _UNKNOWN, error.code)
    where = f" ({error.filename})" if error.filename else ""
    return failure(name, f"{error.strerror or error}{where}", _UNKNOWN)


def careful(name: str, check: Callable[[], Iterable[Check]]) -> Iterator[Check]:
    """What a check says; if it stops with an error, that is what it says last."""
    try:
        yield from check()
    except (OSError, DscacheError) as error:
        yield of_error(name, error)

"""Which root the user trusts for which registry: the `[roots]` table of the configuration, and the
files that it names.

They belong to the user's configuration, not to the cache: a cache may be deleted, and whoever may
write to a shared one must not decide whom its readers trust.
"""

from __future__ import annotations

import hashlib
import os
from functools import lru_cache
from pathlib import Path

from dscache import disk
from dscache.errors import IntegrityError, InvalidFile
from dscache.settings import Settings
from dscache.signing import require

_FOLDER = "roots"
_MOST = 512_000  # bytes; what tuf reads of a root


def pinned(settings: Settings, address: str) -> bytes | None:
    """The root that is pinned for the registry at an address; None for one that is not signed.

    Where it is, nothing unsigned counts, under whatever name and from whatever place of the
    settings the registry is asked.

    Raises:
        IntegrityError: there is one, and it cannot be read.
        InvalidFile: a root is pinned for a registry that the configuration does not have.
    """
    for name, path in settings.roots.items():
        known = settings.registries.get(name)
        if known is None:
            raise InvalidFile(
                f"{settings.config_file}: roots.{name}: there is no registry {name!r} in it",
                hint="a root counts for an address: write that into [registries], or remove both",
                file=settings.config_file,
                key=f"roots.{name}",
            )
        if _one(known) == _one(address):
            return read(path, f"the root that is pinned for registry {name}")
    return None


def read(path: str, what: str) -> bytes:
    """A root from a file; `what` it is, in words.

    Raises:
        IntegrityError: it cannot be read.
    """
    reason = "no such file"
    try:
        if found := disk.parsed(path, _limited):
            return found
    except OSError as error:
        reason = error.strerror or str(error)
    raise IntegrityError(
        f"{what} cannot be read: {path}: {reason}",
        hint="get the file again from the registry's owner; without it nothing can be verified",
    )


def given(path: str) -> bytes:
    """The root in a file that the user gives.

    Raises:
        InvalidFile: it cannot be read, or holds no root.
        UsageError: the packages that verify are missing.
    """
    require()
    from dscache.signing import roots

    try:
        data = _limited(path)
    except OSError as error:  # one that is too long among them
        raise InvalidFile(f"{path} cannot be read: {error.strerror or error}", file=path) from error
    try:
        roots.decode(data)
    except InvalidFile as error:
        raise InvalidFile(f"{path}: {error}", hint=error.hint, file=path) from error
    return data


def file_of(settings: Settings, name: str) -> str:
    """Where the pinned root of a registry is written."""
    return os.path.join(os.path.dirname(settings.config_file), _FOLDER, f"{name}.json")


def in_configuration(name: str) -> str:
    """The same as it stands in the configuration, relative to it."""
    return f"{_FOLDER}/{name}.json"


def fingerprint(root: bytes) -> str:
    """By what people compare roots."""
    return f"sha256:{hashlib.sha256(root).hexdigest()}"


@lru_cache(maxsize=64)
def _one(address: str) -> str:
    """One form for the addresses of one registry."""
    if "://" not in address:
        address = Path(os.path.abspath(os.path.expanduser(address))).as_uri()
    return address.rstrip("/")


def _limited(path: str) -> bytes:
    return disk.read_small(path, _MOST)

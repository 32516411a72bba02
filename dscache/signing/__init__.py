"""Signed registries, by The Update Framework: signing them, and believing only what is signed.

What signs and verifies are the packages `tuf` and `securesystemslib`, an extra. They are imported
here only, and only once they are needed: copies that are fresh were verified when they came. No
cryptography is implemented here. An author's side knows no network and no store:

    author   roots, signers, keys   the registry's folder and the private keys
             publishing, chain      what to upload with the files that are published
    reader   pins                   which root the user trusts for which registry
             reading, updating      registry files that are answered only once they are verified
    both     roles, verdicts        the rules, and what it means that one is broken
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from importlib import import_module

import msgspec

from dscache.errors import UsageError
from dscache.settings import Settings
from dscache.signing.keys import Keys, open_keys, refuse_inside
from dscache.signing.roles import root_versions

__all__ = [
    "Keys",
    "Renewal",
    "check",
    "init",
    "is_signed",
    "keys_of",
    "listed",
    "renewal",
    "rotate",
    "signed_as",
]


class Renewal(msgspec.Struct, frozen=True):
    """What to upload so that readers believe what is published.

    Attributes:
        files: path below the registry and content, in the order in which they must be uploaded. All
            but the last, `metadata/timestamp.json`, never change once they are there.
        obsolete: files that no reader of the present or the previous state asks for.
        notices: what the publisher should know, in words.
    """

    files: tuple[tuple[str, bytes], ...]
    obsolete: tuple[str, ...] = ()
    notices: tuple[str, ...] = ()


def is_signed(folder: str) -> bool:
    """True if the registry in an author's folder has a root, and is published signed."""
    return bool(root_versions(folder))


def keys_of(settings: Settings, registry: str, given: str = "") -> Keys:
    """Where the private keys of a registry are kept.

    Args:
        registry: its name.
        given: a folder, or `keyring:`; default: the setting `keys`, else `keys/<registry>` beside
            the user's configuration.
    """
    beside = os.path.join(os.path.dirname(settings.config_file), "keys", registry)
    return open_keys(given or settings.keys or beside)


def check(folder: str, keys: Keys) -> None:
    """Refuse what `init` would refuse, before anything is written.

    Raises:
        UsageError: the keys would be published with the registry; or the extra is missing.
    """
    refuse_inside(keys, folder)
    require()


def init(folder: str, keys: Keys) -> str:
    """Make the keys and the first root of a registry; the sha256 of the root.

    Raises:
        UsageError: the keys would be published with the registry; or the extra is missing.
        StorageError: it is signed already, or keys or root cannot be written.
    """
    check(folder, keys)
    from dscache.signing import pins, roots

    return pins.fingerprint(roots.start(folder, keys))


def rotate(folder: str, keys: Keys, *, root_key: bool = False) -> int:
    """Make a new key and the root that names it, to be published next; the version of the root.

    Args:
        root_key: the key of the root itself; else the one that signs at each publishing.

    Raises:
        UsageError: the registry is not signed, the root's key is not there, or the extra is not.
        StorageError: keys or root cannot be read or written.
    """
    check(folder, keys)
    from dscache.signing import roots

    return roots.decode(roots.rotate(folder, keys, root_key=root_key)).signed.version


def renewal(
    folder: str,
    keys: Keys,
    read: Callable[[str], bytes | None],
    changed: Mapping[str, bytes],
    last: bytes | None = None,
) -> Renewal:
    """Sign the files of a registry that are published now.

    A file of `changed` that is signed already as it is costs nothing, so in doubt it is one. If two
    publish at once, the loser finds one of its files there with other content, or `timestamp.json`
    changed: it reads the destination again and calls again. What an interrupted one has left is in
    nobody's way.

    Args:
        folder: the author's registry, which has the roots.
        keys: where the private keys are.
        read: a file of the destination by its path below the registry, or None.
        changed: registry files by their path: all that are not signed yet as they are now, which
            `listed` tells. At a destination without `metadata/timestamp.json` these are all files.
        last: the `timestamp.json` that this publisher has seen there, if any; an older one is
            refused.

    Raises:
        IntegrityError: the destination is not what the author's keys have signed, or was rolled
            back.
        UsageError: the registry is not signed, a key is missing, or the extra is.
        StorageError: keys or roots cannot be read.
    """
    require()
    from dscache.signing import publishing

    return publishing.renewal(folder, keys, read, changed, last)


def listed(folder: str, read: Callable[[str], bytes | None]) -> dict[str, str]:
    """The sha256 of every registry file that is signed at a destination, by its path.

    Raises:
        IntegrityError: the destination is not what the author's keys have signed.
        UsageError: the registry is not signed, or the extra is missing.
    """
    require()
    from dscache.signing import publishing

    return publishing.listed(folder, read)


def signed_as(folder: str, read: Callable[[str], bytes | None], file: str) -> str:
    """The sha256 of one registry file as it is signed at a destination; empty if it is not.

    Raises:
        As `listed`.
    """
    require()
    from dscache.signing import publishing

    return publishing.signed_as(folder, read, file)


def require() -> None:
    """Refuse to go on without the packages that sign and verify.

    Raises:
        UsageError: they are not installed.
    """
    try:
        for name in ("cryptography", "securesystemslib", "tuf"):
            import_module(name)
    except ImportError as error:
        raise UsageError(
            f"signed registries need the package {error.name}, which is not here",
            hint="pip install 'dscache[signed]'",
        ) from error

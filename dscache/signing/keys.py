"""Where the private keys of signed registries are kept: a folder of their owner, or the keyring of
the system.

It owns key files and their permissions; what keys sign, it does not know. A key's name holds its
role, so that people can tell the one that belongs into a safe, and the start of its key id.
"""

from __future__ import annotations

import os
from typing import Protocol

from dscache import disk, filesystem
from dscache.errors import StorageError, UsageError

KEYRING = "keyring:"

_SERVICE = "dscache"
_MOST = 64 << 10


class Keys(Protocol):
    """A place for private keys, each a PEM text (PKCS 8) under a name.

    Attributes:
        where: what people call the place.
    """

    where: str

    def load(self, name: str) -> bytes | None:
        """A key, or None if it is not here.

        Raises:
            StorageError: the place cannot be read.
        """

    def save(self, name: str, pem: bytes) -> None:
        """Keep a key.

        Raises:
            StorageError: the place does not take it, or has one of that name.
        """


def open_keys(where: str) -> Keys:
    """The keys in a folder, or with `keyring:` those in the system's keyring."""
    if where == KEYRING:
        return Keyring()
    if where.startswith(KEYRING):
        raise UsageError(f"{where!r} is no place for keys", hint=f"a folder or {KEYRING} is one")
    return KeyFolder(where)


def refuse_inside(keys: Keys, folder: str) -> None:
    """Private keys must never be published with the registry that they sign.

    Raises:
        UsageError: the keys would be in the registry's folder.
    """
    if not isinstance(keys, KeyFolder):
        return
    registry, where = os.path.realpath(folder), os.path.realpath(keys.where)
    if where == registry or where.startswith(os.path.join(registry, "")):
        raise UsageError(
            f"{keys.where} is inside the registry {folder}, and keys would be published with it",
            hint="choose another folder with --keys, or leave it out",
        )


class KeyFolder:
    """Keys in files that nobody but their owner may read."""

    def __init__(self, folder: str) -> None:
        self.where = os.path.abspath(os.path.expanduser(folder))

    def load(self, name: str) -> bytes | None:
        with disk.storage_errors("a private key cannot be read"):
            try:
                return disk.read_small(self._path(name), _MOST)
            except FileNotFoundError:
                return None

    def save(self, name: str, pem: bytes) -> None:
        path = self._path(name)
        with disk.storage_errors("a private key cannot be kept"):
            if not os.path.isdir(self.where):
                filesystem.make_folder(os.path.dirname(self.where))
                filesystem.new_folder(self.where, private=True)
            with filesystem.created(path, private=True) as fd:
                filesystem.write(fd, [pem], 0)
                filesystem.sync(fd)
            filesystem.sync_path(self.where)

    def _path(self, name: str) -> str:
        return os.path.join(self.where, f"{name}.pem")


class Keyring:
    """Keys in the keyring of the system, as the package `keyring` finds it."""

    where = "the system's keyring"

    def load(self, name: str) -> bytes | None:
        import keyring
        from keyring.errors import KeyringError

        try:
            found = keyring.get_password(_SERVICE, name)
        except KeyringError as error:
            raise _locked("read", error) from error
        return None if found is None else found.encode()

    def save(self, name: str, pem: bytes) -> None:
        import keyring
        from keyring.errors import KeyringError

        try:
            keyring.set_password(_SERVICE, name, pem.decode())
        except KeyringError as error:
            raise _locked("written", error) from error


def _locked(what: str, error: Exception) -> StorageError:
    return StorageError(
        f"the system's keyring cannot be {what}: {error}",
        hint="unlock it, or keep the keys in a folder with --keys DIR",
    )

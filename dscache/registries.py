"""The user's registries: those in use, and the `[registries]` table of the configuration file."""

from __future__ import annotations

import os
from collections.abc import MutableMapping
from typing import Any

from dscache import disk, filesystem
from dscache.call import Call
from dscache.errors import NotFound, UsageError
from dscache.events import Notice
from dscache.model import is_name
from dscache.registry import index
from dscache.registry.order import UNREADABLE, header
from dscache.results import AddedRegistry, RegistryInUse
from dscache.settings import public_address
from dscache.signing import pins, reading


def in_use(call: Call) -> list[RegistryInUse]:
    """The registries in the order of look-up, with the number of their datasets."""
    found = []
    for registry in call.lookup.registries():
        try:
            datasets = len(index.read(registry.place).datasets)
        except UNREADABLE as error:
            call.emit(Notice(f"registry {registry.name}: {error}"))
            datasets = None
        signed = pins.pinned(call.settings, registry.place.url) is not None
        found.append(RegistryInUse(registry.name, registry.place.url, datasets, signed))
    return found


def add(
    call: Call, name: str, address: str, root_file: str | os.PathLike[str] | None
) -> AddedRegistry:
    """Write a registry into the user's configuration, once it is known to be one.

    The root of a signed one is pinned: that in `root_file`, else the one that was pinned before,
    else the one that it offers.

    Raises:
        UsageError: the name or the address is malformed, or the name is in the configuration
            already for another address.
        InvalidFile: there is no registry at the address, or no root in the file.
        TransferError: the address cannot be read.
        IntegrityError: it is not signed as the root wants it.
    """
    if not is_name(name):
        raise UsageError(f"{name!r} cannot be the name of a registry")
    known = call.settings.registries.get(name)
    if known not in (None, address):
        raise UsageError(
            f"there is a registry {name!r} already: {known}",
            hint=f"choose another name, or `dscache registry remove {name}` first",
        )
    if "://" not in public_address(address):
        address = os.path.abspath(os.path.expanduser(address))
        _refuse_bytes(address)
    place = call.open_place(address)
    given = None if root_file is None else pins.given(os.fspath(root_file))
    known_root = given or pins.pinned(call.settings, address)
    root = known_root or reading.offered_root(address, call.means)
    if root:
        place = reading.open_signed(address, root, call.means)
    header(place)
    document = _read(call.settings.config_file)
    _table(document, "registries")[name] = address
    if root:
        _pin(call, document, name, root)
    _write(call.settings.config_file, document)
    fingerprint = pins.fingerprint(root) if root else ""
    return AddedRegistry(name, address, fingerprint, bool(root) and not known_root)


def _refuse_bytes(path: str) -> None:
    try:
        path.encode()
    except UnicodeEncodeError as error:
        raise UsageError(
            f"{path!r} is no UTF-8, and a configuration file holds nothing else",
            hint="give the folder another name, or name it in DSCACHE_REGISTRIES",
        ) from error


def _pin(call: Call, document: MutableMapping[str, Any], name: str, root: bytes) -> None:
    path = pins.file_of(call.settings, name)
    with disk.storage_errors(f"{path} cannot be written"):
        filesystem.publish_bytes(root, path, durable=True)
    _table(document, "roots")[name] = pins.in_configuration(name)


def remove(call: Call, name: str) -> None:
    """Take a registry out of the user's configuration. What was fetched from it stays.

    Raises:
        NotFound: there is none of that name in the configuration.
    """
    document = _read(call.settings.config_file)
    table = _table(document, "registries")
    if name not in table:
        raise NotFound(
            f"there is no registry {name!r} in {call.settings.config_file}",
            hint="`dscache registry list` shows those in use",
        )
    del table[name]
    roots = _table(document, "roots")
    path = roots.pop(name, None)
    if not roots:
        del document["roots"]
    _write(call.settings.config_file, document)
    if path == pins.in_configuration(name):
        filesystem.unlink(pins.file_of(call.settings, name))


def _read(path: str) -> MutableMapping[str, Any]:
    """The configuration with its comments and order; what is wrong in it was said at the start."""
    import tomlkit

    try:
        with open(path, encoding="utf-8-sig", newline="") as file:
            return tomlkit.load(file)
    except FileNotFoundError:
        return tomlkit.document()


def _table(document: MutableMapping[str, Any], key: str) -> MutableMapping[str, Any]:
    import tomlkit

    if key not in document:
        document[key] = tomlkit.table()
    table: MutableMapping[str, Any] = document[key]
    return table


def _write(path: str, document: MutableMapping[str, Any]) -> None:
    import tomlkit

    with disk.storage_errors(f"{path} cannot be written"):
        # A configuration that is a link into somebody's dot files stays one.
        filesystem.publish_bytes(tomlkit.dumps(document).encode(), os.path.realpath(path))

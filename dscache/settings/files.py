"""The configuration files: the user's, and the `dscache.toml` of a project."""

from __future__ import annotations

import os
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from dscache import disk
from dscache.errors import InvalidFile, UsageError
from dscache.model import Reference, is_version
from dscache.settings.keys import KEYS, PARSERS, flag, texts_by_name

PROJECT_FILE = "dscache.toml"

_MAX_FILE = 4 << 20
# A project comes with somebody else's repository. It may say which data it needs, but not run
# commands, send credentials, redirect downloads, move the cache or have anything removed from it.
_NOT_IN_PROJECTS = frozenset(
    {"auth", "rewrite", "cache_dir", "ca_bundle", "read_from", "remote", "push"}
    | {"max_size", "auto_prune", "prune_grace", "part_max_age", "quarantine_max_age"}
    | {"lease_ttl", "root_grace"}
    | {"roots", "keys"}
)


def find_project(folder: str) -> str | None:
    """The nearest folder, from `folder` upwards, that holds a `dscache.toml`."""
    while not os.access(f"{folder}/{PROJECT_FILE}", os.F_OK):
        parent = os.path.dirname(folder)
        if parent == folder:
            return None
        folder = parent
    return folder


def read_user(path: str) -> Mapping[str, Any]:
    """The settings of the user's file.

    Raises:
        InvalidFile: it is malformed; the error names file and key.
    """
    return _check(path, _toml(path), frozenset())


def read_project(path: str) -> Mapping[str, Any]:
    """The settings of a project, and its `datasets` and `locked`; raises as `read_user` does."""
    table = _toml(path)
    own = {key: table.pop(key) for key in ("datasets", "locked") if key in table}
    checked = dict(_check(path, table, _NOT_IN_PROJECTS))
    try:
        checked["datasets"] = _datasets(own.get("datasets", {}))
        checked["locked"] = flag(own.get("locked", False))
    except UsageError as error:
        raise InvalidFile(f"{path}: {error}", file=path) from error
    return MappingProxyType(checked)


def _datasets(value: object) -> Mapping[str, str]:
    """What a project asks for: versions by `[registry/]name`."""
    table = texts_by_name(value)
    for key, version in table.items():
        if Reference.parse(key).version is not None:
            raise UsageError(f"datasets: {key!r}: the version stands behind the `=`")
        if version != "*" and not is_version(version):
            raise UsageError(f'datasets: {key} = {version!r}: a version, or "*" for any')
    return table


def _toml(path: str) -> dict[str, Any]:
    from dscache import toml  # late: most users have no configuration file

    try:
        return toml.parse(disk.read_small(path, _MAX_FILE))
    except OSError as error:  # too long a file among them
        raise InvalidFile(f"{path} cannot be read: {error}", file=path) from error
    except (ValueError, RecursionError) as error:
        raise InvalidFile(f"{path} is not valid TOML: {error}", file=path) from error


def _check(path: str, table: dict[str, Any], refused: frozenset[str]) -> Mapping[str, Any]:
    limits = table.get("unpack", {})
    if not isinstance(limits, dict):
        raise InvalidFile(f"{path}: unpack: a table is expected", file=path, key="unpack")
    written = {key: value for key, value in table.items() if key != "unpack"}
    written |= {f"unpack.{key}": value for key, value in limits.items()}
    values: dict[str, Any] = {}
    for key, value in written.items():
        if key in refused:
            raise InvalidFile(
                f"{path}: {key}: a project may not set this",
                hint=f"set {key} in your own configuration file",
                file=path,
                key=key,
            )
        if key not in KEYS:
            import difflib

            near = difflib.get_close_matches(key, KEYS, 1)
            hint = f"did you mean {near[0]!r}?" if near else ""
            raise InvalidFile(f"{path}: {key}: no such setting", hint=hint, file=path, key=key)
        try:
            values[KEYS[key]] = PARSERS[KEYS[key]](value)
        except UsageError as error:
            raise InvalidFile(f"{path}: {key}: {error}", file=path, key=key) from error
    for key in values.keys() & {"registries", "roots"}:
        beside = {name: _beside(path, address) for name, address in values[key].items()}
        values[key] = MappingProxyType(beside)
    if values.get("keys") not in (None, "", "keyring:"):
        values["keys"] = _beside(path, values["keys"])
    if "read_from" in values:
        values["read_from"] = tuple(_beside(path, each) for each in values["read_from"])
    return MappingProxyType(values)


def _beside(path: str, address: str) -> str:
    """A relative folder is relative to the file that names it."""
    if "://" in address:
        return address
    return os.path.join(os.path.dirname(os.path.abspath(path)), os.path.expanduser(address))

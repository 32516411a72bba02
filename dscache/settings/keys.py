"""The settings by name: each key's type, default and meaning of what people write for it."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields, replace
from types import MappingProxyType
from typing import Any

from dscache.errors import UsageError
from dscache.model import is_name
from dscache.quantities import parse_duration, parse_size

LINK_MODES = ("auto", "reflink", "hardlink", "symlink", "copy")
NOTHING: Mapping[str, Any] = MappingProxyType({})


def flag(value: object) -> bool:
    """True or false, as people write it in files and variables."""
    if isinstance(value, bool):
        return value
    if isinstance(value, str):
        if value.lower() in ("1", "true", "yes", "on"):
            return True
        if value.lower() in ("", "0", "false", "no", "off"):
            return False
    raise UsageError(f"{value!r} is neither true (1, yes, on) nor false (0, no, off)")


def _positive(value: object) -> int:
    count = _count(value)
    if count < 1:
        raise UsageError(f"{value!r} is not a number of at least 1")
    return count


def _count(value: object) -> int:
    text = str(value)
    if isinstance(value, bool) or not (text.isascii() and text.isdigit() and len(text) < 19):
        raise UsageError(f"{value!r} is not a whole number")
    return int(text)


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise UsageError(f"{value!r} is not a text")
    return value


def _folder(value: object) -> str:
    return os.path.abspath(os.path.expanduser(_text(value)))


def _choice(*choices: str) -> Callable[[object], str]:
    def parse(value: object) -> str:
        if value not in choices:
            raise UsageError(f"{value!r} is none of {', '.join(choices)}")
        return str(value)

    return parse


def _remote(value: object) -> str:
    """A folder, made absolute, or the URL of a store; empty for none."""
    text = _text(value)
    scheme, separator, _ = text.partition("://")
    if separator and scheme.lower() not in ("s3", "gs", "az", "https", "http", "file"):
        raise UsageError(
            f"{text!r} cannot be a remote: a folder, or a URL with s3://, gs://, az:// or https://"
        )
    return text if separator or not text else _folder(text)


def _folders(value: object) -> tuple[str, ...]:
    """Folders in their order; what relative ones are relative to, who reads the value knows."""
    if not isinstance(value, (list, tuple)):
        raise UsageError(f"{value!r} is not a list of folders")
    return tuple(os.path.expanduser(_text(each)) for each in value)


def texts_by_name(value: object) -> Mapping[str, str]:
    """A table whose values are texts."""
    if not isinstance(value, dict):
        raise UsageError(f"{value!r} is not a table")
    return MappingProxyType({key: _text(each) for key, each in value.items()})


def _registries(value: object) -> Mapping[str, str]:
    table = texts_by_name(value)
    for name in table:
        if not is_name(name):
            raise UsageError(f"{name!r} cannot be the name of a registry")
    return table


@dataclass(frozen=True, slots=True)
class Auth:
    """Where the credentials for one host come from; never the credentials themselves."""

    token_env: str = ""
    command: str = ""
    user: str = ""
    password_env: str = ""


def _auth(value: object) -> Mapping[str, Auth]:
    if not isinstance(value, dict):
        raise UsageError(f"{value!r} is not a table of hosts")
    known = {each.name for each in fields(Auth)}
    hosts: dict[str, Auth] = {}
    for host, keys in value.items():
        if not isinstance(keys, dict) or not keys.keys() <= known:
            raise UsageError(f"host {host!r} takes the keys {', '.join(sorted(known))}")
        hosts[host] = Auth(**{key: _text(each) for key, each in keys.items()})
    return MappingProxyType(hosts)


def _key(default: Any, parse: Callable[[object], Any]) -> Any:
    return field(default_factory=lambda: default, metadata={"parse": parse})


@dataclass(frozen=True)
class Settings:
    """Every setting in force. The meaning of each key is in the user guide, "Settings".

    `sources` says per key where its value comes from; `project` is the folder of the nearest
    `dscache.toml`, or None, `datasets` and `locked` are its own; `extra_registries` are the paths
    and URLs of DSCACHE_REGISTRIES.
    """

    cache_dir: str = _key("", _folder)
    jobs: int = _key(16, _positive)
    limit_rate: int = _key(0, parse_size)
    connect_timeout: float = _key(10.0, parse_duration)
    stall_timeout: float = _key(30.0, parse_duration)
    stall_rate: int = _key(1024, parse_size)
    retries: int = _key(5, _count)
    max_retry_wait: float = _key(300.0, parse_duration)
    lock_timeout: float = _key(3600.0, parse_duration)
    ca_bundle: str = _key("", _text)
    durability: str = _key("lazy", _choice("lazy", "sync"))
    link: str = _key("auto", _choice(*LINK_MODES))
    keep_archives: bool = _key(True, flag)
    max_size: int = _key(0, parse_size)
    auto_prune: bool = _key(False, flag)
    prune_grace: float = _key(60.0, parse_duration)
    part_max_age: float = _key(7 * 86400.0, parse_duration)
    quarantine_max_age: float = _key(7 * 86400.0, parse_duration)
    lease_ttl: float = _key(7 * 86400.0, parse_duration)
    root_grace: float = _key(30 * 86400.0, parse_duration)
    max_unknown_size: int = _key(100 * 10**9, parse_size)
    offline: bool = _key(False, flag)
    registry_max_age: float = _key(3600.0, parse_duration)
    read_from: tuple[str, ...] = _key((), _folders)
    remote: str = _key("", _remote)
    push: bool = _key(False, flag)
    registries: Mapping[str, str] = _key(NOTHING, _registries)
    roots: Mapping[str, str] = _key(NOTHING, _registries)
    keys: str = _key("", _text)
    rewrite: Mapping[str, str] = _key(NOTHING, texts_by_name)
    auth: Mapping[str, Auth] = _key(NOTHING, _auth)
    unpack_max_members: int = _key(20_000_000, _count)
    unpack_max_bytes: int = _key(20 * 10**12, parse_size)
    unpack_max_ratio: int = _key(1000, _count)

    extra_registries: tuple[str, ...] = ()
    project: str | None = None
    datasets: Mapping[str, str] = field(default_factory=lambda: NOTHING)
    locked: bool = False
    project_registries: Mapping[str, str] = field(default_factory=lambda: NOTHING)
    config_file: str = ""
    sources: Mapping[str, str] = field(default_factory=lambda: NOTHING)

    def override(self, **arguments: Any) -> Settings:
        """These settings with the arguments of a call on top; None means "not given"."""
        given = {key: PARSERS[key](value) for key, value in arguments.items() if value is not None}
        if not given:
            return self
        sources = {**self.sources, **dict.fromkeys(given, "argument")}
        return replace(self, **given, sources=MappingProxyType(sources))


PARSERS: dict[str, Callable[[object], Any]] = {
    each.name: each.metadata["parse"] for each in fields(Settings) if "parse" in each.metadata
}
# As they stand in a file: the limits of unpacking have a table of their own.
KEYS = {
    name.replace("unpack_", "unpack.", 1) if name.startswith("unpack_") else name: name
    for name in PARSERS
}

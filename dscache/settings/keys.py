"""The settings by name: each key's type, default and meaning of what people write for it."""

import os
import urllib.parse
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Annotated, Any, Self

import msgspec
from msgspec.structs import replace

from dscache.errors import UsageError
from dscache.model import is_name
from dscache.quantities import parse_duration, parse_size
from dscache.urls import redacted

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


def public_address(value: object) -> str:
    """A folder, or a URL without what is secret: addresses are shown, logged and recorded."""
    text = _text(value)
    if "://" not in text:
        return text
    try:
        parts = urllib.parse.urlsplit(text)
        _, shown = parts.port, redacted(text)
    except ValueError as error:  # its text would show the URL
        raise UsageError("there is an address that is not a URL") from error
    if not (parts.netloc or parts.scheme == "file"):
        raise UsageError(f"{shown!r} names no host or bucket")
    if shown != text:
        raise UsageError(
            f"{shown}: an address holds no credentials, query or fragment; "
            'credentials belong into [auth."host"] of the configuration'
        )
    return text


def _remote(value: object) -> str:
    """A folder, made absolute, or the URL of a store; empty for none."""
    text = public_address(value)
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
    for name, where in table.items():
        if not is_name(name):
            raise UsageError(f"{name!r} cannot be the name of a registry")
        public_address(where)
    return table


def addresses(value: object) -> tuple[str, ...]:
    """Those in a variable, separated by semicolons."""
    texts = map(str.strip, _text(value).split(";"))
    return tuple(public_address(each) for each in texts if each)


class Auth(msgspec.Struct, frozen=True):
    """Where the credentials for one host come from; never the credentials themselves."""

    token_env: str = ""
    command: str = ""
    user: str = ""
    password_env: str = ""


def _auth(value: object) -> Mapping[str, Auth]:
    if not isinstance(value, dict):
        raise UsageError(f"{value!r} is not a table of hosts")
    known = set(Auth.__struct_fields__)
    hosts: dict[str, Auth] = {}
    for host, keys in value.items():
        if not isinstance(keys, dict) or not keys.keys() <= known:
            raise UsageError(f"host {host!r} takes the keys {', '.join(sorted(known))}")
        hosts[host] = Auth(**{key: _text(each) for key, each in keys.items()})
    return MappingProxyType(hosts)


class Settings(msgspec.Struct, frozen=True):
    """Every setting in force. The meaning of each key is in the user guide, "Settings".

    With the type of each key stands what makes a value of what people write for it.
    `sources` says per key where its value comes from; `project` is the folder of the nearest
    `dscache.toml`, or None, `datasets` and `locked` are its own; `extra_registries` are the paths
    and URLs of DSCACHE_REGISTRIES.
    """

    cache_dir: Annotated[str, _folder] = ""
    jobs: Annotated[int, _positive] = 16
    limit_rate: Annotated[int, parse_size] = 0
    connect_timeout: Annotated[float, parse_duration] = 10.0
    stall_timeout: Annotated[float, parse_duration] = 30.0
    stall_rate: Annotated[int, parse_size] = 1024
    retries: Annotated[int, _count] = 5
    max_retry_wait: Annotated[float, parse_duration] = 300.0
    lock_timeout: Annotated[float, parse_duration] = 3600.0
    ca_bundle: Annotated[str, _text] = ""
    durability: Annotated[str, _choice("lazy", "sync")] = "lazy"
    link: Annotated[str, _choice(*LINK_MODES)] = "auto"
    keep_archives: Annotated[bool, flag] = True
    max_size: Annotated[int, parse_size] = 0
    auto_prune: Annotated[bool, flag] = False
    prune_grace: Annotated[float, parse_duration] = 60.0
    part_max_age: Annotated[float, parse_duration] = 7 * 86400.0
    quarantine_max_age: Annotated[float, parse_duration] = 7 * 86400.0
    lease_ttl: Annotated[float, parse_duration] = 7 * 86400.0
    root_grace: Annotated[float, parse_duration] = 30 * 86400.0
    max_unknown_size: Annotated[int, parse_size] = 100 * 10**9
    offline: Annotated[bool, flag] = False
    registry_max_age: Annotated[float, parse_duration] = 3600.0
    read_from: Annotated[tuple[str, ...], _folders] = ()
    remote: Annotated[str, _remote] = ""
    push: Annotated[bool, flag] = False
    registries: Annotated[Mapping[str, str], _registries] = NOTHING
    roots: Annotated[Mapping[str, str], _registries] = NOTHING
    keys: Annotated[str, _text] = ""
    rewrite: Annotated[Mapping[str, str], texts_by_name] = NOTHING
    auth: Annotated[Mapping[str, Auth], _auth] = NOTHING
    unpack_max_members: Annotated[int, _count] = 20_000_000
    unpack_max_bytes: Annotated[int, parse_size] = 20 * 10**12
    unpack_max_ratio: Annotated[int, _count] = 1000

    extra_registries: tuple[str, ...] = ()
    project: str | None = None
    datasets: Mapping[str, str] = NOTHING
    locked: bool = False
    project_registries: Mapping[str, str] = NOTHING
    config_file: str = ""
    sources: Mapping[str, str] = NOTHING

    def override(self, **arguments: Any) -> Self:
        """These settings with the arguments of a call on top; None means "not given"."""
        given = {key: PARSERS[key](value) for key, value in arguments.items() if value is not None}
        if not given:
            return self
        sources = {**self.sources, **dict.fromkeys(given, "argument")}
        return replace(self, **given, sources=MappingProxyType(sources))


PARSERS: dict[str, Callable[[object], Any]] = {
    name: kind.__metadata__[0]
    for name, kind in Settings.__annotations__.items()
    if hasattr(kind, "__metadata__")
}
# As they stand in a file: the limits of unpacking have a table of their own.
KEYS = {
    name.replace("unpack_", "unpack.", 1) if name.startswith("unpack_") else name: name
    for name in PARSERS
}

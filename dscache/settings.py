"""Settings: argument, environment, project, user's file, default, in that order.

The only module that reads the environment or a configuration file. Everything else receives the
frozen `Settings`. Units: sizes in bytes, rates in bytes per second, times in seconds.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields, replace
from functools import lru_cache
from types import MappingProxyType
from typing import Any

from dscache import filesystem
from dscache.errors import InvalidFile, UsageError
from dscache.model import is_name
from dscache.quantities import parse_duration, parse_size

PROJECT_FILE = "dscache.toml"
LINK_MODES = ("auto", "reflink", "hardlink", "symlink", "copy")

_MAX_FILE = 4 << 20
_NOTHING: Mapping[str, Any] = MappingProxyType({})


def _flag(value: object) -> bool:
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


def _texts(value: object) -> tuple[str, ...]:
    if not isinstance(value, list):
        raise UsageError(f"{value!r} is not a list of texts")
    return tuple(_text(each) for each in value)


def _texts_by_name(value: object) -> Mapping[str, str]:
    if not isinstance(value, dict):
        raise UsageError(f"{value!r} is not a table")
    return MappingProxyType({key: _text(each) for key, each in value.items()})


def _registries(value: object) -> Mapping[str, str]:
    table = _texts_by_name(value)
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
    `dscache.toml`, or None; `extra_registries` are the paths and URLs of DSCACHE_REGISTRIES.
    """

    cache_dir: str = _key("", _folder)
    jobs: int = _key(16, _positive)
    limit_rate: int = _key(0, parse_size)
    connect_timeout: float = _key(10.0, parse_duration)
    stall_timeout: float = _key(30.0, parse_duration)
    retries: int = _key(5, _count)
    max_retry_wait: float = _key(300.0, parse_duration)
    lock_timeout: float = _key(3600.0, parse_duration)
    ca_bundle: str = _key("", _text)
    durability: str = _key("lazy", _choice("lazy", "sync"))
    link: str = _key("auto", _choice(*LINK_MODES))
    keep_archives: bool = _key(True, _flag)
    max_size: int = _key(0, parse_size)
    auto_prune: bool = _key(False, _flag)
    prune_grace: float = _key(60.0, parse_duration)
    part_max_age: float = _key(7 * 86400.0, parse_duration)
    quarantine_max_age: float = _key(7 * 86400.0, parse_duration)
    lease_ttl: float = _key(7 * 86400.0, parse_duration)
    root_grace: float = _key(30 * 86400.0, parse_duration)
    max_unknown_size: int = _key(100 * 10**9, parse_size)
    offline: bool = _key(False, _flag)
    registry_max_age: float = _key(3600.0, parse_duration)
    read_from: tuple[str, ...] = _key((), _texts)
    remote: str = _key("", _text)
    push: bool = _key(False, _flag)
    registries: Mapping[str, str] = _key(_NOTHING, _registries)
    rewrite: Mapping[str, str] = _key(_NOTHING, _texts_by_name)
    auth: Mapping[str, Auth] = _key(_NOTHING, _auth)
    unpack_max_members: int = _key(20_000_000, _count)
    unpack_max_bytes: int = _key(20 * 10**12, parse_size)
    unpack_max_ratio: int = _key(1000, _count)

    extra_registries: tuple[str, ...] = ()
    project: str | None = None
    project_registries: Mapping[str, str] = field(default_factory=lambda: _NOTHING)
    config_file: str = ""
    sources: Mapping[str, str] = field(default_factory=lambda: _NOTHING)

    def override(self, **arguments: Any) -> Settings:
        """These settings with the arguments of a call on top; None means "not given"."""
        given = {key: _PARSERS[key](value) for key, value in arguments.items() if value is not None}
        sources = {**self.sources, **dict.fromkeys(given, "argument")}
        return replace(self, **given, sources=MappingProxyType(sources)) if given else self


_PARSERS: dict[str, Callable[[object], Any]] = {
    each.name: each.metadata["parse"] for each in fields(Settings) if "parse" in each.metadata
}
# As they stand in a file: the limits of unpacking have a table of their own.
_KEYS = {
    name.replace("unpack_", "unpack.", 1) if name.startswith("unpack_") else name: name
    for name in _PARSERS
}
_ENVIRONMENT = {
    "cache_dir": "DSCACHE_DIR",
    "jobs": "DSCACHE_JOBS",
    "offline": "DSCACHE_OFFLINE",
    "remote": "DSCACHE_REMOTE",
}
_CA_VARIABLES = ("SSL_CERT_FILE", "CURL_CA_BUNDLE", "REQUESTS_CA_BUNDLE")
_READ = (
    *_ENVIRONMENT.values(),
    *_CA_VARIABLES,
    "DSCACHE_CONFIG",
    "DSCACHE_REGISTRIES",
    # What the folders of the platform depend on.
    *(("LOCALAPPDATA",) if os.name == "nt" else ("HOME", "XDG_CACHE_HOME", "XDG_CONFIG_HOME")),
)
_CONFIG = _READ.index("DSCACHE_CONFIG")
_FOLDERS = _READ.index("DSCACHE_REGISTRIES") + 1
# A project comes with somebody else's repository. It may say which data it needs, but not run
# commands, send credentials, redirect downloads or move the cache.
_NOT_IN_PROJECTS = frozenset({"auth", "rewrite", "cache_dir", "ca_bundle", "remote", "push"})


def load(**arguments: Any) -> Settings:
    """The settings in force now, here, with `arguments` on top.

    Raises:
        InvalidFile: a configuration file is malformed; the error names file and key.
        UsageError: an argument or environment variable has no sensible value.
    """
    environment = tuple(map(os.environ.get, _READ))
    user_file = environment[_CONFIG] or _platform_folders(environment[_FOLDERS:])[1]
    project = find_project(_working_folder())
    user = filesystem.parsed(user_file, _read_user) or _NOTHING
    project_file = os.path.join(project, PROJECT_FILE) if project else ""
    local = (filesystem.parsed(project_file, _read_project) if project else None) or _NOTHING
    settings = _combine(environment, user_file, _Same(user), project, _Same(local))
    return settings.override(**arguments) if arguments else settings


def _working_folder() -> str:
    try:
        return os.getcwd()
    except FileNotFoundError:  # somebody removed it under our feet
        return os.sep


def config_path() -> str:
    """The user's configuration file: DSCACHE_CONFIG, else the platform's place for it."""
    found = tuple(map(os.environ.get, _READ))
    return found[_CONFIG] or _platform_folders(found[_FOLDERS:])[1]


@lru_cache(maxsize=4)
def _platform_folders(_variables: tuple[str | None, ...]) -> tuple[str, str]:
    import platformdirs

    return (
        platformdirs.user_cache_dir("dscache", appauthor=False),
        os.path.join(platformdirs.user_config_dir("dscache", appauthor=False), "config.toml"),
    )


def find_project(folder: str) -> str | None:
    """The nearest folder, from `folder` upwards, that holds a `dscache.toml`."""
    while not os.access(f"{folder}/{PROJECT_FILE}", os.F_OK):
        parent = os.path.dirname(folder)
        if parent == folder:
            return None
        folder = parent
    return folder


class _Same:
    """Wraps a parsed file so that it can be a key of a memo: equal only to itself."""

    def __init__(self, table: Mapping[str, Any]) -> None:
        self.table = table

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Same) and other.table is self.table

    def __hash__(self) -> int:
        return id(self.table)


@lru_cache(maxsize=16)
def _combine(
    environment: tuple[str | None, ...],
    user_file: str,
    user: _Same,
    project: str | None,
    local: _Same,
) -> Settings:
    variables = dict(zip(_READ, environment, strict=True))
    values: dict[str, Any] = {"cache_dir": _platform_folders(environment[_FOLDERS:])[0]}
    sources = dict.fromkeys(_PARSERS, "default")
    project_file = os.path.join(project, PROJECT_FILE) if project else ""
    for table, source in ((user.table, user_file), (local.table, project_file)):
        shared = {key: value for key, value in table.items() if key in _PARSERS}
        if source == project_file:
            shared.pop("registries", None)
        values |= shared
        sources |= dict.fromkeys(shared, source)
    for key, variable in _ENVIRONMENT.items():
        if (text := variables[variable]) is not None and text != "":
            values[key] = _named(variable, _PARSERS[key], text)
            sources[key] = variable
    if not values.get("ca_bundle"):
        for variable in _CA_VARIABLES:
            if variables[variable]:
                values["ca_bundle"], sources["ca_bundle"] = variables[variable], variable
                break
    extra = (variables["DSCACHE_REGISTRIES"] or "").split(";")
    return Settings(
        **values,
        extra_registries=tuple(each.strip() for each in extra if each.strip()),
        project=project,
        project_registries=local.table.get("registries", _NOTHING),
        config_file=user_file,
        sources=MappingProxyType(sources),
    )


def _named(name: str, parse: Callable[[object], Any], value: object) -> Any:
    try:
        return parse(value)
    except UsageError as error:
        raise UsageError(f"{name}: {error}") from error


def _read_user(path: str) -> Mapping[str, Any]:
    return _check(path, _toml(path), frozenset())


def _read_project(path: str) -> Mapping[str, Any]:
    table = _toml(path)
    own = {key: table.pop(key) for key in ("datasets", "locked") if key in table}
    checked = dict(_check(path, table, _NOT_IN_PROJECTS))
    try:
        checked["datasets"] = _texts_by_name(own.get("datasets", {}))
        checked["locked"] = _flag(own.get("locked", False))
    except UsageError as error:
        raise InvalidFile(f"{path}: {error}", file=path) from error
    return MappingProxyType(checked)


def _toml(path: str) -> dict[str, Any]:
    import tomllib  # late: most users have no configuration file

    try:
        return tomllib.loads(filesystem.read_small(path, _MAX_FILE).decode())
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
        if key not in _KEYS:
            import difflib

            near = difflib.get_close_matches(key, _KEYS, 1)
            hint = f"did you mean {near[0]!r}?" if near else ""
            raise InvalidFile(f"{path}: {key}: no such setting", hint=hint, file=path, key=key)
        try:
            values[_KEYS[key]] = _PARSERS[_KEYS[key]](value)
        except UsageError as error:
            raise InvalidFile(f"{path}: {key}: {error}", file=path, key=key) from error
    if "registries" in values:
        values["registries"] = _beside(path, values["registries"])
    return MappingProxyType(values)


def _beside(path: str, registries: Mapping[str, str]) -> Mapping[str, str]:
    """Registries with relative folders, which are relative to the file that names them."""
    folder = os.path.dirname(os.path.abspath(path))
    return MappingProxyType(
        {
            name: address if "://" in address else os.path.join(folder, os.path.expanduser(address))
            for name, address in registries.items()
        }
    )


def environment_variable(name: str) -> str | None:
    """The value of a variable that a setting names, such as `token_env`."""
    return os.environ.get(name)

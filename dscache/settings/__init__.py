"""Settings: argument, environment, project, user's file, default, in that order.

The only package that reads the environment or a configuration file. Everything else receives the
frozen `Settings`. Units: sizes in bytes, rates in bytes per second, times in seconds.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from functools import lru_cache
from types import MappingProxyType
from typing import Any

from dscache import disk
from dscache.errors import DscacheError, InvalidFile, UsageError
from dscache.settings.files import PROJECT_FILE, find_project, read_project, read_user
from dscache.settings.keys import (
    LINK_MODES,
    NOTHING,
    PARSERS,
    Auth,
    Settings,
    addresses,
    public_address,
)

__all__ = [
    "LINK_MODES",
    "Auth",
    "Settings",
    "endpoint",
    "environment_variable",
    "load",
    "public_address",
    "salvaged",
]

_ENVIRONMENT = {
    "cache_dir": "DSCACHE_DIR",
    "jobs": "DSCACHE_JOBS",
    "offline": "DSCACHE_OFFLINE",
    "remote": "DSCACHE_REMOTE",
    "keys": "DSCACHE_KEYS",
}
# Where an object store is that is not its provider's own, by protocol.
_ENDPOINTS = {
    "s3": ("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL", "AWS_ENDPOINT"),
    "az": ("AZURE_ENDPOINT", "AZURE_STORAGE_ENDPOINT"),
}
_EXTRA = "DSCACHE_REGISTRIES"
_CA_VARIABLES = ("SSL_CERT_FILE", "CURL_CA_BUNDLE", "REQUESTS_CA_BUNDLE")
_READ = (
    *_ENVIRONMENT.values(),
    *_CA_VARIABLES,
    "DSCACHE_CONFIG",
    _EXTRA,
    # What the folders of the platform depend on.
    *(("LOCALAPPDATA",) if os.name == "nt" else ("HOME", "XDG_CACHE_HOME", "XDG_CONFIG_HOME")),
)
_CONFIG = _READ.index("DSCACHE_CONFIG")
_FOLDERS = _READ.index(_EXTRA) + 1


def load(**arguments: Any) -> Settings:
    """The settings in force now, here, with `arguments` on top.

    Raises:
        InvalidFile: a configuration file is malformed; the error names file and key.
        UsageError: an argument or environment variable has no sensible value.
    """
    environment = tuple(map(os.environ.get, _READ))
    user_file = environment[_CONFIG] or _platform_folders(environment[_FOLDERS:])[1]
    project = find_project(_working_folder())
    user = _table(user_file, read_user)
    local = _table(f"{project}/{PROJECT_FILE}", read_project) if project else NOTHING
    settings = _combine(environment, user_file, _Same(user), project, _Same(local))
    return settings.override(**arguments) if arguments else settings


def salvaged(**arguments: Any) -> tuple[Settings, list[DscacheError]]:
    """The settings without the files and variables that cannot be used, and what is wrong there.

    For who must go on all the same; `load` is for everybody else.
    """
    environment = list(map(os.environ.get, _READ))
    user_file = environment[_CONFIG] or _platform_folders(tuple(environment[_FOLDERS:]))[1]
    project = find_project(_working_folder())
    tables: list[Mapping[str, Any]] = []
    problems: list[DscacheError] = []
    for path, read in ((user_file, read_user), (f"{project}/{PROJECT_FILE}", read_project)):
        try:
            tables.append(_table(path, read))
        except InvalidFile as error:
            tables.append(NOTHING)
            problems.append(error)
    parsers = {variable: PARSERS[key] for key, variable in _ENVIRONMENT.items()}
    for variable, parse in {**parsers, _EXTRA: addresses}.items():
        place = _READ.index(variable)
        try:
            _named(variable, parse, environment[place] or "1")
        except UsageError as error:
            environment[place] = None
            problems.append(error)
    user, local = map(_Same, tables)
    settings = _combine(tuple(environment), user_file, user, project, local)
    return (settings.override(**arguments) if arguments else settings), problems


def _table(path: str, read: Callable[[str], Mapping[str, Any]]) -> Mapping[str, Any]:
    try:
        return disk.parsed(path, read) or NOTHING
    except OSError as error:
        raise InvalidFile(f"{path} cannot be read: {error.strerror}", file=path) from error


def _working_folder() -> str:
    try:
        return os.getcwd()
    except FileNotFoundError:  # somebody removed it under our feet
        return os.sep


@lru_cache(maxsize=4)
def _platform_folders(_variables: tuple[str | None, ...]) -> tuple[str, str]:
    import platformdirs

    return (
        platformdirs.user_cache_dir("dscache", appauthor=False),
        os.path.join(platformdirs.user_config_dir("dscache", appauthor=False), "config.toml"),
    )


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
    values: dict[str, Any] = {}
    sources = dict.fromkeys(PARSERS, "default")
    project_file = os.path.join(project, PROJECT_FILE) if project else ""
    for table, source in ((user.table, user_file), (local.table, project_file)):
        shared = {key: value for key, value in table.items() if key in PARSERS}
        if source == project_file:
            shared.pop("registries", None)
        values |= shared
        sources |= dict.fromkeys(shared, source)
    for key, variable in _ENVIRONMENT.items():
        if (text := variables[variable]) is not None and text != "":
            values[key] = _named(variable, PARSERS[key], text)
            sources[key] = variable
    if "cache_dir" not in values:
        values["cache_dir"] = _platform_folders(environment[_FOLDERS:])[0]
    if not values.get("ca_bundle"):
        for variable in _CA_VARIABLES:
            if variables[variable]:
                values["ca_bundle"], sources["ca_bundle"] = variables[variable], variable
                break
    return Settings(
        **values,
        extra_registries=_named(_EXTRA, addresses, variables[_EXTRA] or ""),
        project=project,
        datasets=local.table.get("datasets", NOTHING),
        locked=local.table.get("locked", False),
        project_registries=local.table.get("registries", NOTHING),
        config_file=user_file,
        sources=MappingProxyType(sources),
    )


def _named(name: str, parse: Callable[[object], Any], value: object) -> Any:
    try:
        return parse(value)
    except UsageError as error:
        raise UsageError(f"{name}: {error}") from error


def environment_variable(name: str) -> str | None:
    """The value of a variable that a setting names, such as `token_env`."""
    return os.environ.get(name)


def endpoint(scheme: str) -> str:
    """Where the user's object store is, for one that is not its provider's own; else empty."""
    for variable in _ENDPOINTS.get(scheme, ()):
        if text := os.environ.get(variable):
            return text
    return ""

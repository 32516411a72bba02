"""Patching: which functions of torchvision are replaced, whether they fit, and how they come back.

torchvision offers no hook, and its datasets import these functions by name; so the name is replaced
in every module of `torchvision.datasets` that has it. A replacement carries the original; what is
in force stands in torchvision's modules and nowhere else. One that somebody has kept beyond
`disable` does what the original does.
"""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable, Iterator, Mapping
from functools import wraps
from importlib import metadata
from types import ModuleType
from typing import Any

from torchvision.datasets import imagenet, utils

from dscache.errors import UsageError
from dscache.integrations.torchvision.routes import Routes

#: The versions whose functions were compared with what is expected here.
KNOWN = "0.15 to 0.29"

_REPLACED: Mapping[str, ModuleType] = {
    "check_integrity": utils,
    "download_and_extract_archive": utils,
    "download_url": utils,
    "extract_archive": utils,
    "_verify_archive": imagenet,
    "parse_train_archive": imagenet,
}
#: What the replacements call besides, and its parameters.
_CALLED = {
    "_detect_file_type": ("file",),
    "_get_google_drive_file_id": ("url",),
    "calculate_md5": ("fpath", f"chunk_size={1 << 20}"),
}
_ROUTES = "_dscache_routes"


def check() -> None:
    """Make sure that every function is there and takes what it is expected to take.

    Raises:
        UsageError: one does not; says which.
    """
    problems = [
        *(_misfit(name, home, _replacing(name)) for name, home in _REPLACED.items()),
        *(_misfit(name, utils, parameters) for name, parameters in _CALLED.items()),
    ]
    if found := "; ".join(filter(None, problems)):
        version = metadata.version("torchvision")
        raise UsageError(
            f"torchvision {version} does not fit: {found}; nothing was changed",
            hint=f"known are {KNOWN}: use one of these, or a newer dscache",
            version=version,
        )


def originals() -> dict[str, Callable[..., Any]]:
    """torchvision's own functions, whatever is in force."""
    return {name: _original(getattr(home, name)) for name, home in _REPLACED.items()}


def current() -> Routes | None:
    """What is in force; None for torchvision's own functions."""
    return getattr(utils.download_url, _ROUTES, None)


def put(routes: Routes | None) -> None:
    """Put routes in force, or torchvision's own functions."""
    own = originals()
    new = {name: _replacement(name, own[name], routes) if routes else own[name] for name in own}
    for module in _modules():
        for name, original in own.items():
            if _original(vars(module).get(name)) is original:
                setattr(module, name, new[name])


def _modules() -> Iterator[ModuleType]:
    for name, module in list(sys.modules.items()):
        if module and f"{name}.".startswith("torchvision.datasets."):
            yield module


def _replacement(name: str, original: Callable[..., Any], routes: Routes) -> Callable[..., Any]:
    @wraps(original)
    def replacement(*args: Any, **kwargs: Any) -> Any:
        in_force = current()
        function = getattr(in_force, name) if in_force else original
        return function(*args, **kwargs)

    setattr(replacement, _ROUTES, routes)
    return replacement


def _original(function: Any) -> Any:
    return function.__wrapped__ if hasattr(function, _ROUTES) else function


def _misfit(name: str, home: ModuleType, expected: tuple[str, ...]) -> str:
    """What is wrong with a function of torchvision; empty if nothing is."""
    function = getattr(home, name, None)
    if not callable(function):
        return f"there is no {home.__name__}.{name}"
    found = _parameters(function)
    if found != expected:
        return f"{name} takes ({', '.join(found)}) instead of ({', '.join(expected)})"
    return ""


def _replacing(name: str) -> tuple[str, ...]:
    return _parameters(getattr(Routes, name))[1:]  # without `self`


def _parameters(function: Callable[..., Any]) -> tuple[str, ...]:
    """The names of its parameters, with their defaults where they have some."""
    return tuple(
        each.name if each.default is each.empty else f"{each.name}={each.default!r}"
        for each in inspect.signature(function).parameters.values()
    )

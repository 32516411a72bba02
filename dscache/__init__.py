"""One verified copy of every dataset per machine: fetch by name, share by hash.

    import dscache
    path = dscache.fetch("penguins")

Names are imported when they are first used, so that `import dscache` costs next to nothing.
"""

from __future__ import annotations

TYPE_CHECKING = False  # as type checkers know it; importing `typing` would be half of the cost

if TYPE_CHECKING:
    from dscache import errors, events
    from dscache.api import fetch, fetch_many, path, retrieve
    from dscache.cache import Cache
    from dscache.downloader import ParallelDownloader
    from dscache.progress import bars

__version__ = "0.1.0"

__all__ = [
    "Cache",
    "ParallelDownloader",
    "bars",
    "errors",
    "events",
    "fetch",
    "fetch_many",
    "path",
    "retrieve",
]

_HOMES = {
    "Cache": "dscache.cache",
    "ParallelDownloader": "dscache.downloader",
    "bars": "dscache.progress",
    "fetch": "dscache.api",
    "fetch_many": "dscache.api",
    "path": "dscache.api",
    "retrieve": "dscache.api",
}


def __getattr__(name: str) -> object:
    from importlib import import_module

    if name in ("errors", "events"):
        return import_module(f"dscache.{name}")
    if name not in _HOMES:
        raise AttributeError(f"module 'dscache' has no attribute {name!r}")
    found = getattr(import_module(_HOMES[name]), name)
    globals()[name] = found
    return found


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})

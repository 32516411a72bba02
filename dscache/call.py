"""A call: what one verb needs while it runs, made for it and ended with it.

Settings, store, sources and look-up belong together for one call only, so that no handle, loop or
thread outlives it: a fork or a notebook's event loop never meets one.
"""

from __future__ import annotations

import os
from functools import cached_property
from types import TracebackType
from typing import TYPE_CHECKING

from dscache.errors import UsageError
from dscache.events import Emit
from dscache.registry.lookup import Lookup
from dscache.registry.places import Folder, Place, Prefix, limit_of
from dscache.settings import Settings
from dscache.store import Store

if TYPE_CHECKING:
    from dscache.sources.dispatch import Sources
    from dscache.sources.retry import Policy
    from dscache.sources.small import Answer


class Call:
    """The parts of one call. Use it as a context manager."""

    def __init__(self, settings: Settings, emit: Emit) -> None:
        self.settings = settings
        self.emit = emit
        self.store = Store(
            settings.cache_dir,
            durability=settings.durability,
            lock_timeout=settings.lock_timeout,
        )
        self.lookup = Lookup(settings, self.open_place, emit)

    def __enter__(self) -> Call:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if "sources" in self.__dict__:
            self.sources.close()

    @cached_property
    def sources(self) -> Sources:
        """What serves URLs; made on first use, since a hit needs none."""
        from dscache.sources.dispatch import Sources

        return Sources(self.settings, self.store.layout.parts, self.emit)

    @property
    def policy(self) -> Policy:
        """How often and how long to try again."""
        from dscache.sources.retry import policy_of

        return policy_of(self.settings)

    def open_place(self, address: str) -> Place:
        """The registry files at an address: a folder, a `file:` URL or an http(s) prefix.

        Raises:
            UsageError: no registry can be at such an address.
        """
        scheme, separator, _ = address.partition("://")
        if not separator:
            return Folder(address)
        if scheme == "file":
            from dscache.sources.file import path_of

            return Folder(path_of(address))
        if scheme not in ("http", "https"):
            raise UsageError(
                f"{address!r} cannot be a registry",
                hint="a folder, or a URL that begins with https:// or http://, can be one",
            )
        return Prefix(
            address,
            self._read,
            self.store.layout.registry(address),
            max_age=self.settings.registry_max_age,
            offline=self.settings.offline,
            emit=self.emit,
        )

    def _read(self, url: str, known: str) -> Answer:
        from dscache.sources.small import read_small

        return read_small(self.sources, url, limit=limit_of(url), policy=self.policy, known=known)


def folder_of(path: str | os.PathLike[str]) -> str:
    """An absolute path for what a user wrote."""
    return os.path.abspath(os.path.expanduser(os.fspath(path)))

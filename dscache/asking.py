"""Asking: the verbs on registries and what they offer. `Cache` has them beside those that fetch."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import AbstractContextManager

from dscache.call import Call, begun
from dscache.events import Progress
from dscache.keeping import Keeping, StrPath
from dscache.model import Reference
from dscache.results import AddedRegistry, Available, Info, Listing, RegistryInUse
from dscache.wishes import Wish

Patterns = str | Iterable[str]


def patterns_of(files: Patterns | None) -> tuple[str, ...]:
    """What a caller means by `files=`."""
    if files is None:
        return ()
    return (files,) if isinstance(files, str) else tuple(files)


class Asking(Keeping):
    """The registries in use, and the datasets they offer."""

    def files(
        self, name: str, *, files: Patterns | None = None, progress: Progress | None = None
    ) -> Listing:
        """The files of a dataset by name; of what is listed in a manifest, that alone is fetched.

        Args:
            files: patterns, as for `fetch`.
            progress: as for `fetch`.

        Raises:
            NotCached: what an archive holds is asked for, and it is not in the cache.
            NotFound: no registry in use has the dataset, or no file matches.
            TransferError, IntegrityError, UsageError, InvalidFile: as `fetch`.
        """
        from dscache import listing

        with self._open(progress) as call:
            dataset = call.find(name)
            return listing.files(call, Wish(dataset, patterns_of(files)))

    def available(self, text: str = "", *, progress: Progress | None = None) -> list[Available]:
        """The datasets that the registries offer; with `text`, those in which it occurs."""
        from dscache import catalog

        with self._open(progress) as call:
            return catalog.available(call, text)

    def info(self, name: str, *, progress: Progress | None = None) -> Info:
        """All that is known of a dataset; its bytes are not needed."""
        from dscache import catalog

        with self._open(progress) as call:
            return catalog.info(call, Reference.parse(name))

    def export(self, name: str, *, progress: Progress | None = None) -> str:
        """A dataset as a Pooch registry file: lines of name, hash and URL."""
        from dscache import exporting

        with self._open(progress) as call:
            return exporting.pooch_registry(call, Reference.parse(name))

    def registries(self, *, progress: Progress | None = None) -> list[RegistryInUse]:
        """The registries in use, in the order of look-up."""
        from dscache import registries

        with self._open(progress) as call:
            return registries.in_use(call)

    def has_registry(self, name: str) -> bool:
        """True if a registry in use has that name; quick, since only those are read that name
        themselves.
        """
        with self._open() as call:
            return call.lookup.has_registry(name)

    def add_registry(
        self,
        name: str,
        address: str,
        *,
        root: StrPath | None = None,
        progress: Progress | None = None,
    ) -> AddedRegistry:
        """Write a registry into the user's configuration, once it is known to be one.

        The root of a signed one is pinned: from then on nothing unsigned of it is believed.

        Args:
            root: file with its root, got from somebody you trust; default: the one that was pinned
                for it, else the one that its server sends.

        Raises:
            UsageError: the name is malformed, or taken.
            InvalidFile: there is no registry at the address, or no root in the file.
            TransferError: the address cannot be read.
            IntegrityError: it is not signed as the root wants it.
        """
        from dscache import registries

        with self._asking_now(progress) as call:
            return registries.add(call, name, address, root)

    def remove_registry(self, name: str) -> None:
        """Take a registry out of the user's configuration; what was fetched from it stays.

        Raises:
            NotFound: there is none of that name.
        """
        from dscache import registries

        with self._open() as call:
            registries.remove(call, name)

    def _asking_now(self, progress: Progress | None) -> AbstractContextManager[Call]:
        """A call that asks remote registries now, whatever they said a moment ago."""
        return begun(self.settings.override(registry_max_age=0), progress)

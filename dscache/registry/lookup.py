"""Look-up: from a reference to a dataset, through the registries in order.

Order for a bare name: project, DSCACHE_REGISTRIES, user's configuration, bundled. One small file is
read per registry and name, never a whole registry. A registry that cannot be read stops a bare
look-up, since skipping it would change what the name means.
"""

from __future__ import annotations

import difflib
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import lru_cache

from dscache.errors import (
    DscacheError,
    InvalidFile,
    NotFound,
    TransferError,
    UsageError,
)
from dscache.events import Emit, Notice
from dscache.model import Dataset, Reference
from dscache.registry import index
from dscache.registry.entries import (
    Alias,
    Document,
    Entry,
    RegistryEntry,
    decode_header,
    located,
)
from dscache.registry.places import Folder, Place, Prefix
from dscache.settings import Settings


@dataclass(frozen=True, slots=True)
class Registry:
    """A registry in use, under the name that the user knows."""

    name: str
    place: Place


def bundled_folder() -> str:
    """Where the bundled registries are: in the installed package, or beside it in a checkout."""
    package = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
    installed = os.path.join(package, "bundled")
    if os.path.isdir(installed):
        return installed
    return os.path.join(os.path.dirname(package), "registries")


class Lookup:
    """The registries of one call, in order."""

    def __init__(self, settings: Settings, open_place: Callable[[str], Place], emit: Emit) -> None:
        self._settings = settings
        self._open = open_place
        self._emit = emit
        self._offline = settings.offline

    def find(self, reference: Reference) -> Dataset:
        """The dataset that a reference means.

        Raises:
            NotFound: no registry in use has it; names near it are given.
            TransferError: a registry that might have it cannot be read.
            InvalidFile, UnsafeError: its entry breaks a rule of the format.
        """
        stale: list[Registry] = []
        for registry in self._candidates(reference):
            found = self._find_in(registry, reference)
            if found:
                return found
            if isinstance(registry.place, Prefix) and registry.place.used_copy_of_nothing:
                stale.append(Registry(registry.name, registry.place.refreshed()))
        for registry in stale if not self._offline else ():
            if found := self._find_in(registry, reference):
                return found
        raise self._not_found(reference)

    def also_in(self, found: Dataset) -> list[str]:
        """The other registries that can be read and have a dataset of that name."""
        others = []
        for registry in self.registries():
            if registry.name == found.registry:
                continue
            try:
                if self._entry(registry, Reference(found.name)):
                    others.append(registry.name)
            except DscacheError as error:
                self._emit(Notice(f"registry {registry.name}: {error}"))
        return others

    def versions(self, found: Dataset) -> list[str]:
        """The versions of a dataset that its registry lists; at least its own."""
        registry = next(each for each in self.registries() if each.name == found.registry)
        known = {found.version}
        if (files := registry.place.names()) is not None:
            start, end = f"{found.name}@", ".toml"
            known |= {
                file[len(start) : -len(end)]
                for file in files
                if file.startswith(start) and file.endswith(end)
            }
        elif row := self._row(registry, found.name):
            known |= set(row.versions)
        return sorted(known)

    def available(self) -> Iterator[tuple[Registry, str, index.Row]]:
        """Every dataset of every registry that can be read, hidden ones included."""
        for registry in self.registries():
            try:
                rows = index.read(registry.place).datasets
            except (TransferError, InvalidFile) as error:
                self._emit(Notice(f"registry {registry.name} is left out: {error}"))
                continue
            for name, row in rows.items():
                yield registry, name, row

    def registries(self) -> list[Registry]:
        """All registries in use, in order.

        Raises:
            UsageError: two of the user's registries have one name.
            TransferError: one named only by its address cannot be read, so its name is unknown.
        """
        return list(self._registries())

    def _registries(self) -> Iterator[Registry]:
        seen: dict[str, str] = {}
        for name, address in self._users():
            place = self._open(address)
            if name is None:
                try:
                    name = self._own_name(place)
                except TransferError as error:
                    if not self._offline:
                        raise _unreadable(address, error) from error
                    self._emit(Notice(f"registry {address} is left out: {error}"))
                    continue
            if seen.get(name, place.base) != place.base:
                raise UsageError(
                    f"two registries are named {name!r}: {seen[name]} and {place.base}",
                    hint="name one of them otherwise in [registries] of the configuration",
                )
            if name not in seen:
                seen[name] = place.base
                yield Registry(name, place)
        for registry in _bundled():
            if registry.name in seen:
                notice = f"{seen[registry.name]} takes the place of the bundled {registry.name!r}"
                self._emit(Notice(notice))
            else:
                yield registry

    def _users(self) -> Iterator[tuple[str | None, str]]:
        yield from self._settings.project_registries.items()
        yield from ((None, address) for address in self._settings.extra_registries)
        yield from self._settings.registries.items()

    def _own_name(self, place: Place) -> str:
        return header(place).name

    def _candidates(self, reference: Reference) -> Iterator[Registry]:
        if reference.registry is None:
            yield from self._registries()
            return
        known = []
        for registry in self._named_registries(reference.registry):
            known.append(registry.name)
            if registry.name == reference.registry:
                yield registry
                return
        raise NotFound(
            f"there is no registry {reference.registry!r}",
            hint=f"in use are {', '.join(known)}; `dscache registry add NAME URL` adds one",
            registry=reference.registry,
        )

    def _named_registries(self, wanted: str) -> Iterator[Registry]:
        """The registries, those with a given name first: others may be out of reach."""
        given = [(name, address) for name, address in self._users() if name == wanted]
        if len({address for _, address in given}) == 1:
            yield Registry(wanted, self._open(given[0][1]))
        yield from self._registries()

    def _find_in(self, registry: Registry, reference: Reference) -> Dataset | None:
        try:
            found = self._entry(registry, reference)
        except TransferError as error:
            if self._offline and reference.registry is None:
                self._emit(Notice(f"registry {registry.name} is left out: {error}"))
                return None
            raise _unreadable(registry.name, error) from error
        if found is None:
            return None
        name, file, document = found
        for problem in document.problems:
            raise problem.located(f"{registry.place.base}{file}")
        return document.dataset(name, registry.name, registry.place.base)

    def _entry(self, registry: Registry, reference: Reference) -> tuple[str, str, Document] | None:
        """Name, file and content of the entry that a reference means, aliases resolved."""
        name, version = reference.name, reference.version
        if version:
            file = f"{name}@{version}.toml"
            document = self._document(registry, file)
            if document and isinstance(document.entry, Entry):
                return name, file, document
        file = f"{name}.toml"
        document = self._document(registry, file)
        if document is None:
            return None
        if isinstance(document.entry, Alias):
            target = replace(reference, name=document.entry.see)
            return self._entry(registry, target) if target != reference else None
        return (name, file, document) if version in (None, document.entry.version) else None

    def _document(self, registry: Registry, file: str) -> Document | None:
        document = registry.place.document(file)
        for key in document.unknown if document else ():
            self._emit(Notice(f"{registry.place.base}{file}: {key}: unknown key, ignored"))
        return document

    def _row(self, registry: Registry, name: str) -> index.Row | None:
        try:
            return index.read(registry.place).datasets.get(name)
        except (TransferError, InvalidFile):
            return None  # an index is a convenience; look-ups never depend on it

    def _not_found(self, reference: Reference) -> NotFound:
        if reference.version:
            bare = replace(reference, version=None)
            try:
                other = self.find(bare)
            except NotFound:
                return self._not_found(bare)
            versions = self.versions(other)
            return NotFound(
                f"{bare} has no version {reference.version!r}",
                hint=f"there is {', '.join(versions)}",
                name=reference.name,
                versions=versions,
            )
        names = {name for _, name, row in self.available()}
        names |= {alias for _, _, row in self.available() for alias in row.aliases}
        near = difflib.get_close_matches(reference.name, sorted(names), 3, 0.6)
        hint = f"did you mean {' or '.join(near)}?" if near else "`dscache search TEXT` may help"
        return NotFound(f"no dataset {reference}", hint=hint, name=reference.name, near=near)


def header(place: Place) -> RegistryEntry:
    """The `registry.toml` of a registry.

    Raises:
        InvalidFile: there is none, it is malformed, or of a format that this version does not know.
    """
    where = f"{place.base}registry.toml"
    data = place.read("registry.toml")
    if data is None:
        raise InvalidFile(
            f"{place.url} is no registry: it has no registry.toml",
            hint="`dscache registry init DIR` makes one",
            file=where,
        )
    try:
        return decode_header(data)
    except InvalidFile as error:
        raise located(error, where) from error


def _unreadable(name: str, error: TransferError) -> TransferError:
    return TransferError(
        f"registry {name} cannot be read: {error}",
        hint="name another one (`registry/name`), or use offline mode to go on without it",
        **error.facts,
    )


@lru_cache(maxsize=1)
def _bundled() -> tuple[Registry, ...]:
    """The registries that come with the package; they do not change while a process runs."""
    root = bundled_folder()
    names = sorted(name for name in os.listdir(root) if os.path.isdir(f"{root}/{name}"))
    return tuple(Registry(name, Folder(f"{root}/{name}")) for name in names)

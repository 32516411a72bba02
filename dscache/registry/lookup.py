"""Look-up: from a reference to a dataset, through the registries in order.

One small file is read per registry and name, never a whole registry. A registry that cannot be
read stops a bare look-up, since skipping it would change what the name means.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Protocol

from msgspec.structs import replace

from dscache.errors import (
    DscacheError,
    InvalidFile,
    NotCached,
    NotFound,
    TransferError,
)
from dscache.events import Emit, Event, Notice
from dscache.model import Dataset, Reference, is_version, version_order
from dscache.registry.entries import Document
from dscache.registry.order import UNREADABLE, Registries, Registry, unreadable
from dscache.registry.places import Place
from dscache.registry.rules import Problem
from dscache.registry.tables import Alias, Entry
from dscache.settings import Settings

if TYPE_CHECKING:
    from dscache.registry import index


class Project(Protocol):
    """A project, in which some names mean what was locked."""

    def find(self, reference: Reference) -> Dataset | Reference:
        """The dataset that is locked; else what the registries are to be asked for."""

    def has(self, reference: Reference) -> Dataset | None:
        """The dataset that is locked as exactly that; else None."""


#: Bytes of an index that are worth reading for the versions of one dataset.
_SHORT_INDEX = 1 << 20

#: What an entry is found under: the dataset's own name, the file, and what is in it.
Found = tuple[str, str, Document]


class Lookup:
    """The registries of one call, and what is found in them; before them, a project's lock."""

    def __init__(
        self,
        settings: Settings,
        open_place: Callable[[str], Place],
        emit: Emit,
        project: Project | None = None,
    ) -> None:
        self._project = project
        self._offline = settings.offline
        self._emit = _once(emit)
        self._registries = Registries(settings, open_place, self._emit)

    def find(self, reference: Reference) -> Dataset:
        """The dataset that a reference means here: what the project has locked under that name,
        for which no registry is read, else what the registries say.

        Raises:
            NotFound: the project wants only what it has locked; and as `resolve`.
        """
        found = self._project.find(reference) if self._project else reference
        return found if isinstance(found, Dataset) else self.resolve(found)

    def again(self, reference: Reference) -> Dataset:
        """A dataset that was found before, by its full name; raises as `resolve`."""
        return self.locked(reference) or self.resolve(reference)

    def locked(self, reference: Reference) -> Dataset | None:
        """The dataset that the project has locked under that full name, if it has."""
        return self._project.has(reference) if self._project else None

    def has_moved(self, dataset: Dataset) -> bool:
        """True if the project has locked it, and its registry, as far as that can be asked, has
        other content under that version by now.
        """
        if self.locked(dataset.reference) != dataset:
            return False
        now = self.today(dataset)
        return now is not None and now.content != dataset.content

    def today(self, dataset: Dataset) -> Dataset | None:
        """What its registry says of a version by now; None where it cannot say."""
        try:
            return self.resolve(dataset.reference)
        except DscacheError:
            return None

    def resolve(self, reference: Reference) -> Dataset:
        """The dataset that a reference means by the registries.

        Raises:
            NotFound: no registry in use has it; names near it are given.
            NotCached: the registry was never read, and this is offline mode.
            TransferError: a registry that might have it cannot be read.
            UsageError: two of the user's registries have one name.
            InvalidFile, UnsafeError: its entry breaks a rule of the format.
        """
        asked: list[Registry] = []
        for registry in self._candidates(reference):
            if found := self._find_in(registry, reference):
                return found
            asked.append(registry)
        for registry in asked:  # what was remembered may be out of date
            place = registry.place.anew()
            if place and (found := self._find_in(Registry(registry.name, place), reference)):
                return found
        raise self._not_found(reference)

    def also_in(self, found: Dataset) -> list[str]:
        """The other registries that can be read and have a dataset of that name."""
        others = []
        for registry in self.registries():
            if registry.name == found.registry:
                continue
            try:
                if self._entry(registry.place, Reference(found.name)):
                    others.append(registry.name)
            except DscacheError as error:
                self._emit(Notice(f"registry {registry.name}: {error}"))
        return others

    def versions(self, found: Dataset) -> list[str]:
        """The versions of a dataset that its registry lists; at least its own.

        The file of the current one lists them where it was published. Else they are looked for, as
        long as that takes no longer than a look-up may.
        """
        place = self._registries.named(found.registry).place
        document = self._document(place, f"{found.name}.toml")
        entry = document.entry if document else None
        known = {found.version}
        if isinstance(entry, Entry):
            known |= {entry.version, *entry.versions}
        if not (isinstance(entry, Entry) and entry.versions):
            known |= self._seen_versions(place, found.name)
        return sorted(known, key=version_order)

    def _seen_versions(self, place: Place, name: str) -> set[str]:
        if (files := place.few_names()) is None:
            row = self._rows(place, _SHORT_INDEX).get(name)
            return set(row.versions) if row else set()
        start, end = f"{name}@", ".toml"
        return {
            version
            for file in files
            if file.startswith(start) and file.endswith(end)
            if is_version(version := file[len(start) : -len(end)])
        }

    def available(self) -> Iterator[tuple[Registry, str, index.Row]]:
        """Every dataset of every registry that can be read, hidden ones included."""
        from dscache.registry import index

        for registry in self.registries():
            try:
                rows = index.read(registry.place, self._emit).datasets
            except UNREADABLE as error:
                self._registries.leave_out(registry.name, error)
                continue
            for name, row in rows.items():
                yield registry, name, row

    def registries(self) -> list[Registry]:
        """All registries in use that can be read, in order; notices name the others.

        Raises:
            UsageError: two of the user's registries have one name.
        """
        return self._registries.readable()

    def has_registry(self, name: str) -> bool:
        """True if a registry in use has that name, whether or not it can be read."""
        return self._registries.has(name)

    def _candidates(self, reference: Reference) -> Iterator[Registry]:
        if reference.registry is None:
            yield from self._registries.in_order()
        else:
            yield self._registries.named(reference.registry)

    def _find_in(self, registry: Registry, reference: Reference) -> Dataset | None:
        try:
            found = self._entry(registry.place, reference)
        except TransferError as error:
            if self._offline and reference.registry is None:
                self._registries.leave_out(registry.name, error)
                return None
            raise unreadable(registry.name, error, offline=self._offline) from error
        if found is None:
            return None
        name, _, document = found
        return document.dataset(name, registry.name, registry.place.base)

    def _entry(self, place: Place, reference: Reference) -> Found | None:
        """The entry that a reference means, aliases resolved."""
        name, version = reference.name, reference.version
        unknown: TransferError | None = None
        if version:
            try:
                if found := self._exact(place, name, version):
                    return found
            except TransferError as error:
                unknown = error  # never read; but the current version may be the one
        file = f"{name}.toml"
        document = self._document(place, file)
        entry = document.entry if document else None
        if isinstance(entry, Alias):
            return self._target(place, file, entry, reference)
        if document and entry and version in (None, entry.version):
            return name, file, document
        if unknown:
            raise unknown
        return None

    def _exact(self, place: Place, name: str, version: str) -> Found | None:
        """The file of one version, whose own word on its version must be the same."""
        file = f"{name}@{version}.toml"
        document = self._document(place, file)
        if document is None:
            return None
        said = document.entry.version if isinstance(document.entry, Entry) else "see"
        if said != version:
            error = InvalidFile(f"{said!r} stands in a file for {version!r}")
            raise Problem("version", error).located(f"{place.base}{file}")
        return name, file, document

    def _target(self, place: Place, file: str, alias: Alias, reference: Reference) -> Found | None:
        target = self._document(place, f"{alias.see}.toml")
        if target is None or isinstance(target.entry, Alias):
            error = InvalidFile(f"{alias.see!r} is not a dataset of this registry")
            raise Problem("see", error).located(f"{place.base}{file}")
        return self._entry(place, replace(reference, name=alias.see))

    def _document(self, place: Place, file: str) -> Document | None:
        """One file without problems."""
        document = place.document(file)
        if document is None:
            return None
        for problem in document.problems:
            raise problem.located(f"{place.base}{file}")
        for key in document.unknown:
            self._emit(Notice(f"{place.base}{file}: {key}: unknown key, ignored"))
        return document

    def _rows(self, place: Place, most: int | None = None) -> dict[str, index.Row]:
        """What an index of at most so many bytes says; nothing where none can be read."""
        from dscache.registry import index  # late: most names are found at once

        try:
            return index.read(place, self._emit, most).datasets
        except UNREADABLE:
            return {}  # an index is a convenience; look-ups never depend on it

    def _not_found(self, reference: Reference) -> NotFound:
        if reference.version:
            bare = replace(reference, version=None)
            try:
                other = self.resolve(bare)
            except NotFound:
                return self._not_found(bare)
            versions = self.versions(other)
            return NotFound(
                f"{bare} has no version {reference.version!r}",
                hint=f"there is {', '.join(versions)}",
                name=reference.name,
                versions=versions,
            )
        names: set[str] = set()
        for registry in self._candidates(reference):
            for name, row in self._rows(registry.place).items():
                names |= {name, *row.aliases}
        import difflib

        near = difflib.get_close_matches(reference.name, sorted(names), 3, 0.6)
        hint = f"did you mean {' or '.join(near)}?" if near else "`dscache search TEXT` may help"
        if left_out := self._registries.left_out:
            hint += f"; left out: {', '.join(left_out)}"
        kind = NotCached if self._offline and left_out else NotFound
        return kind(f"no dataset {reference}", hint=hint, name=reference.name, near=near)


def _once(emit: Emit) -> Emit:
    """Say no notice twice in one call."""
    said: set[str] = set()

    def told(event: Event) -> None:
        if isinstance(event, Notice):
            if event.message in said:
                return
            said.add(event.message)
        emit(event)

    return told

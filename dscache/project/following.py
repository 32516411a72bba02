"""Following: what a name means in a project, by its lock, and by what it asks for.

No registry is read for what is locked, so that none can change it. Reads the lock file, once for
as long as it stays the same, and nothing else.
"""

from __future__ import annotations

from dscache.errors import NotFound, UsageError
from dscache.events import Emit, Notice
from dscache.model import Dataset, Reference
from dscache.project.lines import dataset_in
from dscache.project.lockfile import ANY, LOCK_FILE, Line, Lock, read
from dscache.settings import Settings


class Following:
    """The lock of the project in which a call is made."""

    def __init__(self, settings: Settings, emit: Emit) -> None:
        self._settings = settings
        self._emit = emit
        self._path = f"{settings.project}/{LOCK_FILE}"

    def find(self, reference: Reference) -> Dataset | Reference:
        """The dataset that is locked; else what the registries are to be asked for.

        Raises:
            NotFound: it is not locked, and the project wants nothing else.
            UsageError: several that are locked may be meant.
            InvalidFile, UnsafeError: the lock file cannot be used.
        """
        lock = read(self._path)
        if lock and (line := self._meant(lock, reference)):
            self._compare(line)
            return dataset_in(lock, line, self._settings)
        if self._settings.locked:
            raise NotFound(
                f"{reference} is not in {self._path}, and this project allows nothing else",
                hint=f"`dscache add {reference}` adds it; `locked` is set in dscache.toml",
                name=str(reference),
            )
        if lock is None and not self._settings.datasets:
            return reference  # a project that has settings, and no data
        asked = self._asked(reference)
        command = "lock" if asked else f"add {reference}"
        self._emit(Notice(f"{reference} is not in {LOCK_FILE}; `dscache {command}` adds it"))
        return asked or reference

    def has(self, reference: Reference) -> Dataset | None:
        """The dataset that is locked as exactly that, registry and version named; else None."""
        lock = read(self._path)
        lines = lock.meant(reference) if lock else ()
        return dataset_in(lock, lines[0], self._settings) if lock and lines else None

    def _meant(self, lock: Lock, reference: Reference) -> Line | None:
        lines = lock.meant(reference)
        if len({line.reference for line in lines}) > 1:
            names = " or ".join(sorted(str(line.reference) for line in lines))
            raise UsageError(f"{reference} may be {names}: all are in {LOCK_FILE}")
        return lines[0] if lines else None

    def _compare(self, line: Line) -> None:
        """Say so where the lock is behind what the project asks for; a fetch never moves it."""
        wanted = self._settings.datasets.get(line.name)
        if wanted is not None and not line.fits(wanted):
            self._emit(
                Notice(
                    f"{line.name} is locked as {line.entry.version}, and dscache.toml asks for "
                    f"{wanted}; `dscache lock` changes that"
                )
            )

    def _asked(self, reference: Reference) -> Reference | None:
        """What the project asks for under that name, as closely as it says; None for nothing."""
        for key, version in self._settings.datasets.items():
            wanted = Reference.parse(key)
            if wanted.name == reference.name and reference.registry in (None, wanted.registry):
                is_any = version == ANY or reference.version is not None
                return Reference(
                    wanted.name, wanted.registry, reference.version if is_any else version
                )
        return None

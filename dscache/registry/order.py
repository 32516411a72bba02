"""Which registries are in use, under which names, and in which order they are asked.

Project, DSCACHE_REGISTRIES, user's configuration, bundled. A registry is opened when its turn
comes; those of DSCACHE_REGISTRIES name themselves, so their `registry.toml` must be read first.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from functools import lru_cache

import msgspec

from dscache.errors import (
    DscacheError,
    IntegrityError,
    InvalidFile,
    NotCached,
    NotFound,
    TransferError,
    UnsafeError,
    UsageError,
)
from dscache.events import Emit, Notice
from dscache.registry.entries import decode_header
from dscache.registry.places import HEADER, Folder, Place
from dscache.registry.rules import located
from dscache.registry.tables import RegistryEntry
from dscache.settings import Settings

#: Why a registry cannot be read; others go on without it where that changes no name's meaning.
UNREADABLE = (TransferError, InvalidFile, IntegrityError, UnsafeError)


class Registry(msgspec.Struct, frozen=True):
    """A registry in use, under the name that the user knows."""

    name: str
    place: Place


class Registries:
    """The registries of one call.

    Attributes:
        left_out: those that could not be read, so that the call went on without them.
    """

    def __init__(self, settings: Settings, open_place: Callable[[str], Place], emit: Emit) -> None:
        self.left_out: list[str] = []
        self._open = open_place
        self._emit = emit
        self._offline = settings.offline
        self._places: dict[str, Place] = {}
        self._known: dict[tuple[str | None, str], Registry] = {}
        self._doubles_refused = False
        self._users: list[tuple[str | None, str]] = [
            *settings.project_registries.items(),
            *((None, address) for address in settings.extra_registries),
            *settings.registries.items(),
        ]

    def readable(self) -> list[Registry]:
        """All that can be read, in order; the others are named in notices.

        Raises:
            UsageError: two of the user's registries have one name.
        """
        return list(self._in_order(lambda error: True))

    def in_order(self) -> Iterator[Registry]:
        """All in the order of look-up. Offline, those of which nothing is known are left out.

        Raises:
            UsageError: two of the user's registries have one name.
            TransferError: the next one cannot be read.
            InvalidFile: the next one is no registry, or of a format that this version cannot read.
        """
        yield from self._in_order(lambda error: self._offline and isinstance(error, TransferError))

    def named(self, name: str) -> Registry:
        """One registry by its name; others need not be in reach.

        Raises:
            UsageError: two of the user's registries have one name.
            NotFound: there is none of that name.
            TransferError: it cannot be read, or one that may be it.
            InvalidFile: it is no registry, or of a format that this version cannot read.
        """
        self._refuse_doubles()
        trouble: DscacheError | None = None
        for given, address in self._users:
            if given in (name, None):
                try:
                    found = self._opened(given, address)
                except UNREADABLE as error:
                    trouble = trouble or self._unreadable(given or address, error)
                    continue
                if found.name == name:
                    return found
        for registry in bundled():
            if registry.name == name:
                return registry
        if trouble:
            raise trouble
        raise NotFound(
            f"there is no registry {name!r}",
            hint=f"in use are {', '.join(each.name for each in self.readable())}; "
            "`dscache registry add NAME URL` adds one",
            registry=name,
        )

    def has(self, name: str) -> bool:
        """True if one has that name. Those that name themselves are read, if they can be."""
        if any(given == name for given, _ in self._users) or name in _bundled_names():
            return True
        return any(self._names_itself(name, address) for given, address in self._users if not given)

    def _names_itself(self, name: str, address: str) -> bool:
        try:
            return self._opened(None, address).name == name
        except UNREADABLE:
            return False

    def leave_out(self, name: str, error: DscacheError) -> None:
        """Go on without a registry, aloud."""
        self._emit(Notice(f"registry {name} is left out: {error}"))
        if name not in self.left_out:
            self.left_out.append(name)

    def _in_order(self, leave_out: Callable[[DscacheError], bool]) -> Iterator[Registry]:
        self._refuse_doubles()
        bases: dict[str, str] = {}
        for name, address in self._users:
            try:
                registry = self._opened(name, address)
            except UNREADABLE as error:
                if not leave_out(error):
                    raise self._unreadable(name or address, error) from error
                self.leave_out(name or address, error)
                continue
            base = registry.place.base
            if bases.setdefault(registry.name, base) != base:
                raise _double(registry.name, bases[registry.name], base)
            yield registry
        yield from (each for each in bundled() if each.name not in bases)

    def _opened(self, given: str | None, address: str) -> Registry:
        if (given, address) not in self._known:
            place = self._place(address)
            own_name = header(place).name
            self._known[given, address] = registry = Registry(given or own_name, place)
            if registry.name in {each.name for each in bundled()}:
                notice = f"{place.url} takes the place of the bundled registry {registry.name!r}"
                self._emit(Notice(notice))
        return self._known[given, address]

    def _place(self, address: str) -> Place:
        if address not in self._places:
            self._places[address] = self._open(address)
        return self._places[address]

    def _refuse_doubles(self) -> None:
        """Find two registries of one name, as far as no server need be asked for it."""
        if self._doubles_refused or len(self._users) < 2:
            return
        bases: dict[str, str] = {}
        for given, address in self._users:
            try:
                place = self._place(address)
            except IntegrityError:
                continue  # told when its turn comes
            name = given or (_name_of_folder(place) if place.local else None)
            if name and bases.setdefault(name, place.base) != place.base:
                raise _double(name, bases[name], place.base)
        self._doubles_refused = True

    def _unreadable(self, name: str, error: DscacheError) -> DscacheError:
        return unreadable(name, error, offline=self._offline)


def unreadable(name: str, error: DscacheError, *, offline: bool) -> DscacheError:
    """The error for a registry that cannot be read, with what to do."""
    if not isinstance(error, TransferError):
        return error
    if offline:
        hint = "fetch from it online once, and what it says is remembered"
        return NotCached(f"registry {name} cannot be read: {error}", hint=hint, **error.facts)
    hint = "name another one (`registry/name`), or use offline mode to go on without it"
    if error.facts.get("status") in (401, 403):
        hint += "; credentials may be missing or wrong, and a server must answer 404 for a file "
        hint += "that is not there (S3: allow ListBucket)"
    return TransferError(f"registry {name} cannot be read: {error}", hint=hint, **error.facts)


def header(place: Place) -> RegistryEntry:
    """The `registry.toml` of a registry.

    Raises:
        InvalidFile: there is none, it is malformed, or of a format that this version does not know.
        TransferError: the place cannot be read.
    """
    where = f"{place.base}{HEADER}"
    data = place.read(HEADER)
    if data is None:
        raise InvalidFile(
            f"{place.url} is no registry: it has no {HEADER}",
            hint="`dscache registry init DIR` makes one",
            file=where,
        )
    try:
        return decode_header(data)
    except InvalidFile as error:
        raise located(error, where) from error


def _name_of_folder(place: Place) -> str | None:
    try:
        return header(place).name
    except UNREADABLE:
        return None  # told when its turn comes


def _double(name: str, one: str, other: str) -> UsageError:
    return UsageError(
        f"two registries are named {name!r}: {one} and {other}",
        hint=f"`dscache registry remove {name}`, then `dscache registry add OTHER-NAME URL`; "
        f"or change `name` in the {HEADER} of one in DSCACHE_REGISTRIES",
        registry=name,
    )


def bundled_folder() -> str:
    """Where the bundled registries are: in the installed package, or beside it in a checkout."""
    package = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
    installed = os.path.join(package, "bundled")
    if os.path.isdir(installed):
        return installed
    return os.path.join(os.path.dirname(package), "registries")


@lru_cache(maxsize=1)
def _bundled_names() -> frozenset[str]:
    return frozenset(each.name for each in bundled())


@lru_cache(maxsize=1)
def bundled() -> tuple[Registry, ...]:
    """The registries that come with the package; they do not change while a process runs."""
    root = bundled_folder()
    names = sorted(name for name in os.listdir(root) if os.path.isfile(f"{root}/{name}/{HEADER}"))
    return tuple(Registry(name, Folder(f"{root}/{name}")) for name in names)

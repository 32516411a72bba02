"""Policies: which datasets are to go, decided from values alone; touches no disk."""

from __future__ import annotations

from array import array
from collections.abc import Callable, Sequence

import msgspec

from dscache.pruning.inventory import Holding, Inventory
from dscache.quantities import show_duration, show_size
from dscache.results import Kept
from dscache.settings import Settings


class Policy(msgspec.Struct, frozen=True):
    """What a user asks for; the parts add up.

    Attributes:
        older_than: datasets that were not used for so many seconds.
        max_size: datasets, the least recently used first, until the cache has so many bytes.
        free: the same until the disk has so many bytes free.
        archives: archives of which all is unpacked.
        all: every dataset.
    """

    older_than: float | None = None
    max_size: int | None = None
    free: int | None = None
    archives: bool = False
    all: bool = False

    @property
    def is_empty(self) -> bool:
        """True if it asks for nothing."""
        return self == Policy()


class Limits(msgspec.Struct, frozen=True):
    """How old things must be to be garbage, in seconds; the settings of these names."""

    prune_grace: float
    part_max_age: float
    quarantine_max_age: float
    lease_ttl: float
    root_grace: float

    @classmethod
    def of(cls, settings: Settings) -> Limits:
        """Those of the settings."""
        return cls(*(getattr(settings, name) for name in cls.__struct_fields__))


class Room(msgspec.Struct, frozen=True):
    """What there is: bytes of the cache and free bytes of its disk, garbage already left out."""

    size: int
    free: int


class Chosen(msgspec.Struct, frozen=True):
    """A dataset that goes: the bytes that go with it, what the disk gets back of them, and why."""

    holding: Holding
    bytes: int
    freed: int
    reason: str


class Choice:
    """The datasets that go, chosen one after the other.

    Args:
        protection: why a dataset must stay, by its mark; "" where nothing keeps it.
        freed: what the disk gets back for a blob or tree that nobody needs any more.
    """

    def __init__(
        self,
        inventory: Inventory,
        protection: Callable[[str], str],
        freed: Callable[[int], int],
    ) -> None:
        self.chosen: list[Chosen] = []
        self.kept: list[Kept] = []
        self._inventory = inventory
        self._protection = protection
        self._freed = freed
        self._holders = array("I", inventory.holders)
        self._gone = 0
        self._got = 0
        self._seen: set[str] = set()

    def run(self, policy: Policy, candidates: Sequence[Holding], room: Room, now: float) -> None:
        """Choose by a policy.

        Args:
            candidates: the datasets that may be chosen, the least recently used first.
            now: by the clock that times the last use.
        """
        for each in candidates:
            age = max(0.0, now - each.last_used)
            if policy.all:
                self._take(each, "all are to go")
            elif policy.older_than is not None and age > policy.older_than:
                self._take(each, f"last used {show_duration(age)} ago")
        if policy.max_size is not None:
            reason = f"the least recently used go until {show_size(policy.max_size)} are left"
            for each in candidates:
                if room.size - self._gone <= policy.max_size:
                    break
                self._take(each, reason)
        if policy.free is not None:
            reason = f"the least recently used go until {show_size(policy.free)} are free"
            self._free(policy.free - room.free, candidates, reason)

    def take_named(self, candidates: Sequence[Holding]) -> None:
        """Choose these, since the user named them."""
        for each in candidates:
            self._take(each, "named")

    def _free(self, needed: int, candidates: Sequence[Holding], reason: str) -> None:
        """Choose until so many bytes are free, but none whose going brings the disk nothing."""
        first = len(self.chosen)
        for each in candidates:
            if self._got >= needed:
                break
            self._take(each, reason)
        taken = self.chosen[first:]
        useful = [each.holding for each in taken if each.freed or self._frees_with_others(each)]
        if len(useful) < len(taken):
            del self.chosen[first:]
            for chosen in taken:
                self._give_back(chosen)
            for holding in useful:
                self._take(holding, reason)

    def _frees_with_others(self, each: Chosen) -> bool:
        """True if one that goes after it frees what they have in common."""
        present, holders = self._inventory.present, self._holders
        return any(present[n] and not holders[n] and self._freed(n) for n in each.holding.things)

    def _give_back(self, each: Chosen) -> None:
        self._seen.discard(each.holding.mark)
        for n in each.holding.things:
            self._holders[n] += 1
        self._gone -= each.bytes
        self._got -= each.freed

    def _take(self, each: Holding, reason: str) -> None:
        if each.mark in self._seen:
            return
        last = [n for n in each.things if self._holders[n] == 1 and self._inventory.present[n]]
        size = sum(self._inventory.sizes[n] for n in last)
        if why := self._protection(each.mark):
            self._keep(each, size, why)
            return
        freed = sum(map(self._freed, last))
        self._seen.add(each.mark)
        for n in each.things:
            self._holders[n] -= 1
        self._gone += size
        self._got += freed
        self.chosen.append(Chosen(each, size, freed, reason))

    def _keep(self, each: Holding, size: int, why: str) -> None:
        self._seen.add(each.mark)
        self.kept.append(Kept(str(each.reference), size, why))

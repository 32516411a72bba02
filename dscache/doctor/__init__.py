"""Doctor: what there is to know of a cache folder and its surroundings, and what to do about it.

It asks the functions that fetches use, in the place where they are used, and changes nothing: what
it tries, it tries in a folder of its own, which is gone at the end. A check never stops the others.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from dscache.doctor import abilities, configuration, contents, folder, locking, network
from dscache.doctor.checks import careful
from dscache.errors import DscacheError
from dscache.events import Emit
from dscache.results import Check, Diagnosis
from dscache.settings import Settings


def diagnose(
    settings: Settings, problems: Sequence[DscacheError], *, peer: bool, emit: Emit
) -> Diagnosis:
    """Look at everything.

    Args:
        problems: what could not be used of the configuration.
        peer: meet another host that has the same folder.
    """
    return Diagnosis(tuple(_checks(settings, problems, peer, emit)))


def _checks(
    settings: Settings, problems: Sequence[DscacheError], peer: bool, emit: Emit
) -> Iterator[Check]:
    yield from configuration.checks(settings, problems)
    opened = folder.open_root(settings, emit)
    yield from opened.checks
    yield from careful("filesystem", lambda: folder.disk_checks(settings.cache_dir))
    if store := opened.store:
        if opened.is_writable:
            yield from careful("locks", lambda: locking.checks(store, emit, peer=peer))
            yield from careful("probes", lambda: abilities.checks(store))
        yield from careful("permissions", lambda: folder.permissions(store))
        yield from careful("contents", lambda: contents.checks(store))
    yield from careful("durability", lambda: folder.durability(settings))
    yield from careful("registries", lambda: network.checks(settings, emit))

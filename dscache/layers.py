"""Layers: caches of others, looked into before one's own. What stands there is used in place.

Nothing is ever written to a layer, not even a note of its use. One that cannot be used is left out
for the rest of the call, with a notice; one's own cache then does what it does without layers.
"""

from __future__ import annotations

from dscache.call import Call
from dscache.errors import StorageError
from dscache.hits import hit
from dscache.results import Fetched
from dscache.store import Store
from dscache.store.counters import Counts
from dscache.wishes import Wish


def layered(call: Call, wish: Wish) -> tuple[Store, Fetched | None]:
    """The first layer that has all that is asked for, and what stands there.

    Where none has, one's own cache, not looked into yet.
    """
    if not call.settings.read_from:  # as mostly; a hit is over soon
        return call.store, None
    for layer in call.layers[:]:
        try:
            if found := hit(layer, wish):
                return layer, found
        except StorageError as error:
            call.leave_out(layer, error)
    return call.store, None


def standing(call: Call, wish: Wish) -> tuple[Store, Fetched | None]:
    """As `layered`, and one's own cache is looked into as well; what it has is kept from prunes."""
    store, found = layered(call, wish)
    if found:
        return store, found
    if call.holds(wish.dataset):
        return store, hit(store, wish)
    if not store.records.has(wish.dataset):
        return store, None
    call.hold(wish.dataset)
    found = hit(store, wish)
    if found:
        store.counters.add(Counts(hits=1, saved=found.size))
    return store, found

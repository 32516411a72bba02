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
from dscache.wishes import Wish


def layered(call: Call, wish: Wish) -> tuple[Store, Fetched | None]:
    """The first layer that has all that is asked for, and what stands there.

    Where none has, one's own cache, not looked into yet.
    """
    for layer in call.layers[:]:
        try:
            if found := hit(layer, wish):
                return layer, found
        except StorageError as error:
            call.leave_out(layer, error)
    return call.store, None


def standing(call: Call, wish: Wish) -> tuple[Store, Fetched | None]:
    """As `layered`, and one's own cache is looked into as well."""
    store, found = layered(call, wish)
    return (store, found) if found else (store, hit(store, wish))

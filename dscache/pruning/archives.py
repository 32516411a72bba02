"""Archives that may go.

The archive of a tree may go once the tree stands: nothing reads it any more, and where the tree is
lost it is fetched again. It stays where a dataset uses it as it is, and where a process brings it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from dscache.pruning.inventory import Archive, Holding, Inventory
from dscache.pruning.protection import Protection
from dscache.results import Kept, Removal
from dscache.store import Store


def archives(
    store: Store, inventory: Inventory, protection: Protection, datasets: Iterable[Holding]
) -> Iterator[Removal | Kept]:
    """The archives of these datasets that are here, each once: whether they go, and why."""
    seen: set[str] = set()
    for holding in datasets:
        for each in holding.archives:
            number = inventory.blob(each.sha256)
            if number is None or not inventory.present[number] or each.sha256 in seen:
                continue
            seen.add(each.sha256)
            name = f"{holding.reference}: {each.path}"
            size = inventory.sizes[number]
            if inventory.links[number] or number in inventory.kept:
                users = ", ".join(inventory.users(number, but=each))
                yield Kept(name, size, f"{users or 'a dataset'} uses it as it is")
            elif bringer := protection.bringer(each.sha256):
                yield Kept(name, size, f"{bringer} is bringing it")
            elif not _is_unpacked(store, each):
                yield Kept(name, size, "what it holds is not unpacked, or is damaged")
            else:
                yield Removal("archive", name, size, "what it holds is unpacked", each.sha256)


def _is_unpacked(store: Store, each: Archive) -> bool:
    return store.trees.find(each.sha256, each.recipe) is not None

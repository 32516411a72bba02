"""Checks of what the cache holds: records that cannot be read, and what is on its way."""

from __future__ import annotations

from collections.abc import Iterator

from dscache import disk
from dscache.doctor.checks import fine, warning
from dscache.quantities import show_size
from dscache.results import Check
from dscache.store import Store


def checks(store: Store) -> Iterator[Check]:
    """Count the records and the parts."""
    total, bad = 0, []
    for path, _, record in store.records.survey():
        total += 1
        if isinstance(record, str):
            bad.append(f"{path} ({record})")
    if bad:
        shown = ", ".join(bad[:3]) + (", …" if len(bad) > 3 else "")
        yield warning(
            "records",
            f"{len(bad)} of {total} cannot be read: {shown}",
            "nothing that they may need is removed by a prune; remove those files, and fetch their "
            "datasets again",
        )
    else:
        yield fine("records", f"{total:,}")
    sizes = list(_part_sizes(store.layout.parts))
    yield fine("parts", f"{len(sizes):,} with {show_size(sum(sizes))}" if sizes else "none")


def _part_sizes(folder: str) -> Iterator[int]:
    """Bytes on the disk of each partial download."""
    for name in disk.names(folder):
        if name.endswith(".part"):
            try:
                yield disk.allocated(f"{folder}/{name}")
            except FileNotFoundError:
                continue  # it was finished just now

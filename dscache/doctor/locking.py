"""Checks of locks: whether they exclude between processes, and between hosts."""

from __future__ import annotations

from collections.abc import Iterator

from dscache.doctor.checks import failure, fine, of_error, warning
from dscache.doctor.mounts import mount_of
from dscache.errors import StorageError
from dscache.events import Emit
from dscache.quantities import show_duration
from dscache.results import Check
from dscache.store import Store
from dscache.store.exclusion import Verdict
from dscache.store.meeting import Meeting, Met

#: How long another host is waited for, in seconds.
PATIENCE = 300.0
#: Clocks that differ by more than this many seconds are worth a word.
CLOCKS = 60.0

_LIE = (
    "nothing is at risk: downloads are kept apart by markers, and hashes decide. But the marker of "
    "a process that was killed on another host stays until somebody removes it; mount the "
    "filesystem with locks (Lustre: `flock`; NFS: without `nolock` and `local_lock`), then run "
    "`dscache doctor` again"
)


def checks(store: Store, emit: Emit, *, peer: bool) -> Iterator[Check]:
    """Find out anew what the store goes by."""
    found = store.locks.probe()
    if found.exclude is False:
        yield warning("locks", f"they do not work: {found.reason}", _LIE)
    elif found.exclude:
        yield fine("locks", f"they exclude between processes ({found.reason})")
    else:
        yield fine("locks", f"used, though it is not known whether they exclude: {found.reason}")
    if peer:
        yield from _meet(store, emit)
    else:
        yield from _between_hosts(store, found)


def _between_hosts(store: Store, found: Verdict) -> Iterator[Check]:
    """What was found out before, where other hosts may use the folder."""
    mount = mount_of(store.layout.root)
    if found.across is not None:
        yield _across(found.peer, found.across)
    elif mount and mount.is_network:
        yield fine(
            "locks-between-hosts",
            "not known yet: run `dscache doctor --peer` on two hosts that have this folder",
        )


def _across(peer: str, exclude: bool) -> Check:
    if exclude:
        return fine("locks-between-hosts", f"they exclude between this host and {peer}")
    return warning("locks-between-hosts", f"a lock held here was given to {peer} as well", _LIE)


def _meet(store: Store, emit: Emit) -> Iterator[Check]:
    try:
        met = Meeting(store.layout, emit, PATIENCE).hold()
    except StorageError as error:
        yield of_error("peer", error)
        return
    if met is None:
        yield failure(
            "peer",
            f"no other host has come within {show_duration(PATIENCE)}",
            f"run `dscache doctor --peer` there with the same cache folder ({store.layout.root}), "
            "while it runs here; hosts are told apart by their names",
        )
        return
    store.locks.met(met.peer, met.exclude)
    yield _across(met.peer, met.exclude)
    yield from _told_of(met)


def _told_of(met: Met) -> Iterator[Check]:
    late = show_duration(met.late) if met.late >= 1 else f"{met.late * 1000:.0f} ms"
    yield fine("peer", f"{met.peer} saw a file replaced here and answered, each time within {late}")
    ahead = f"{show_duration(abs(met.ahead))} {'ahead of' if met.ahead > 0 else 'behind'} ours"
    if abs(met.ahead) > max(CLOCKS, met.late):
        yield warning(
            "peer-clock",
            f"the clock of {met.peer} is {ahead}",
            "set the clocks of both (NTP): ages of locks and leases are compared",
        )
    else:
        yield fine("peer-clock", f"that of {met.peer} agrees with ours")

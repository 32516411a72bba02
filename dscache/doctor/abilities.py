"""Checks of what the filesystem can do, and what the store makes of it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from functools import partial

from dscache.doctor.checks import careful, failure, fine, warning
from dscache.doctor.locking import CLOCKS
from dscache.quantities import show_duration
from dscache.results import Check
from dscache.store import Store, probes

_ELSEWHERE = "put the cache on another filesystem"
#: Bytes: records of the longest names, on their way; and what most filesystems have.
_NEEDED, _USUAL = 195, 255

Probe = Callable[[str], Iterable[Check]]


def checks(store: Store) -> Iterator[Check]:
    """Try everything in a folder that is gone afterwards."""
    with probes.probing(store.layout) as folder:
        for name, probe in _PROBES.items():
            yield from careful(name, partial(probe, folder))


def _rename(folder: str) -> Iterator[Check]:
    if not probes.excludes_by_name(folder):
        yield warning(
            "create", "a file can be created twice", f"{_ELSEWHERE}: work may be done twice here"
        )
    if probes.replaces_open_files(folder):
        yield fine("rename", "takes the place of files that are being read")
    else:
        yield warning(
            "rename",
            "does not take the place of files that are being read",
            "nothing is at risk; a change may have to wait until a reader is done",
        )


def _links(folder: str) -> Iterator[Check]:
    hard, symbolic = probes.links_hard(folder), probes.links_symbolically(folder)
    if hard and symbolic:
        hint = f"every dataset takes its bytes twice here, as they are copied; {_ELSEWHERE}"
        yield warning("hard-links", f"not here: {hard}", hint)
        yield warning("symbolic-links", f"not here: {symbolic}", hint)
        return
    instead = "not here: {}; {} links take their place"
    yield fine("hard-links", instead.format(hard, "symbolic") if hard else "yes")
    yield fine("symbolic-links", instead.format(symbolic, "hard") if symbolic else "yes")


def _reflinks(folder: str) -> Iterator[Check]:
    refused = probes.clones(folder)
    yield fine("reflinks", f"not here: {refused}; `--into` links or copies" if refused else "yes")


def _case(folder: str) -> Iterator[Check]:
    if probes.tells_case_apart(folder):
        yield fine("case", "upper and lower case make two names")
    else:
        hint = "datasets with two such files are refused here; they need another filesystem"
        yield warning("case", "names that differ by case alone are one", hint)


def _unicode(folder: str) -> Iterator[Check]:
    changed = probes.changes_unicode(folder)
    yield fine("unicode", f"the filesystem {changed}" if changed else "names are kept as they are")


def _name_length(folder: str) -> Iterator[Check]:
    longest = probes.longest_name(folder)
    shown = f"up to {longest} bytes"
    if longest < _NEEDED:
        hint = f"{_ELSEWHERE}: datasets with long names cannot be recorded here"
        yield failure("name-length", shown, hint)
    elif longest < _USUAL:
        yield warning("name-length", shown, f"{_ELSEWHERE} for datasets with longer file names")
    else:
        yield fine("name-length", shown)


def _sync(folder: str) -> Iterator[Check]:
    took = probes.syncs(folder)
    yield fine("sync", f"bytes were brought to the disk in {took * 1000:.0f} ms")


def _clock(folder: str) -> Iterator[Check]:
    ahead = probes.clock_ahead(folder)
    if abs(ahead) > CLOCKS:
        shown = f"{show_duration(abs(ahead))} {'ahead of' if ahead > 0 else 'behind'}"
        yield warning(
            "clock",
            f"that of the filesystem is {shown} this machine's; ages count by that of the "
            "filesystem",
            "set the clocks of this machine and of the file server (NTP)",
        )
    else:
        yield fine("clock", "that of the filesystem agrees with this machine's")
    whole = probes.stamps_in_whole_seconds(folder)
    yield fine("time-stamps", "whole seconds" if whole else "fractions of seconds")


_PROBES: dict[str, Probe] = {
    "rename": _rename,
    "hard-links": _links,
    "reflinks": _reflinks,
    "case": _case,
    "unicode": _unicode,
    "name-length": _name_length,
    "sync": _sync,
    "clock": _clock,
}

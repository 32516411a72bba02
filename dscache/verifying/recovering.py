"""Recovering: a dataset whose record makes no sense is recorded anew.

The record stays where it is until the new one takes its place, so that no prune takes what it may
have named for garbage; a copy of its bytes goes to quarantine.
"""

from __future__ import annotations

import os
from collections.abc import Set
from contextlib import closing
from glob import escape

from dscache import disk, filesystem, recording, view
from dscache.bringing import Bringing
from dscache.call import Call
from dscache.errors import DscacheError, NotFound
from dscache.events import Notice
from dscache.hits import listed, prove, view_of
from dscache.model import Dataset, Reference
from dscache.transfer.here import tree_of
from dscache.verifying.checking import Finding
from dscache.wishes import Wish

_MAX_RECORD = 1 << 30
#: Of a dataset with more files in its view than these, all is brought.
_SHOWN = 1000


def recover(call: Call, finding: Finding) -> str:
    """Record a dataset anew, with what its view shows of it; the reason if that cannot be done.

    Raises:
        OSError: the disk does not take it.
    """
    try:
        data = disk.read_small(finding.path, _MAX_RECORD)
        wish = _wish(call, finding.mark)
        if data:
            aside = call.store.set_aside(f"{finding.mark}.json", data)
            call.emit(Notice(f"{finding.path} made no sense; a copy of it is kept in {aside}"))
        # What can be decoded would be believed, whatever it says.
        filesystem.publish_bytes(b"", finding.path, durable=True)
        with closing(Bringing(call).run([wish])) as outcomes:
            ((_, found),) = outcomes
    except PermissionError as error:
        return os.strerror(error.errno or 0)
    except DscacheError as error:
        return str(error)
    if found.error:
        return str(found.error)
    # What the store had may be damaged as well.
    record = call.store.records.get(wish.dataset)
    is_right = record is None or prove(call.store, call.store.records.distrust(record))
    return "" if is_right else "what it names is damaged, too; the same command again repairs it"


def _wish(call: Call, mark: str) -> Wish:
    dataset = call.lookup.again(Reference.parse(mark.rpartition("+")[0]))
    if dataset.mark != mark:
        raise NotFound(f"its registry has other content of {dataset.reference} by now")
    return Wish(dataset, _shown(call, dataset))


def _shown(call: Call, dataset: Dataset) -> tuple[str, ...]:
    """Patterns for what stands in the view, if that may be a selection; none for all of it."""
    folder = view_of(call.store, dataset)
    paths = {
        os.path.relpath(f"{parent}/{name}", folder).replace(os.sep, "/")
        for parent, _, names in os.walk(folder)
        for name in names
    }
    if not paths or len(paths) > _SHOWN or _is_all(call, dataset, paths):
        return ()
    return tuple(map(escape, sorted(paths)))


def _is_all(call: Call, dataset: Dataset, paths: Set[str]) -> bool:
    """True if all that the dataset is known to hold is among the paths."""
    store = call.store
    if dataset.manifest:
        known = listed(store, dataset)
        return known is not None and all(path in paths for path in known)
    plain = {each.path for each in dataset.artifacts if not each.unpack}
    rows, is_some = [], True
    for artifact in dataset.artifacts:
        tree = tree_of(store, artifact) if artifact.unpack else None
        if tree:
            rows.append(recording.unpacked(store, Wish(dataset), artifact, tree))
        elif artifact.unpack:  # what it holds is not known; any other file may be of it
            is_some = bool(paths - plain)
    items = view.Contents(store, (), rows)
    return (
        is_some
        and plain <= paths
        and all(item.path in paths for item in items if item.kind != "folder")
    )

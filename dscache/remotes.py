"""The remote of a team: whether it is there, filling it, and removing from it what is old."""

from __future__ import annotations

import re
import secrets
import time
from collections.abc import Sequence
from itertools import chain

from dscache import pushing
from dscache.call import Call
from dscache.catalog import recorded
from dscache.claiming import FOLDER
from dscache.depots import Depot
from dscache.errors import DscacheError, UsageError
from dscache.events import Notice
from dscache.model import Reference
from dscache.results import Pushed, RemotePruned, RemoteStatus
from dscache.sources.small import is_there

#: What the remote holds for us, and in a folder what a push that was killed has left; whatever else
#: is there is none of our business.
_KEY = re.compile(
    rf"blobs/[a-z0-9_]+/[0-9a-f]{{2}}/[0-9a-f]+(\.[0-9a-f]{{8}}\.tmp)?"
    rf"|{FOLDER}/[0-9a-f]{{32}}-[0-9a-z]+"
)
_PROBE = "blobs/.probe"


def status(call: Call) -> RemoteStatus:
    """Whether the remote answers, and takes files. A file for that is written and removed.

    Raises:
        UsageError: there is none.
    """
    url = call.settings.remote
    try:
        depot = pushing.depot_of(call)
    except UsageError:
        if not url.startswith(("http://", "https://")):
            raise
        return RemoteStatus(url, _answers(call, url), writable=False)
    key = f"{_PROBE}-{secrets.token_hex(8)}"
    try:
        depot.size(key)
    except DscacheError as error:
        call.emit(Notice(str(error)))
        return RemoteStatus(url, reachable=False, writable=False)
    return RemoteStatus(url, reachable=True, writable=_takes(call, depot, key))


def push(call: Call, references: Sequence[Reference]) -> Pushed:
    """Write cached datasets to the remote, for machines that do not have them.

    Raises:
        NotCached: one is not in the cache.
        As `pushing.push`.
    """
    records = [record for each in references for record in recorded(call, each)]
    return pushing.push(call, records)


def prune(call: Call, older_than: float, *, dry_run: bool) -> RemotePruned:
    """Remove what was written to the remote more than `older_than` seconds ago.

    Who asks for it afterwards is served by its origin, and may write it back.

    Raises:
        UsageError: there is no remote, or nothing can be removed from it.
        TransferError: it cannot be reached, or refuses.
    """
    depot = pushing.depot_of(call)
    before = time.time() - older_than
    found = chain(depot.list("blobs/"), depot.list(f"{FOLDER}/"))
    old = [each for each in found if each.modified < before and _KEY.fullmatch(each.key)]
    if not dry_run:
        depot.remove(each.key for each in old)
    blobs = [each for each in old if each.key.startswith("blobs/")]
    return RemotePruned(len(blobs), sum(each.size for each in blobs))


def _answers(call: Call, url: str) -> bool:
    """True if a web server says anything about a file that it should have nowhere."""
    try:
        is_there(call.sources, f"{url.rstrip('/')}/{_PROBE}", policy=call.policy)
    except DscacheError as error:
        call.emit(Notice(str(error)))
        return False
    return True


def _takes(call: Call, depot: Depot, key: str) -> bool:
    try:
        depot.upload(key, [b"dscache"], 7)
        depot.remove([key])
    except DscacheError as error:
        call.emit(Notice(f"read only: {error}"))
        return False
    return True

"""Pushing: verified bytes of the cache are written back to the remote, for other machines."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from dscache.call import Call
from dscache.claiming import claim_key, mark_done
from dscache.depots import Depot, open_depot
from dscache.depots.asking import Interruptible
from dscache.depots.uploading import Upload, upload_all
from dscache.digest import Digest
from dscache.errors import DscacheError, UsageError
from dscache.events import Notice
from dscache.results import Pushed
from dscache.store import Blob, Record, Store
from dscache.transfer.remote import remote_key


def depot_of(call: Call) -> Depot:
    """The remote of the user, to write to.

    Raises:
        UsageError: there is none, or nothing can be written to it.
    """
    if not call.settings.remote:
        raise UsageError(
            "no remote is configured", hint="set `remote` in the configuration, or DSCACHE_REMOTE"
        )
    return Interruptible(open_depot(call.settings.remote))


def push_new(call: Call, blobs: Iterable[tuple[Digest, Blob]]) -> bool:
    """Write back what a fetch has just brought. That it fails is said, and no error."""
    uploads = [
        Upload(remote_key(identity), blob.path, blob.size, blob.sha256) for identity, blob in blobs
    ]
    if not uploads:
        return True
    try:
        for _ in upload_all(depot_of(call), uploads):
            pass
    except DscacheError as error:
        call.emit(Notice(f"not all could be written to the remote: {error}"))
        return False
    return True


def push(call: Call, records: Iterable[Record]) -> Pushed:
    """Write the files of cached datasets to the remote; what it has stays as it is.

    Raises:
        UsageError: as `depot_of`.
        IntegrityError: a file of the cache is damaged.
        TransferError: the remote cannot be reached, or refuses.
    """
    records = list(records)
    uploads = {each.key: each for record in records for each in _uploads(call.store, record)}
    depot = depot_of(call)
    done = list(upload_all(depot, uploads.values()))
    for record in records:
        if record.complete:
            mark_done(depot, claim_key(record.content))
    new = [upload for upload, is_new in done if is_new]
    return Pushed(len(new), len(done) - len(new), sum(each.size for each in new))


def _uploads(store: Store, record: Record) -> Iterator[Upload]:
    """What the remote should have of a dataset, under the names by which it will be asked for."""
    wanted = [(file.sha256, file.size) for file in record.files]
    wanted += [(tree.sha256, tree.size) for tree in record.trees]
    wanted += [(sha256, store.blobs.size(sha256)) for sha256 in record.keeps]
    other_names = _aliases(store) if record.first_use else {}
    for sha256, size in wanted:
        if store.blobs.size(sha256) == size:  # an archive may have been dropped
            for digest in (Digest("sha256", sha256), *other_names.get(sha256, ())):
                yield Upload(remote_key(digest), store.layout.blob(sha256), size, sha256)


def _aliases(store: Store) -> dict[str, list[Digest]]:
    """The other digests of blobs, by their sha256."""
    found: dict[str, list[Digest]] = {}
    for path, sha256 in store.blobs.aliases():
        algorithm, start, rest = path.split("/")[-3:]
        found.setdefault(sha256, []).append(Digest(algorithm, start + rest))
    return found

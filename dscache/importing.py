"""Importing: files that a person has downloaded, matched to artifacts by their hashes.

A file is taken over by reflink, by hard link if it is read-only already, or by copy; it is neither
moved nor changed, and only what lands in the cache is hashed.
"""

from __future__ import annotations

import os
import secrets
from collections.abc import Sequence

from dscache import copying, disk, fetching, filesystem, recording
from dscache.call import Call
from dscache.digest import Sums, sums_of
from dscache.errors import IntegrityError, NotFound
from dscache.model import Artifact, Dataset
from dscache.results import Fetched
from dscache.store import Blob, Store
from dscache.transfer.here import is_here
from dscache.wishes import Wish


def take(call: Call, dataset: Dataset, files: Sequence[str]) -> Fetched:
    """Take the files into the cache; complete the dataset if nothing else is missing.

    Raises:
        IntegrityError: a file is none of the dataset's artifacts.
        NotFound: there is no such file, or the dataset lists its files elsewhere.
        StorageError: the cache does not take it.
    """
    if dataset.manifest:
        raise NotFound(f"{dataset.reference} has a manifest; its files cannot be imported")
    call.store.prepare()
    wish = Wish(dataset)
    call.hold(dataset)
    with call.store.leases.new() as lease:
        digests = [digest for each in dataset.artifacts for digest in each.digests]
        with disk.storage_errors("the cache cannot be written"):
            lease.announce(digests)
        call.let_pass(filter(None, map(call.store.blobs.known_as, digests)), dataset.name)
        taken = [_take(call.store, dataset, file) for file in files]
        if all(is_here(call.store, each) for each in dataset.artifacts):
            return fetching.fetch(call, [wish])[wish]
        recording.keep(call.store, wish, [blob.sha256 for blob in taken])
    return Fetched(
        dataset.name,
        dataset.version,
        dataset.registry,
        status="incomplete",
        size=sum(os.path.getsize(file) for file in files),
    )


def _take(store: Store, dataset: Dataset, file: str) -> Blob:
    if not os.path.isfile(file):
        raise NotFound(f"there is no file {file}", file=file)
    size = os.path.getsize(file)
    candidates = [each for each in dataset.artifacts if each.size in (None, size)]
    if not candidates:
        raise _no_match(dataset, file, f"it has {size} bytes")
    temporary = store.layout.part("import", secrets.token_hex(8))
    with disk.storage_errors(f"{file} cannot be taken into the cache"):
        _bring(file, temporary)
        try:
            sums = sums_of(temporary, [d.algorithm for each in candidates for d in each.digests])
            artifact = _match(candidates, sums)
            if artifact is None:
                raise _no_match(dataset, file, f"its sha256 is {sums['sha256']}")
            size = os.path.getsize(temporary)  # which is what was hashed
            return store.blobs.publish_file(temporary, size, sums, artifact.digests)
        except BaseException:
            filesystem.drop(temporary)
            raise


def _bring(file: str, target: str) -> None:
    """Make `target` hold the bytes of `file`, without ever changing `file`."""
    try:
        copying.clone(file, target)
        return
    except OSError as error:
        if error.errno not in copying.UNSUPPORTED:
            raise
    if os.stat(file).st_mode & 0o666 == 0o444:  # as a blob must be; nothing is changed about it
        try:
            filesystem.link(file, target)
            return
        except OSError as error:
            if error.errno not in copying.UNSUPPORTED:
                raise
    copying.copy(file, target)


def _match(candidates: Sequence[Artifact], sums: Sums) -> Artifact | None:
    return next((each for each in candidates if sums.mismatch(each.digests) is None), None)


def _no_match(dataset: Dataset, file: str, found: str) -> IntegrityError:
    wanted = "".join(
        f"\n  {each.path}: {each.size or '?'} bytes, {each.identity}"
        for each in dataset.artifacts[:10]
    )
    return IntegrityError(
        f"{file} is none of the files of {dataset.reference}: {found}; expected:{wanted}",
        hint="the download may be incomplete or of another version; nothing was changed",
        file=file,
    )

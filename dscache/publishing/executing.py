"""Carrying out a plan: bytes first, then what names them, the index last.

Where somebody else has put something meanwhile, what is there is looked at again and decided anew,
by the same rules as in the plan. Whatever was put before an error or an interrupt stays; it names
nothing that is missing, and the next publishing goes on from there.
"""

from __future__ import annotations

import os
import time
from collections.abc import Generator, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager

from msgspec import structs

from dscache import disk
from dscache.bringing import Bringing
from dscache.call import Call
from dscache.depots import Depot
from dscache.depots.asking import together
from dscache.depots.uploading import Upload, upload_all
from dscache.digest import Digest
from dscache.events import Advanced, Emit, Finished, Notice, Planned, Started
from dscache.publishing import listing, rules, standing
from dscache.publishing.contention import conflict, waits
from dscache.publishing.planning import Plan
from dscache.publishing.rules import Put
from dscache.publishing.signed import Signer
from dscache.publishing.source import Piece, sha256_of
from dscache.registry import blobs
from dscache.registry.places import INDEX
from dscache.results import Publication
from dscache.transfer.wants import Want


def execute(call: Call, plan: Plan, depot: Depot, signer: Signer | None) -> Publication:
    """Put everything in its place; say what was done.

    Raises:
        IntegrityError: bytes are not what their entry says, or somebody has just published another
            content under one of the versions.
        TransferError: the destination cannot be reached or refuses, bytes cannot be fetched, or
            somebody else has published what the author does not have.
        StorageError: a file cannot be read.
    """
    began = _Began(plan, call.emit)
    with began.told():
        sizes = _upload(call, plan, depot, began)
        files = dict(plan.files)
        for step in plan.steps:
            for file, data in together(lambda put: _settled(put, plan, depot), step):
                files[file] = data
                began.files += 1
        if signer:
            signer.sign(files, listing.rows(plan.source), call.emit)
            signer.show_index()
        else:
            _list(plan, depot, {file: sha256_of(data) for file, data in files.items()})
    return structs.replace(plan.summary, bytes=sum(sizes))


class _Began:
    """How far a publishing has come."""

    def __init__(self, plan: Plan, emit: Emit) -> None:
        self.emit = emit
        self.uploads = self.files = 0
        self._plan = plan

    @contextmanager
    def told(self) -> Iterator[None]:
        """Say how far it came, however it ends before its end."""
        is_done = False
        try:
            yield
            is_done = True
        finally:
            if not is_done and (self.uploads or self.files):
                data = f"{self.uploads} of {len(self._plan.uploads)} files of data"
                entries = f"{self.files} of {sum(map(len, self._plan.steps))} entries"
                message = f"{data} and {entries} are at {self._plan.url}; publish again to go on"
                self.emit(Notice(message))


def _upload(call: Call, plan: Plan, depot: Depot, began: _Began) -> list[int]:
    """Put the bytes there, those from the cache too; their sizes."""
    emit = began.emit
    emit(Planned(len(plan.uploads), plan.summary.bytes))
    waiting = {piece.key: piece.of for piece in plan.uploads}
    sizes: list[int] = []

    def tell(upload: Upload, sent: int) -> None:
        if name := waiting.pop(upload.key, ""):
            emit(Started(upload.key, name, upload.size))
        emit(Advanced(upload.key, sent))

    with (
        _kept(call, plan.uploads),
        closing(_uploads(call, plan.uploads)) as uploads,
        closing(upload_all(depot, uploads, tell=tell)) as done,
    ):
        for upload, _ in done:
            sizes.append(upload.size)
            began.uploads += 1
            emit(Finished(upload.key, upload.size))
    return sizes


@contextmanager
def _kept(call: Call, pieces: Sequence[Piece]) -> Iterator[None]:
    """No prune takes what is uploaded from the cache meanwhile."""
    cached = [Digest("sha256", piece.sha256) for piece in pieces if not piece.path]
    if not cached:
        yield
        return
    call.store.prepare()
    with call.store.leases.new() as lease:
        with disk.storage_errors("the cache cannot be written"):
            lease.announce(cached)
        call.let_pass((digest.hex for digest in cached), "files")
        yield


def _uploads(call: Call, pieces: Sequence[Piece]) -> Generator[Upload, None, None]:
    """The files to upload; those that are not in the registry's folder are fetched as they come."""
    for piece in pieces:
        if piece.path:
            with disk.storage_errors(f"{piece.path} cannot be read"):
                size = os.path.getsize(piece.path) if piece.size is None else piece.size
            yield Upload(piece.key, piece.path, size, piece.sha256)
    wants = [Want(0, piece.artifact) for piece in pieces if piece.artifact]
    if not wants:
        return
    with closing(Bringing(call).deliver(wants)) as deliveries:
        for delivered in deliveries:
            if delivered.error:
                raise delivered.error
            if blob := delivered.blob:
                yield Upload(blobs.file(blob.sha256), blob.path, blob.size, blob.sha256)


def _settled(put: Put, plan: Plan, depot: Depot) -> tuple[str, bytes]:
    """Put a file in its place, whoever else is at it; the file, and what it holds now."""
    own = put.own
    wanted: Put | None = put
    for wait in waits():
        if wanted is None:
            break
        if depot.replace(own.file, wanted.data, wanted.version):
            return own.file, wanted.data
        time.sleep(wait)
        there = standing.read(depot, own.file)
        wanted = rules.put(own, there, plan.source.contents, depot.url)
        if there and wanted is None:
            return own.file, there.data
    raise conflict(own.file, depot)


def _list(plan: Plan, depot: Depot, files: Mapping[str, str]) -> None:
    """Write the index, with what others have written into it meanwhile."""
    rows = listing.rows(plan.source)
    for wait in waits():
        known, version = standing.read_listing(depot)
        data = listing.merged(known, rows, files)
        if data is None or depot.replace(INDEX, data, version):
            return
        time.sleep(wait)
    raise conflict(INDEX, depot)

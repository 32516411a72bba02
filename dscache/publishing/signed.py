"""Publishing signed registries: what is put at a destination counts once it is signed.

What `signing` makes is uploaded in its order, `metadata/timestamp.json` last, which makes all of it
count at once. Readers of a signed registry see the index that is signed; the plain one beside it
follows. How anything is signed is not known here.
"""

from __future__ import annotations

import time
from collections.abc import Mapping

import msgspec

from dscache import signing
from dscache.depots import Depot, Stored
from dscache.depots.asking import together
from dscache.errors import IntegrityError
from dscache.events import Emit, Notice
from dscache.publishing import listing, standing
from dscache.publishing.contention import conflict, waits
from dscache.publishing.listing import Listing
from dscache.publishing.source import Source, sha256_of
from dscache.registry.index import Row
from dscache.registry.places import INDEX
from dscache.signing import Keys, Renewal
from dscache.signing.roles import ROOT, TARGET_FOLDER, TIMESTAMP_FILE, metadata_file, target_file

_MOST = 256 << 20


def refuse_unsigned(depot: Depot, folder: str) -> None:
    """What is signed must not be changed by whoever has not its root: nobody would believe him.

    Raises:
        IntegrityError: the destination is signed.
    """
    if depot.size(metadata_file(ROOT, 1)) is not None:
        raise IntegrityError(
            f"{depot.url} is signed, and the registry in {folder} is not",
            hint="get its metadata/*.root.json into the folder, and its keys; nothing was uploaded",
        )


class Signer(msgspec.Struct, frozen=True):
    """Signs what an author publishes at one destination."""

    source: Source
    keys: Keys
    depot: Depot

    def listing(self) -> Listing:
        """The index that is signed there; an empty one where nothing is.

        Raises:
            IntegrityError: what is there is not what the author's keys have signed.
        """
        return self._listing(_Seen(self.depot))

    def try_out(self) -> None:
        """Refuse at once what signing would refuse later: a missing key, a destination rolled back.

        Raises:
            UsageError, IntegrityError, StorageError: as `signing.renewal`.
        """
        signing.renewal(self.source.folder, self.keys, _Seen(self.depot).read, {})

    def sign(self, files: Mapping[str, bytes], rows: Mapping[str, Row], emit: Emit) -> None:
        """Have the author's files signed as they are at the destination now, and the index.

        Raises:
            As `signing.renewal`; TransferError: others publish again and again.
        """
        sums = {file: sha256_of(data) for file, data in files.items()}
        for number, wait in enumerate(waits()):
            seen = _Seen(self.depot)
            known = self._listing(seen)
            news = {file: files[file] for file in files if known.files.get(file) != sums[file]}
            if number:
                news = self._still_there(news)
            if index := listing.merged(known, rows, sums):
                news[INDEX] = index
            renewal = signing.renewal(self.source.folder, self.keys, seen.read, news)
            if self._put(renewal, seen.version(TIMESTAMP_FILE)):
                self.depot.remove(renewal.obsolete)
                for notice in renewal.notices:
                    emit(Notice(notice))
                return
            time.sleep(wait)
        raise conflict(TIMESTAMP_FILE, self.depot)

    def show_index(self) -> None:
        """Put the index that is signed in the place of the plain one, unless that is newer.

        Raises:
            TransferError: others change it again and again.
        """
        for wait in waits():
            signed = self.listing()
            known, version = standing.read_listing(self.depot)
            if known.serial >= signed.serial:
                return
            if self.depot.replace(INDEX, listing.encode(signed), version):
                return
            time.sleep(wait)
        raise conflict(INDEX, self.depot)

    def _listing(self, seen: _Seen) -> Listing:
        sha256 = signing.signed_as(self.source.folder, seen.read, INDEX)
        return listing.decode(seen.read(target_file(sha256, INDEX)) if sha256 else None)

    def _still_there(self, files: Mapping[str, bytes]) -> dict[str, bytes]:
        """Those that nobody has replaced since they were put: who did, signs his own."""
        there = together(lambda file: standing.read(self.depot, file), files)
        return {
            file: data
            for (file, data), found in zip(files.items(), there, strict=True)
            if found and found.data == data
        }

    def _put(self, renewal: Renewal, version: str) -> bool:
        """Upload what was signed; False where another was faster."""
        *files, (last, data) = renewal.files
        copies = [each for each in files if each[0].startswith(f"{TARGET_FOLDER}/")]
        together(lambda each: self.depot.create(*each), copies)  # named by what is in them
        rest = (each for each in files if each not in copies)
        return all(self._created(*each) for each in rest) and self.depot.replace(
            last, data, version
        )

    def _created(self, file: str, data: bytes) -> bool:
        if self.depot.create(file, data):
            return True
        found = self.depot.read(file, _MOST)
        return found is not None and found.data == data


class _Seen:
    """A destination as it was when it was first looked at."""

    def __init__(self, depot: Depot) -> None:
        self._depot = depot
        self._files: dict[str, Stored | None] = {}

    def read(self, file: str) -> bytes | None:
        found = self._find(file)
        return found.data if found else None

    def version(self, file: str) -> str:
        found = self._find(file)
        return found.version if found else ""

    def _find(self, file: str) -> Stored | None:
        if file not in self._files:
            self._files[file] = self._depot.read(file, _MOST)
        return self._files[file]

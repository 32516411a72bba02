"""Provenance: from where the files of a recorded dataset can be had again.

The record says what they are, by sha256; whoever is asked for them says only where they were. So it
does not matter whether a registry has gone on to other content meanwhile.
"""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import closing

from msgspec.structs import replace

from dscache.bringing import Bringing
from dscache.call import Call
from dscache.digest import Digest
from dscache.errors import DscacheError, NotFound
from dscache.model import RETRIEVED, Artifact, Dataset, Reference
from dscache.registry import manifest
from dscache.store import File, Record, Unpacked
from dscache.transfer.wants import Want


class Provenance:
    """Where one recorded dataset came from; each registry is asked once, when it is needed."""

    def __init__(self, call: Call, record: Record) -> None:
        self._call = call
        self._record = record
        self._known: dict[str, Artifact] | DscacheError | None = None
        self._content = ""

    def artifact(self, row: File | Unpacked, recipe: str) -> Artifact:
        """What to ask for to get a file of the record again, or with a recipe what it unpacks to.

        Raises:
            DscacheError: it is not known where it can be had.
        """
        digest = Digest("sha256", row.sha256)
        made = Artifact(row.path, digest, row.size, unpack=recipe)
        if recipe and self._call.store.blobs.find([digest]):
            return made  # nothing has to be downloaded
        if self._record.registry == RETRIEVED:
            if not self._record.url:
                raise NotFound("from where it came is not recorded: the URL may hold a secret")
            return replace(made, urls=(self._record.url,))
        known = self._artifacts().get(row.path)
        if known is None:
            raise NotFound(f"its registry has no {row.path} of {self._record.reference} any more")
        return replace(made, urls=known.urls, manual=known.manual)

    def kept(self, sha256: str) -> Artifact:
        """What to ask for to get again what no view shows: the list of the dataset's files, or one
        that was imported while others were missing.

        Raises:
            DscacheError: it is not known where it can be had.
        """
        dataset, blobs = self._dataset(), self._call.store.blobs
        for each in (dataset.manifest.file,) if dataset.manifest else dataset.artifacts:
            if each.identity and blobs.known_as(each.identity) == sha256:
                digest = Digest("sha256", sha256)
                return Artifact(each.path, digest, each.size, urls=each.urls, manual=each.manual)
        raise NotFound(f"its registry has no such file of {self._record.reference} any more")

    def contradicts(self, row: File | Unpacked) -> bool:
        """True if by the registry the dataset holds another file there: the record is wrong.

        Raises:
            DscacheError: it cannot be asked.
        """
        known = self._artifacts().get(row.path) if self._record.registry != RETRIEVED else None
        if known is None or self._content != self._record.content:
            return False
        identity = known.identity
        return bool(identity and identity.algorithm == "sha256" and identity.hex != row.sha256)

    def _artifacts(self) -> dict[str, Artifact]:
        """What the registry lists now, by path."""
        if self._known is None:
            try:
                self._known = {each.path: each for each in self._listed()}
            except DscacheError as error:
                self._known = error
        if isinstance(self._known, DscacheError):
            raise self._known
        return self._known

    def _listed(self) -> Iterable[Artifact]:
        dataset = self._dataset()
        self._content = dataset.content
        if dataset.manifest is None:
            return dataset.artifacts
        local = dataset.base.startswith("file:")
        with closing(Bringing(self._call).deliver([Want(0, dataset.manifest.file)])) as deliveries:
            (delivered,) = deliveries
        if delivered.error:
            raise delivered.error
        if delivered.blob is None:
            raise RuntimeError("what was delivered is here")
        rows = {each.path for each in self._record.files}
        listed = manifest.read(delivered.blob.path, dataset.manifest, local=local)
        return [each for each in listed if each.path in rows]

    def _dataset(self) -> Dataset:
        """What the registry says of it now."""
        record = self._record
        return self._call.lookup.again(Reference(record.name, record.registry, record.version))

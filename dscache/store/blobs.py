"""Blobs: verified, read-only files under their sha256, and the aliases and proofs beside them.

Only this module makes a `Blob`, and a `Blob` is verified: nothing downstream checks again. Bytes
become a blob by one rename, the last step, after their hash was found right. Bytes found under
blobs/ are believed without hashing only if a proof says that they were measured in the running
boot, or were synced to the disk after they were measured (`durable`), and that file size and time
are as they were then. A file that is not believed stays until the right bytes take its place:
moving it away could hit the right ones that another process is just putting there.
"""

from __future__ import annotations

import itertools
import os
from collections.abc import Iterable, Iterator
from contextlib import suppress
from functools import cached_property

import msgspec

from dscache import disk, filesystem
from dscache.digest import Digest, Sums, fast_sum_of, is_sha256, sums_of
from dscache.errors import IntegrityError
from dscache.malformed import MALFORMED
from dscache.store.layout import Layout
from dscache.store.owner import Boot, is_running, this_boot

#: Up to this size, in bytes, hashing again is cheaper than keeping a proof, a journal and a lock.
SMALL = 1 << 20


class Blob(msgspec.Struct, frozen=True, gc=False):
    """A verified, immutable file: its sha256 and xxh3_128 in hex, size in bytes, and path."""

    sha256: str
    size: int
    xxh3_128: str
    path: str


class _Proof(msgspec.Struct, frozen=True):
    size: int
    mtime_ns: int
    xxh3_128: str
    boot: Boot | None
    durable: bool
    format: int = 1

    def fits(self, found: os.stat_result) -> bool:
        """True if the file has not been written to since it was measured."""
        return (self.size, self.mtime_ns) == (found.st_size, found.st_mtime_ns)

    @property
    def holds(self) -> bool:
        """True if no power cut can have come between measuring and now."""
        return self.durable or is_running(self.boot)


class Blobs:
    """The blobs of one cache root. With `durable` each is synced before it is published, with
    `read_only` it is not noted what was found out of them.

    What publishes raises the operating system's error as it comes, for who knows what was to be
    stored; everything else raises StorageError.
    """

    def __init__(self, layout: Layout, *, durable: bool, read_only: bool = False) -> None:
        self._layout = layout
        self._durable = durable
        self._read_only = read_only
        self._numbers = itertools.count()

    def find(self, digests: Iterable[Digest]) -> Blob | None:
        """The blob that has all of `digests`, if it is here and its bytes can be believed.

        Raises:
            IntegrityError: the bytes match the identity but not another of the digests, so that
                what asks for them contradicts itself.
        """
        wanted = tuple(digests)
        sha256 = self._resolve(wanted)
        if sha256 is None:
            return None
        with disk.storage_errors("a file of the cache cannot be read"):
            blob = self._believed(sha256)
            if blob is None:
                return None
            unproven = [each for each in wanted if not self._is_known(blob, each)]
            return blob if not unproven or self._check(blob, unproven) else None

    def known(self, digests: Iterable[Digest]) -> str | None:
        """The sha256 of what has all of `digests`, as far as is known; the bytes may be gone."""
        wanted = tuple(digests)
        sha256 = self._resolve(wanted)
        if sha256 is None:
            return None
        others = (each for each in wanted if each.algorithm != "sha256")
        return sha256 if all(self._alias(each) == sha256 for each in others) else None

    def known_as(self, digest: Digest) -> str | None:
        """The sha256 of what has that digest, as far as is known."""
        return self._resolve((digest,))

    def hashes(self) -> Iterator[str]:
        """The sha256 of every blob that is here, by its name."""
        with disk.storage_errors("the cache cannot be read"):
            yield from filter(is_sha256, disk.names_below(self._layout.blobs))

    def size(self, sha256: str) -> int:
        """Bytes of the file under that sha256, whatever it holds; 0 if there is none."""
        try:
            return os.stat(self._layout.blob(sha256)).st_size
        except OSError:
            return 0

    def aliases(self) -> Iterator[tuple[str, str]]:
        """The path of each alias, and the sha256 that it gives; "" where it makes no sense."""
        folder = self._layout.aliases
        for algorithm in disk.names(folder):
            for shard in disk.names(f"{folder}/{algorithm}"):
                for name in disk.names(f"{folder}/{algorithm}/{shard}"):
                    path = f"{folder}/{algorithm}/{shard}/{name}"
                    if not name.endswith(".tmp"):
                        yield path, _sha256_in(path) or ""

    def spoken_of(self, note: str) -> str:
        """The sha256 of what the alias or proof at that path speaks of; "" if it makes no sense."""
        if note.startswith(f"{self._layout.proofs}/"):
            return "".join(note.removesuffix(".json").split("/")[-2:])
        return _sha256_in(note) or ""

    def distrust(self, sha256: str) -> None:
        """Have a blob hashed before it is used again.

        Raises:
            StorageError: the disk does not let its proof be removed.
        """
        with disk.storage_errors("a file of the cache cannot be given up"):
            proof = self._layout.proof(sha256)
            if os.path.exists(proof):
                filesystem.unlink(proof)
                filesystem.sync_path(os.path.dirname(proof))

    def where(self, digest: Digest) -> str | None:
        """The path of the file that is there under that digest, believed or not."""
        sha256 = self._resolve((digest,))
        path = self._layout.blob(sha256) if sha256 else ""
        return path if path and os.path.exists(path) else None

    def publish_bytes(self, data: bytes, sums: Sums, known_as: Iterable[Digest] = ()) -> Blob:
        """Store bytes whose hashes the caller has computed and found right."""
        temporary = self._layout.part("small", f"{self._token}{next(self._numbers):x}")
        with filesystem.created(temporary, final=True) as fd:
            filesystem.write(fd, [data], 0)
            if self._durable:
                filesystem.sync(fd)
        try:
            return self._publish(temporary, len(data), sums, known_as)
        except BaseException:
            filesystem.drop(temporary)
            raise

    def publish_file(
        self, path: str, size: int, sums: Sums, known_as: Iterable[Digest] = ()
    ) -> Blob:
        """Move a file of our own, whose hashes were found right, to its place."""
        if self._durable:
            filesystem.sync_path(path)
        filesystem.seal(path)
        return self._publish(path, size, sums, known_as)

    def sync(self, blob: Blob) -> None:
        """Bring a blob that was verified to the disk, if it is not known to be there."""
        with disk.storage_errors("a file of the cache cannot be synced"):
            found = os.stat(blob.path)
            proof = self._proof(blob.sha256) if blob.size > SMALL else None
            if proof is None or not proof.durable or not proof.fits(found):
                filesystem.sync_path(blob.path)
                filesystem.sync_path(os.path.dirname(blob.path))
                self._prove(blob, found.st_mtime_ns, durable=True)

    def verify(self, sha256: str, size: int, xxh3_128: str) -> Blob | None:
        """The blob if its bytes still have that size and xxh3_128, else None."""
        path = self._layout.blob(sha256)
        with disk.storage_errors("a file of the cache cannot be read"):
            try:
                if os.stat(path).st_size != size or fast_sum_of(path) != xxh3_128:
                    return None
            except FileNotFoundError:
                return None
        return Blob(sha256, size, xxh3_128, path)

    @cached_property
    def _token(self) -> str:
        """How no other process begins its names; asking for one for each file would take longer."""
        return f"{os.urandom(8).hex()}-"

    def _publish(self, source: str, size: int, sums: Sums, known_as: Iterable[Digest]) -> Blob:
        sha256 = sums["sha256"]
        blob = Blob(sha256, size, sums["xxh3_128"], self._layout.blob(sha256))
        for digest in known_as:
            self._remember(digest, blob)
        if size > SMALL:
            self._prove(blob, os.stat(source).st_mtime_ns, durable=self._durable)
        try:
            filesystem.rename(source, blob.path)
        except FileNotFoundError:
            filesystem.make_folder(os.path.dirname(blob.path))
            filesystem.rename(source, blob.path)
        if self._durable:
            filesystem.sync_path(os.path.dirname(blob.path))
        return blob

    def _resolve(self, digests: tuple[Digest, ...]) -> str | None:
        """The sha256 of what is asked for. An entry that has one never trusts an alias."""
        for digest in digests:
            if digest.algorithm == "sha256":
                return digest.hex
        for digest in sorted(digests, key=lambda each: each.weak):
            if (sha256 := self._alias(digest)) is not None:
                return sha256
        return None

    def _believed(self, sha256: str) -> Blob | None:
        path = self._layout.blob(sha256)
        try:
            found = os.stat(path)
            proof = self._proof(sha256) if found.st_size > SMALL else None
            if proof and proof.holds and proof.fits(found):
                return Blob(sha256, proof.size, proof.xxh3_128, path)
            sums = sums_of(path)
        except FileNotFoundError:
            return None
        if sums["sha256"] != sha256:
            return None
        blob = Blob(sha256, found.st_size, sums["xxh3_128"], path)
        if blob.size > SMALL and not self._read_only:
            with suppress(OSError):  # a cache of others; without a proof it is hashed again
                filesystem.sync_path(path)
                self._prove(blob, found.st_mtime_ns, durable=True)
        return blob

    def _is_known(self, blob: Blob, digest: Digest) -> bool:
        if digest.algorithm == "sha256":
            return digest.hex == blob.sha256
        if digest.algorithm in ("xxh3_128", "xxh128"):  # two names of one function
            return digest.hex == blob.xxh3_128
        return self._alias(digest) == blob.sha256

    def _check(self, blob: Blob, digests: list[Digest]) -> bool:
        """Hash the blob by what nobody has hashed it by. False if its bytes have been damaged."""
        sums = sums_of(blob.path, [each.algorithm for each in digests])
        if sums["sha256"] != blob.sha256:
            return False
        if wrong := sums.mismatch(digests):
            raise IntegrityError(
                f"the file with sha256 {blob.sha256} is here, but its {wrong.algorithm} is "
                f"{sums[wrong.algorithm]}, not {wrong.hex}",
                hint="the registry entry contradicts itself; tell its maintainer",
                digest=f"sha256:{blob.sha256}",
            )
        if not self._read_only:
            with suppress(OSError):  # a cache of others; without an alias it is hashed again
                for digest in digests:
                    self._remember(digest, blob)
        return True

    def _alias(self, digest: Digest) -> str | None:
        return _sha256_in(self._layout.alias(digest))

    def _remember(self, digest: Digest, blob: Blob) -> None:
        if digest.algorithm != "sha256" and self._alias(digest) != blob.sha256:
            path = self._layout.alias(digest)
            filesystem.publish_bytes(f"{blob.sha256}\n".encode(), path, durable=self._durable)

    def _proof(self, sha256: str) -> _Proof | None:
        try:
            data = disk.read_small(self._layout.proof(sha256), 4096)
            return msgspec.json.decode(data, type=_Proof)
        except (OSError, *MALFORMED):
            return None  # no proof means that the bytes are hashed

    def _prove(self, blob: Blob, mtime_ns: int, *, durable: bool) -> None:
        """Write down what was measured. `mtime_ns` is the file's time before it was."""
        if blob.size > SMALL:
            proof = _Proof(blob.size, mtime_ns, blob.xxh3_128, this_boot(), durable)
            path = self._layout.proof(blob.sha256)
            filesystem.publish_bytes(msgspec.json.encode(proof), path, durable=self._durable)


def _sha256_in(path: str) -> str | None:
    """What an alias says; None where there is none, or it is torn or tampered with."""
    try:
        text = disk.read_small(path, 65).decode("ascii", "replace")
        return Digest("sha256", text.strip()).hex
    except (OSError, ValueError):
        return None

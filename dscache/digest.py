"""Digests: an algorithm and a hex value, in Pooch's grammar, and the hashers that compute them.

Identity in the store is sha256. Any other algorithm is a checksum: verified as well, but md5, sha1
and the xxh family prove nothing against somebody who wants to deceive.
"""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Callable, Iterable
from functools import lru_cache, partial
from typing import Protocol

import msgspec

from dscache import disk
from dscache.errors import UsageError

#: Length of the hex value per algorithm; what Pooch's grammar names and both libraries compute.
HEX_LENGTH = {
    "md5": 32,
    "sha1": 40,
    "sha224": 56,
    "sha256": 64,
    "sha384": 96,
    "sha512": 128,
    "sha3_224": 56,
    "sha3_256": 64,
    "sha3_384": 96,
    "sha3_512": 128,
    "blake2b": 128,
    "blake2s": 64,
    "xxh32": 8,
    "xxh64": 16,
    "xxh128": 32,
    "xxh3_64": 16,
    "xxh3_128": 32,
}
WEAK = frozenset({"md5", "sha1", "xxh32", "xxh64", "xxh128", "xxh3_64", "xxh3_128"})

#: So much is read at a time: it is hashed before it leaves the second-level cache of its core.
_CHUNK = 1 << 18
_HEX = re.compile(r"[0-9a-f]*")
_SHA256 = re.compile(r"[0-9a-f]{64}")


class Hasher(Protocol):
    """What hashlib and xxhash objects have in common."""

    def update(self, data: bytes | memoryview, /) -> object: ...
    def hexdigest(self) -> str: ...


class Digest(msgspec.Struct, frozen=True, order=True, gc=False):
    """One hash value: `algorithm` in lower case, `hex` in lower case, length checked."""

    algorithm: str
    hex: str

    def __post_init__(self) -> None:
        length = HEX_LENGTH.get(self.algorithm)
        if length is None:
            known = ", ".join(HEX_LENGTH)
            raise UsageError(f"unknown hash algorithm {self.algorithm!r}; known are {known}")
        if len(self.hex) != length or not _HEX.fullmatch(self.hex):
            raise UsageError(f"{self.hex!r} is no {self.algorithm}: {length} hex digits expected")

    def __str__(self) -> str:
        return f"{self.algorithm}:{self.hex}"

    @property
    def weak(self) -> bool:
        """True where a match does not prove the content (md5, sha1, xxh)."""
        return self.algorithm in WEAK

    @classmethod
    def parse(cls, text: str) -> Digest:
        """Read `alg:hex`; without `alg:` it is a sha256.

        Raises:
            UsageError: unknown algorithm, or not the right number of hex digits.
        """
        algorithm, colon, value = text.strip().partition(":")
        if not colon:
            algorithm, value = "sha256", algorithm
        return cls(algorithm.lower(), value.lower())


def is_sha256(text: str) -> bool:
    """True for a sha256 in hex."""
    return _SHA256.fullmatch(text) is not None


def hasher(algorithm: str) -> Hasher:
    """A new hasher for one of `HEX_LENGTH`'s algorithms."""
    return _maker(algorithm)()


@lru_cache(maxsize=len(HEX_LENGTH))
def _maker(algorithm: str) -> Callable[[], Hasher]:
    if algorithm.startswith("xxh"):
        import xxhash  # late: a hit hashes nothing

        made: Callable[[], Hasher] = getattr(xxhash, algorithm)
        return made
    return partial(getattr(hashlib, algorithm), usedforsecurity=False)


class Sums:
    """All the hashes of one stream, updated together: sha256, xxh3_128 and what else is asked."""

    def __init__(self, algorithms: Iterable[str] = ()) -> None:
        wanted = dict.fromkeys(("sha256", "xxh3_128", *algorithms))
        self._hashers = {algorithm: _maker(algorithm)() for algorithm in wanted}

    def update(self, data: bytes | memoryview) -> None:
        """Take the next bytes of the stream."""
        for each in self._hashers.values():
            each.update(data)

    def __getitem__(self, algorithm: str) -> str:
        return self._hashers[algorithm].hexdigest()

    def mismatch(self, expected: Iterable[Digest]) -> Digest | None:
        """The first of `expected` that the bytes do not have, or None if all match."""
        for digest in expected:
            if self[digest.algorithm] != digest.hex:
                return digest
        return None


def sums_of(path: str, algorithms: Iterable[str] = ()) -> Sums:
    """The hashes of a whole file: sha256, xxh3_128 and what else is asked."""
    sums = Sums(algorithms)
    _read(path, sums.update)
    return sums


def fast_sum(data: bytes | memoryview) -> str:
    """The xxh3_128 of some bytes in hex."""
    return _fast_function()(data)


@lru_cache(maxsize=1)
def _fast_function() -> Callable[[bytes | memoryview], str]:
    import xxhash  # late: as above

    function: Callable[[bytes | memoryview], str] = xxhash.xxh3_128_hexdigest
    return function


def fast_sum_of(path: str) -> str:
    """The xxh3_128 of a whole file in hex: at memory speed, a proof against accidents only."""
    fast = hasher("xxh3_128")
    _read(path, fast.update)
    return fast.hexdigest()


class Reader:
    """Hashes whole files, one after the other, through one buffer; made for one thread.

    Files are read and not mapped: one that is cut off meanwhile, or that the disk does not give
    out, would end the process.

    Args:
        pace: called with the number of bytes after each read; may wait, or raise to end it.
    """

    def __init__(self, pace: Callable[[int], object]) -> None:
        self._buffer = disk.buffer(_CHUNK)
        self._pace = pace

    def sum_of(self, path: str, algorithm: str) -> str:
        """The hash of a file in hex."""
        made = hasher(algorithm)
        update, pace = made.update, self._pace

        def take(data: memoryview) -> None:
            update(data)
            pace(len(data))

        _read(path, take, self._buffer)
        return made.hexdigest()


def _read(
    path: str, take: Callable[[memoryview], object], buffer: memoryview | None = None
) -> None:
    with open(path, "rb", buffering=0) as file:
        if buffer is None:
            size = os.fstat(file.fileno()).st_size
            buffer = disk.buffer(min(size, _CHUNK) or 1)
        while count := file.readinto(buffer):
            take(buffer[:count])

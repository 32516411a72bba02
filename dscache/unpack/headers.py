"""Headers of tar archives: plain ones read at a glance, all others by tarfile.

tarfile takes 45 µs for a header, more than it takes to write a small file, and holds the
interpreter meanwhile, which a download wants too.
"""

from __future__ import annotations

import re
import tarfile
import zlib
from collections.abc import Iterator
from typing import Any, cast

from dscache.unpack.growing import Windows
from dscache.unpack.rules import Rules

#: What reading a damaged archive raises. tarfile calls itself for a header that extends another.
DAMAGE: tuple[type[Exception], ...] = (
    tarfile.TarError,
    ValueError,
    EOFError,
    OverflowError,
    RecursionError,
)

_BLOCK = 512
#: Bytes that the headers of one member may take: long names, attributes, the parts of sparse files.
_LONGEST = 4 << 20
#: Up to so many are not held against the limits.
_USUAL = 16 << 10
#: tarfile's patterns take the square of the time for these (CVE-2024-6232); no name has so many.
_DIGITS = re.compile(rb"[0-9]{256}")
#: What a global header says stays until the end of the archive.
_MOST_GLOBAL = 100
#: A header whose fields are all as most programs write them (POSIX.1-1988, pax: "ustar"): name,
#: mode, size and sum in octal, a file, no prefix of the name.
_PLAIN = re.compile(
    rb"([^\0]{1,100})\0{0,99}(?<=^.{100})"
    rb"([0-7]{6,7})[\0 ]{1,2}(?<=^.{108}).{16}"
    rb"([0-7]{11})[\0 ].{12}([0-7]{6})\0 0.{100}ustar(?:\x0000|  \0).{80}\0",
    re.DOTALL,
)


def headers(stream: Windows, rules: Rules) -> Iterator[tarfile.TarInfo]:
    """The headers of all members; what of a member has not been taken is left out.

    Raises:
        UnsafeError: they are too much.
        any of DAMAGE: the archive is damaged.
    """
    source = _Source(stream)
    archive = tarfile.TarFile(
        fileobj=cast(Any, source), mode="r", encoding="utf-8", errors="surrogateescape"
    )
    member = archive.next()  # read already
    while member is not None:
        if member.size < 0 or len(archive.pax_headers) > _MOST_GLOBAL:
            raise ValueError("a header makes no sense")
        if source.used > _USUAL:
            rules.bytes(member.name, source.used)
        yield member
        rest = archive.offset - stream.tell()
        if rest < 0:
            raise ValueError(f"member {member.name[:300]!r} has more parts than bytes")
        if rest >= _BLOCK:
            rules.bytes(member.name, rest)
        stream.skip(rest)
        block = bytes(stream.peek(_BLOCK))
        if not any(block):
            return
        source.used = 0
        plain = None if archive.pax_headers else _plain(block)
        if plain:
            stream.skip(_BLOCK)
            archive.offset = stream.tell() + -(-plain.size // _BLOCK) * _BLOCK
        member = plain or tarfile.TarInfo.fromtarfile(archive)


def _plain(block: bytes) -> tarfile.TarInfo | None:
    """The member, if it is a file, and its header says so in the usual way."""
    found = _PLAIN.match(block)
    if found is None:
        return None
    name, mode, size, written = found.groups()
    # The sum is that of the header with blanks in its place.
    if _sum(block[:256]) + _sum(block[256:]) - sum(block[148:156]) + 8 * 0x20 != int(written, 8):
        return None
    member = tarfile.TarInfo(name.decode("utf-8", "surrogateescape"))
    member.mode, member.size = int(mode, 8), int(size, 8)
    return member


def _sum(half: bytes) -> int:
    """The sum of at most 256 bytes, in a sixth of the time of `sum`."""
    return (zlib.adler32(half) & 0xFFFF) - 1  # RFC 1950, 9: they are less than its modulus


class _Source:
    """The stream as tarfile sees it, which reads nothing but headers."""

    def __init__(self, stream: Windows) -> None:
        self._stream = stream
        self.tell = stream.tell
        self.used = 0

    def read(self, count: int) -> bytes:
        if not 0 <= count <= _LONGEST - self.used:
            raise ValueError(f"a header of {self.used + count} bytes")
        self.used += count
        data = self._stream.read(count)
        if count > _BLOCK and _DIGITS.search(data):
            raise ValueError("a header of nothing but digits")
        return data

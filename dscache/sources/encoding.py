"""Content encodings that nobody asked for: how to take them off again."""

from __future__ import annotations

import zlib
from collections.abc import Iterable, Iterator

#: What `unzipped` can decode (RFC 9110, 8.4.1.3).
GZIP = frozenset({"gzip", "x-gzip"})

_PIECE = 1 << 20
_GZIP_WINDOW = 31  # zlib.h: the largest window, with a gzip header


def unzipped(chunks: Iterable[bytes], most: int) -> Iterator[bytes]:
    """The decoded bytes of a gzip body, of one member or several; at most a piece beyond `most`.

    Raises:
        zlib.error: the body is no gzip, or is cut off.
    """
    decoder = zlib.decompressobj(wbits=_GZIP_WINDOW)
    size = 0
    for chunk in chunks:
        while chunk and size <= most:
            if decoder.eof:
                decoder = zlib.decompressobj(wbits=_GZIP_WINDOW)
            data = decoder.decompress(chunk, _PIECE)
            size += len(data)
            yield data
            chunk = decoder.unconsumed_tail or decoder.unused_data
    if not decoder.eof and size <= most:
        raise zlib.error("the end is missing")

"""Items: what a view holds, each with the file of the store that stands for it."""

from __future__ import annotations

import msgspec


class Item(msgspec.Struct, frozen=True, gc=False):
    """One entry of a view.

    Attributes:
        path: where it stands in the view.
        source: path of the file in the store that has its bytes; empty for folders and links.
        size: bytes.
        xxh3_128: of the bytes, in hex.
        kind: "file", "folder" (named so that an empty one stands, too) or "link": a symbolic link
            of an archive, which leads to another entry of the same view.
        target: what a link holds.
    """

    path: str
    source: str = ""
    size: int = 0
    xxh3_128: str = ""
    kind: str = "file"
    target: str = ""

"""Single compressed files: one member, whose name is the view's business."""

from __future__ import annotations

from dscache.store.drafts import Draft
from dscache.unpack.growing import Windows
from dscache.unpack.rules import Rules

#: The name of the only member of a tree that is a single file.
CONTENT = "content"
_PIECE = 1 << 20


def unpack(stream: Windows, draft: Draft, rules: Rules, path: str) -> None:
    """Unpack the file to `path`.

    Raises:
        UnsafeError: it is larger than the limits allow.
    """
    with draft.new_file(rules.name(path)) as file:
        while stream.peek(1):
            data = stream.take(_PIECE)
            rules.bytes(path, len(data))
            file.write(data)

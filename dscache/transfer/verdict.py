"""What came instead of the file: how to tell, and how to say it. Pure."""

from __future__ import annotations

from dscache.model import Artifact
from dscache.sources.exchange import Failure, Head, Trouble

#: First bytes that are enough to tell and to show.
ENOUGH = 512
_SHOWN, _SHOWN_BYTES = 80, 16
_PAGES = frozenset({"text/html", "application/xhtml+xml"})
_PAGE_NAMES = (".html", ".htm", ".xhtml")
_PAGE_STARTS = (b"<!doctype html", b"<html")


def is_page(artifact: Artifact, head: Head | None, first: bytes) -> bool:
    """True for a web page where no page was asked for: of a login, a quota, an error."""
    if artifact.path.lower().endswith(_PAGE_NAMES):
        return False
    is_called_one = head is not None and head.media_type in _PAGES
    return is_called_one or first.lstrip().lower().startswith(_PAGE_STARTS)


def wrong_bytes(artifact: Artifact, head: Head | None, first: bytes, what: str) -> Failure:
    """The failure of a source whose bytes begin with `first`; `what` is wrong with them."""
    kind = (head.media_type if head else "") or "no type"
    page = "a web page, " if is_page(artifact, head, first) else ""
    text = first[:_SHOWN].decode("utf-8", "replace")
    is_text = text.count("\ufffd") < 2  # the last letter may be cut
    shown = repr(text) if is_text else first[:_SHOWN_BYTES].hex(" ")
    return Failure(Trouble.WRONG, f"{what} ({page}{kind}, beginning with {shown})")


def wrong_size(artifact: Artifact, head: Head, first: bytes) -> Failure:
    """The failure of a source that announces another size than the registry."""
    total, size = head.total, artifact.size
    reason = f"{total} bytes instead of {size}"
    is_short = total is not None and size is not None and total < size
    if is_short and not is_page(artifact, head, first):
        return Failure(Trouble.SHORT, reason)
    return wrong_bytes(artifact, head, first, reason)

"""What JSON that makes no sense raises when it is read; nothing else of JSON is known here."""

from __future__ import annotations

from typing import Final

import msgspec

#: msgspec tells of bytes that are no text, and of nesting without end, by the errors of Python.
#: Whoever reads a file that a disk may have spoiled, or others have written, meets all of them.
MALFORMED: Final = (msgspec.MsgspecError, UnicodeDecodeError, RecursionError)

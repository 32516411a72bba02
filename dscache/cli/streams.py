"""The streams of the command line, where they are closed, full, or nobody reads them any more.

stdout is data: that it takes none is an error. stderr is talk: nothing fails for its sake. What is
said on them is not known here.
"""

from __future__ import annotations

import io
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TextIO


def prepare() -> None:
    """Have both streams, though they were closed, and have stdout take any path and any text."""
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:
            nowhere = open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115 - for all time
            setattr(sys, name, nowhere)
    if isinstance(sys.stdout, io.TextIOWrapper):
        is_utf8 = sys.stdout.encoding.lower() in ("utf-8", "utf8")
        sys.stdout.reconfigure(errors="surrogateescape" if is_utf8 else "replace")


@contextmanager
def talk() -> Iterator[None]:
    """What is said in the block may be said to nobody."""
    try:
        yield
    except OSError:
        is_lost(sys.stderr)


def is_lost(stream: TextIO) -> bool:
    """True if a stream takes no line any more; what follows is sent nowhere then."""
    try:
        stream.write("\n")
        stream.flush()
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
        return True
    return False

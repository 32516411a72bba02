"""A face on a terminal: one line on standard error, drawn over again. Notices stay above it.

No escape sequences, so that it works on every terminal; bars for each file are the command line's.
"""

from __future__ import annotations

import shutil
from typing import TextIO

from dscache.progress.tally import Tally
from dscache.sheets import printable


class Line:
    """The last line of a terminal."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._width = 0
        self._told = 0

    def draw(self, tally: Tally, notices: list[str]) -> None:
        """Show how it stands."""
        self._tell(notices)
        room = shutil.get_terminal_size((80, 24)).columns - 1
        self._put(printable(tally.note or tally.summary())[:room])

    def end(self, line: str, notices: list[str]) -> None:
        """Leave one line."""
        self._tell(notices)
        self._put(printable(line))
        self._stream.write("\n" if line else "")
        self._stream.flush()

    def _tell(self, notices: list[str]) -> None:
        for each in notices[self._told :]:
            self._put(f"note: {printable(each)}")
            self._stream.write("\n")
            self._width = 0
        self._told = len(notices)

    def _put(self, text: str) -> None:
        """Write over what stands there; an empty text leaves the cursor where the line begins."""
        over = "" if text or not self._width else "\r"
        if text or self._width:
            self._stream.write(f"\r{text.ljust(self._width)}{over}")
            self._stream.flush()
        self._width = len(text)

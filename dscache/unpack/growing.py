"""Reading a file that may still be arriving: by a thread that waits for the bytes, in windows."""

from __future__ import annotations

import errno
import io
from collections.abc import Callable
from threading import Condition

from dscache import disk

#: Wait until so many bytes are there, so that threads do not change hands all the time.
_STEP = 1 << 20
#: Bytes that a window shows at most.
WINDOW = 4 << 20


class Stopped(Exception):
    """Nobody wants the rest of the file any more."""


class Growing(io.RawIOBase):
    """The bytes of a file that grows at its end. Close it to let go of the file."""

    def __init__(self, path: str, look: Callable[[], None] = lambda: None) -> None:
        """`look` is called now and then; raises if nobody wants the rest."""
        super().__init__()
        self._look = look
        self._path = path
        self._file: io.FileIO | None = None
        self._position = 0
        self._size = 0
        self._is_complete = False
        self._is_stopped = False
        self._changed = Condition()

    def grow(self, size: int) -> None:
        """The first `size` bytes are final."""
        with self._changed:
            self._size = size
            if size - self._position >= _STEP:
                self._changed.notify()

    def complete(self) -> None:
        """No more bytes will come."""
        with self._changed:
            self._is_complete = True
            self._changed.notify()

    def stop(self) -> None:
        """Have the reader give up at its next look, with `Stopped`."""
        with self._changed:
            self._is_stopped = True
            self._changed.notify()

    @property
    def size(self) -> int:
        """How many bytes are here."""
        return self._size

    @property
    def is_complete(self) -> bool:
        """True if no more bytes will come."""
        return self._is_complete

    def tell(self) -> int:
        """How many bytes have been read."""
        return self._position

    def skip(self, count: int) -> None:
        """Count bytes that were read in another way; `Stopped` if nobody wants the rest."""
        self._look()
        if self._is_stopped:
            raise Stopped
        self._position += count

    def wait(self) -> None:
        """Wait until all of the file is here, or raise `Stopped`."""
        with self._changed:
            self._changed.wait_for(lambda: self._is_complete or self._is_stopped)
        self.skip(0)

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: bytearray | memoryview) -> int:  # type: ignore[override]
        with self._changed:
            self._changed.wait_for(self._has_news)
            self.skip(0)
            wanted = min(len(buffer), self._size - self._position)
        if wanted <= 0:
            return 0
        self._file = self._file or io.FileIO(self._path)
        count = self._file.readinto(memoryview(buffer)[:wanted])
        if not count:
            raise OSError(errno.EIO, "became shorter while it was unpacked", self._path)
        self._position += count
        return count

    def close(self) -> None:
        if self._file:
            self._file.close()
        super().close()

    def _has_news(self) -> bool:
        is_worth_it = self._size - self._position >= _STEP
        return is_worth_it or self._is_complete or self._is_stopped


class Windows:
    """A stream seen through a window that moves on: whole stretches of it without copying them.

    Has what tarfile needs to read headers (`read`, `tell`).

    Attributes:
        look: raises if nobody wants the bytes.
        turn: called with the buffer before bytes in it are written over; gives the one to go on
            with, which may be the same.
    """

    def __init__(self, file: io.BufferedIOBase, look: Callable[[], None] = lambda: None) -> None:
        """`look` is called before bytes are handed out."""
        self._file = file
        self.look = look
        self._buffer = disk.buffer(WINDOW)
        self.turn: Callable[[memoryview], memoryview] = lambda buffer: buffer
        self._start = self._end = 0
        self._offset = 0

    def tell(self) -> int:
        """How many bytes have been taken."""
        return self._offset

    def peek(self, count: int) -> memoryview:
        """The next bytes, fewer only at the end of the stream; they are not taken.

        Valid until the buffer is asked for by `turn`. `count` is at most 4 MiB.
        """
        self.look()
        while self._end - self._start < count and self._fill():
            pass
        return self._buffer[self._start : min(self._end, self._start + count)]

    def take(self, count: int) -> memoryview:
        """The next bytes, at most 4 MiB at once.

        Raises:
            EOFError: the stream has ended.
        """
        self.look()
        if self._start == self._end and not self._fill() and count:
            raise EOFError("the archive ends in the middle of a member")
        end = min(self._end, self._start + count)
        data = self._buffer[self._start : end]
        self._offset += end - self._start
        self._start = end
        return data

    def read(self, count: int) -> bytes:
        """The next bytes, fewer at the end of the stream; for headers only.

        Raises:
            ValueError: no header is as long.
        """
        if not 0 <= count <= WINDOW:
            raise ValueError(f"a header of {count} bytes")
        data = bytes(self.peek(count))
        self._start += len(data)
        self._offset += len(data)
        return data

    def skip(self, count: int) -> None:
        """Leave bytes out. Raises as `take`."""
        if count <= self._end - self._start:
            self._start += count
            self._offset += count
            return
        while count > 0:
            count -= len(self.take(count))

    def _fill(self) -> bool:
        """Read on; False at the end of the stream."""
        if self._start == self._end or self._end == len(self._buffer):
            kept = bytes(self._buffer[self._start : self._end])
            self._buffer = self.turn(self._buffer)
            self._buffer[: len(kept)] = kept
            self._start, self._end = 0, len(kept)
        count = self._file.readinto(self._buffer[self._end :])
        self._end += count or 0
        return bool(count)

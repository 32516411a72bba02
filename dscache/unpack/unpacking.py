"""One archive on its way to a tree: read by a thread, also while it is still arriving.

What is read may be wrong as long as the archive's hash is not known. So all stays in a draft that
nobody sees, what is found wrong with it is said only when it is asked for, and it is thrown away
when the bytes start over.
"""

from __future__ import annotations

from concurrent.futures import Executor, Future, wait

from msgspec.structs import replace

from dscache.store import Blob
from dscache.store.drafts import Draft
from dscache.store.trees import Tree, Trees
from dscache.unpack.filling import fill
from dscache.unpack.growing import Growing
from dscache.unpack.reading import Archive
from dscache.unpack.rules import Limits

#: Nothing is begun for less: most downloads that start over do so at their beginning.
_WORTH_IT = 1 << 20


class Unpacking:
    """Fills a draft from an archive.

    Attributes:
        archive: what is unpacked.

    Args:
        key: under which drafts of the same archive are known.
        executor: has a thread for it, which waits as long as bytes are missing.
    """

    def __init__(
        self, archive: Archive, trees: Trees, key: str, limits: Limits, executor: Executor
    ) -> None:
        self.archive = archive
        self._trees = trees
        self._key = key
        self._limits = limits
        self._executor = executor
        self._growing = Growing(archive.path)
        self._size = archive.size
        self._future: Future[Draft] | None = None

    @property
    def is_done(self) -> bool:
        """True when `publish` need not wait."""
        return self._future is not None and self._future.done()

    @property
    def done(self) -> int:
        """Bytes of the archive that have been unpacked."""
        return self._growing.tell()

    def expect(self, size: int) -> None:
        """The archive is going to have that size. Until that is known nothing is unpacked, since
        there is no telling what it may unpack to.
        """
        self._size = self._size or size

    def grow(self, size: int) -> None:
        """The first `size` bytes of the archive are here."""
        self._growing.grow(size)
        if size >= _WORTH_IT and self._size:
            self._begin()

    def complete(self) -> None:
        """All of it is here."""
        self.expect(self._growing.size)
        self._growing.complete()
        self._begin()

    def restart(self) -> None:
        """Forget what has been unpacked: the archive begins again."""
        self.stop()
        self._growing = Growing(self.archive.path)
        self._size = self.archive.size

    def stop(self) -> None:
        """End the thread, and remove what it has made."""
        future, self._future = self._future, None
        self._growing.stop()
        if future and not future.cancel():
            wait([future])
            if not future.exception():
                future.result().discard()

    def publish(self, blob: Blob) -> Tree:
        """The tree, once the archive has been found right.

        Raises:
            UnsafeError: a member is refused.
            IntegrityError: the archive is damaged, though its hash is right.
            InvalidFile: it is no archive that the recipe can unpack.
            StorageError: the disk does not take it.
        """
        if self._future is None:
            raise RuntimeError("an archive is unpacked before it is published")
        draft = self._future.result()
        self._future = None
        try:
            return self._trees.publish(draft, blob, self.archive.recipe)
        except BaseException:
            draft.discard()
            raise

    def _begin(self) -> None:
        if self._future is None:
            self._future = self._executor.submit(self._run)

    def _run(self) -> Draft:
        draft = self._trees.begin(self._key)
        try:
            archive = replace(self.archive, size=self._size)
            fill(archive, self._growing, draft, self._limits)
        except BaseException:
            draft.discard()
            raise
        return draft

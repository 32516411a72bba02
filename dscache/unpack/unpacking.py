"""One archive on its way to a tree: read by a thread, also while it is still arriving.

What is read may be wrong as long as the archive's hash is not known. So all stays in a draft that
nobody sees, what is found wrong with it is said only when it is asked for, and it is thrown away
when the bytes start over.
"""

from __future__ import annotations

import io
from concurrent.futures import Executor, Future, wait
from dataclasses import dataclass

from dscache import compression, filesystem
from dscache.errors import DscacheError, IntegrityError
from dscache.recipes import SINGLE
from dscache.store import Blob
from dscache.store.drafts import Draft
from dscache.store.trees import Tree, Trees
from dscache.unpack import formats, singles, tars, zips
from dscache.unpack.growing import Growing, Windows
from dscache.unpack.rules import Limits, Rules

#: Nothing is begun for less: most downloads that start over do so at their beginning.
_WORTH_IT = 1 << 20
_BUFFER = 1 << 20


@dataclass(frozen=True, slots=True)
class Archive:
    """What is unpacked.

    Attributes:
        name: for messages.
        recipe: how; "auto" goes by the first bytes.
        path: the file.
        size: bytes that it has, or is going to have.
    """

    name: str
    recipe: str
    path: str
    size: int


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
        self._future: Future[Draft] | None = None

    @property
    def is_done(self) -> bool:
        """True when `publish` need not wait."""
        return self._future is not None and self._future.done()

    @property
    def done(self) -> int:
        """Bytes of the archive that have been unpacked."""
        return self._growing.tell()

    def grow(self, size: int) -> None:
        """The first `size` bytes of the archive are here."""
        self._growing.grow(size)
        if size >= _WORTH_IT:
            self._begin()

    def complete(self) -> None:
        """All of it is here."""
        self._growing.complete()
        self._begin()

    def restart(self) -> None:
        """Forget what has been unpacked: the archive begins again."""
        self.stop()
        self._growing = Growing(self.archive.path)

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
            with (
                self._growing,
                filesystem.storage_errors(f"{self.archive.name} cannot be unpacked"),
            ):
                self._unpack(draft)
        except BaseException:
            draft.discard()
            raise
        return draft

    def _unpack(self, draft: Draft) -> None:
        archive, rules = self.archive, Rules(self._limits, self.archive.size)
        file = io.BufferedReader(self._growing, _BUFFER)
        start = file.peek(compression.ENOUGH)
        formats.check_known(start, archive.name)
        damage = zips.DAMAGE
        try:
            if formats.is_zip(archive.recipe, start):
                self._growing.wait()
                zips.unpack(archive.path, draft, rules, self._growing.skip)
            else:
                stream, damage = compression.opened(
                    file, formats.compression(archive.recipe, start)
                )
                damage += tars.DAMAGE
                self._unpack_stream(Windows(stream), draft, rules)
        except DscacheError:
            raise
        except damage as error:
            if isinstance(error, OSError) and error.errno is not None:
                raise  # the disk's, not the archive's
            raise IntegrityError(
                f"{archive.name} is damaged: {error}",
                hint="its hash is right, so the publisher's own copy is; tell the maintainer of "
                "the registry, or fetch it without unpacking",
                file=archive.name,
            ) from error

    def _unpack_stream(self, stream: Windows, draft: Draft, rules: Rules) -> None:
        archive = self.archive
        if archive.recipe in SINGLE:
            singles.unpack(stream, draft, rules)
            return
        if archive.recipe == "auto":
            formats.check_is_tar(stream, archive.name)
        tars.unpack(stream, draft, rules)

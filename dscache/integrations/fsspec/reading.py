"""Reading: an fsspec filesystem whose files are local and may only be read.

It knows nothing of where the files come from: `local` says where one stands.
"""

from __future__ import annotations

import errno
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from os import stat
from typing import Any, NoReturn

from fsspec.implementations.chained import ChainedFileSystem
from fsspec.implementations.local import LocalFileOpener

from dscache.errors import NotCached, NotFound, TransferError


class ReadOnlyFiles(ChainedFileSystem):
    """Files that are brought when they are opened, and then are plain local ones."""

    protocol = "dscache"

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        # For `open_local`. Of the class Hugging Face's `datasets` would conclude from it that its
        # paths are those of local files.
        self.local_file = True

    def local(self, path: str) -> str:
        """Where the file stands on this machine; it is brought if need be."""
        raise NotImplementedError

    def bring(self, paths: Sequence[str]) -> None:
        """Bring several files at once, as far as they are not here."""
        raise NotImplementedError

    def _open(self, path: str, mode: str = "rb", **_options: Any) -> OpenedFile:
        if mode != "rb":
            self._refuse()
        return OpenedFile(self, path, self.local(path))

    def open_many(self, files: Any) -> list[Any]:
        """Open several files; those that are not here come together."""
        self.bring([each.path for each in files])
        return [each.__enter__() for each in files]

    def cat(
        self, path: Any, recursive: bool = False, on_error: str = "raise", **options: Any
    ) -> Any:
        """What files hold; those that are not here come together."""
        if on_error == "raise":
            self.bring(self._files_of(path, recursive, options.get("maxdepth")))
        return super().cat(path, recursive=recursive, on_error=on_error, **options)

    def get(
        self,
        rpath: Any,
        lpath: Any,
        recursive: bool = False,
        callback: Any = None,
        maxdepth: int | None = None,
        **options: Any,
    ) -> None:
        """Copy files into a folder; those that are not here come together."""
        self.bring(self._files_of(rpath, recursive, maxdepth))
        if callback is not None:
            options["callback"] = callback
        super().get(rpath, lpath, recursive=recursive, maxdepth=maxdepth, **options)

    def modified(self, path: str) -> datetime:
        """When the file came to this machine; it never changes after that."""
        return datetime.fromtimestamp(stat(self.local(path)).st_mtime, UTC)

    created = modified

    def _files_of(self, path: Any, recursive: bool, maxdepth: int | None) -> list[str]:
        paths = self.expand_path(path, recursive=recursive, maxdepth=maxdepth)
        return [each for each in paths if self.isfile(each)]

    def _refuse(self, *_arguments: Any, **_options: Any) -> NoReturn:
        raise NotImplementedError("dscache:// is read-only: what it shows is shared and verified")

    cp_file = copy = mkdir = makedirs = mv = pipe_file = put = put_file = _refuse
    rm = rm_file = rmdir = touch = _rm = _refuse


class OpenedFile(LocalFileOpener):
    """A local file that is open for reading. Pickled, it is opened anew where it arrives, be that
    another machine.
    """

    def __init__(self, fs: ReadOnlyFiles, asked: str, path: str) -> None:
        super().__init__(path, "rb", fs=fs)
        self._asked = asked

    def __reduce__(self) -> tuple[Any, ...]:
        return _opened_at, (self.fs, self._asked, self.tell())


def _opened_at(fs: ReadOnlyFiles, path: str, position: int) -> OpenedFile:
    file = OpenedFile(fs, path, fs.local(path))
    file.seek(position)
    return file


@contextmanager
def translated(path: str) -> Iterator[None]:
    """What is missing becomes what everybody knows; all other errors pass.

    What only offline mode keeps away is not missing: who takes a missing file for an empty one, as
    readers of chunked arrays do, must not do so with it.
    """
    try:
        yield
    except NotCached as error:
        raise TransferError(error.message, hint=error.hint, **error.facts) from error
    except NotFound as error:
        said = "; ".join(filter(None, (error.message, error.hint)))
        raise FileNotFoundError(errno.ENOENT, said, path) from error

"""A downloader for Pooch: one URL into the file that Pooch has named, through the transfer engine.

It owns what Pooch asks of a downloader: the call, files by name and open ones, progress bars, and
whether a file is there. It has no cache: nothing is kept between calls, and verifying is Pooch's
part. What it holds never changes, so that one instance serves any number of calls and threads.
"""

from __future__ import annotations

import os
import re
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import IO, Any, Protocol

from dscache import filesystem, settings
from dscache.errors import DscacheError, NotCached, StorageError, UsageError
from dscache.events import Advanced, Emit, Event, to_log
from dscache.model import Artifact
from dscache.settings import Settings
from dscache.sources.dispatch import Sources, rewritten
from dscache.sources.options import NO_HEADERS
from dscache.sources.retry import Budget, policy_of
from dscache.sources.small import is_there
from dscache.transfer.download import Download, State
from dscache.transfer.failures import failure_of
from dscache.transfer.pool import Pool
from dscache.transfer.sink import Plain
from dscache.urls import file_name, host, redacted

StrPath = str | os.PathLike[str]

_TOKEN = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]+")  # RFC 9110, 5.6.2
#: What the engine says of the bytes that it wants.
_OURS = frozenset({"Range", "If-Range"})


class ProgressBar(Protocol):
    """What Pooch wants of a progress bar; `total` and the counts are bytes."""

    total: Any

    def update(self, n: int, /) -> object: ...

    def reset(self) -> object: ...

    def close(self) -> object: ...


class ParallelDownloader:
    """Downloads for Pooch as dscache does it, with no cache but Pooch's own.

    Long files come over as many connections as pay; what breaks is tried again and goes on where it
    broke. Timeouts, retries, credentials per host, `ca_bundle`, `limit_rate`, `[rewrite]` and
    `offline` are those of the user's settings, which are read anew at each call. Nothing is written
    but the file that Pooch names. URLs may begin with `https:`, `http:`, `ftp:`, `sftp:`, `doi:` or
    `file:`.

    One instance can be used again, by several threads at once, and pickled.

    Args:
        jobs: connections at most; default: as configured (`jobs`, `DSCACHE_JOBS`).
        progressbar: True for a bar on standard error, which needs tqdm; or an object with an
            attribute `total` and the methods `update(n)`, `reset()` and `close()`.
        headers: sent with each request to the host of the URL, and to no other host to which a
            redirect or the table `[rewrite]` leads.

    Raises:
        UsageError: an argument has no sensible value, or tqdm is missing.

    Example:
        With `pooch.retrieve`, or in the same way with the method `fetch` of a `pooch.Pooch`::

            import dscache, pooch

            path = pooch.retrieve(
                "https://example.org/table.csv",
                known_hash="sha256:9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08",
                downloader=dscache.ParallelDownloader(progressbar=True),
            )
    """

    def __init__(
        self,
        *,
        jobs: int | None = None,
        progressbar: bool | ProgressBar = False,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        if jobs is not None and jobs < 1:
            raise UsageError(f"jobs: {jobs!r} is not a number of at least 1")
        if progressbar is True:
            _tqdm()
        self._jobs = jobs
        self._progressbar = progressbar
        self._headers = _checked(headers or {})

    def __call__(
        self,
        url: str,
        output_file: StrPath | bytes | IO[bytes] | None,
        pooch: object = None,
        check_only: bool = False,
    ) -> bool | None:
        """Download one file; Pooch calls this.

        Args:
            output_file: the path of a file, which is made or overwritten; or an open binary file,
                which gets the bytes in order once all have come: until then they are in the
                system's folder for temporary files.
            pooch: not used.
            check_only: download nothing, and say whether the server has the file.

        Returns:
            With `check_only`, whether the file is there for the one who asks; else None.

        Raises:
            TransferError: the file cannot be had, or the server cannot be asked, retries included.
            IntegrityError: what comes is no file: damaged gzip, or more than `max_unknown_size`.
            StorageError: the file cannot be written.
            UnsafeError: a redirect would weaken the connection, or credentials go in the clear.
            NotCached: this is offline mode.
            InvalidFile: a configuration file is malformed, or credentials cannot be had.
        """
        chosen = settings.load(jobs=self._jobs)
        if chosen.offline and not url.startswith("file:"):
            raise NotCached(
                f"{redacted(url)} cannot be fetched: this is offline mode",
                hint="unset DSCACHE_OFFLINE, or `offline` in the configuration",
                url=redacted(url),
            )
        if check_only:
            return self._is_there(chosen, url)
        if isinstance(output_file, str | bytes | os.PathLike):
            self._fetch_to(chosen, url, os.path.abspath(os.fsdecode(output_file)))
        elif output_file is not None:
            self._fetch_into(chosen, url, output_file)
        else:
            raise TypeError("without `check_only` there must be a file to download to")
        return None

    def _is_there(self, chosen: Settings, url: str) -> bool:
        sources = self._sources(chosen, url, tempfile.gettempdir(), to_log)
        try:
            return is_there(sources, url, policy=policy_of(chosen))
        finally:
            sources.close()

    def _fetch_to(self, chosen: Settings, url: str, path: str) -> None:
        folder = os.path.dirname(path)
        with _disk_errors(path), filesystem.overwriting(path) as fd:
            self._fetch(chosen, url, Plain(fd, folder), folder)

    def _fetch_into(self, chosen: Settings, url: str, file: IO[bytes]) -> None:
        folder = tempfile.gettempdir()
        with filesystem.unnamed(folder) as fd:
            sink = Plain(fd, folder)
            with _disk_errors(folder):
                self._fetch(chosen, url, sink, folder)
            for chunk in sink.chunks():
                file.write(chunk)
        file.flush()

    def _fetch(self, chosen: Settings, url: str, sink: Plain, folder: str) -> None:
        progress = _Progress(self._progressbar, sink)
        sources = self._sources(chosen, url, folder, progress)
        artifact = Artifact(path=file_name(url), hash=None, urls=(url,))
        policy = policy_of(chosen)
        download = Download(
            key=artifact.path,
            artifact=artifact,
            sink=sink,
            emit=progress,
            policy=policy,
            budget=Budget(policy),
            limit=chosen.max_unknown_size,
        )
        pool = Pool(sources, chosen.jobs, chosen.limit_rate, progress)
        try:
            for _ in pool.run(iter([download])):
                pass
            if download.state is not State.DONE:
                raise failure_of(artifact, download.tried, 0, ())
            progress.finish()
        finally:
            progress.close()
            sources.close()

    def _sources(self, chosen: Settings, url: str, folder: str, emit: Emit) -> Sources:
        is_meant = host(rewritten(url, chosen.rewrite)) == host(url)
        return Sources(chosen, folder, emit, self._headers if is_meant else NO_HEADERS)


class _Progress:
    """Hears the events of one download: a bar is moved, the rest goes to the log."""

    def __init__(self, wanted: bool | ProgressBar, sink: Plain) -> None:
        self._wanted = wanted
        self._sink = sink
        self._bar: ProgressBar | None = None
        self._shown: int | None = None

    def __call__(self, event: Event) -> None:
        if isinstance(event, Advanced):
            self._show(event.done, self._sink.origin.total)
        else:
            to_log(event)

    def finish(self) -> None:
        """All bytes are here: the bar ends at their number, whatever was announced."""
        self._show(self._sink.size, self._sink.size)

    def close(self) -> None:
        """Whether it went well or not, the bar is done."""
        if self._bar is not None:
            self._bar.close()

    def _show(self, done: int, total: int | None) -> None:
        if self._wanted is False:
            return
        if self._bar is None:
            self._bar = _new_bar() if self._wanted is True else self._wanted
        self._bar.total = total or 0  # as Pooch says it where nobody knows
        if self._shown is None or done < self._shown:
            self._bar.reset()
            self._shown = 0
        self._bar.update(done - self._shown)
        self._shown = done


def _new_bar() -> ProgressBar:
    """The bar that Pooch's own downloaders draw."""
    bar: ProgressBar = _tqdm()(
        total=0, ncols=79, ascii=sys.platform == "win32", unit="B", unit_scale=True, leave=True
    )
    return bar


def _tqdm() -> Any:
    try:
        from tqdm.auto import tqdm
    except ImportError as error:
        raise UsageError(
            "Missing package 'tqdm' required for progress bars.", hint="pip install tqdm"
        ) from error
    return tqdm


def _checked(headers: Mapping[str, str]) -> dict[str, str]:
    """The headers, each under one spelling of its name; their values are in no error."""
    for name, value in headers.items():
        if not _TOKEN.fullmatch(name) or not (value.isascii() and value.isprintable()):
            raise UsageError(f"header {name!r}: name or value holds what no header can have")
        if name.title() in _OURS:
            raise UsageError(f"header {name!r}: which bytes are asked for is not the caller's part")
    return {name.title(): value for name, value in headers.items()}


@contextmanager
def _disk_errors(place: str) -> Iterator[None]:
    """As `disk.storage_errors`, whose hints are about a cache and what it keeps."""
    try:
        yield
    except DscacheError:  # some of them are OSErrors too
        raise
    except OSError as error:
        reason = error.strerror or str(error)
        raise StorageError(f"{place} cannot be written: {reason}", errno=error.errno) from error

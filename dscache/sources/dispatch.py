"""All sources of a call as one: the protocol of a URL decides which of them serves it.

Also applies the user's `[rewrite]` table, and has files in buckets served by HTTP under a signed
address: errors and records speak of the original URL, and only requests go elsewhere.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from functools import cached_property
from typing import TYPE_CHECKING

from msgspec.structs import replace

from dscache.errors import TransferError
from dscache.events import Emit, Notice
from dscache.settings import Settings, environment_variable
from dscache.sources.buckets import Signing, is_bucket
from dscache.sources.credentials import Credentials
from dscache.sources.exchange import Exchange, Failure, Refused, Request, Source, Trouble
from dscache.sources.file import Files
from dscache.sources.options import NO_HEADERS, Options

if TYPE_CHECKING:
    from dscache.sources.http import Http
    from dscache.sources.pooch import PoochDownloads


class Sources:
    """The sources of one call; each is made when it is first needed.

    Args:
        folder: where downloads that must be files first may be put.
        headers: see `Options`.
    """

    def __init__(
        self,
        settings: Settings,
        folder: str,
        emit: Emit,
        headers: Mapping[str, str] = NO_HEADERS,
    ) -> None:
        self._settings = settings
        self._folder = folder
        self._emit = emit
        self._headers = headers
        self._files = Files()
        self._sign = Signing()
        self._active: list[tuple[Exchange, Source]] = []

    def start(self, request: Request) -> Exchange:
        """Send a request to the source that serves its URL."""
        if self._settings.rewrite:
            request = replace(request, url=rewritten(request.url, self._settings.rewrite))
        if is_bucket(request.url):
            try:
                request = replace(request, url=self._sign(request.url), is_signed=True)
            except TransferError as error:
                return Refused(Failure(Trouble.REFUSED, str(error)))
        source = self._source(request.url)
        exchange = source.start(request)
        self._active.append((exchange, source))
        return exchange

    def wait(self, seconds: float) -> None:
        """Let exchanges go on until something has happened, at most that long."""
        active = [each for each in self._active if not each[0].done]
        if len(active) < len(self._active):  # one has ended: that is news already
            seconds = 0.0
        self._active = active
        busy = {id(source): source for _, source in active}
        if not busy:
            time.sleep(seconds)
        for source in busy.values():
            source.wait(0.0 if self._files in busy.values() else seconds / len(busy))

    def close(self) -> None:
        """Close all connections."""
        if "_http" in self.__dict__:
            self._http.close()

    def _source(self, url: str) -> Source:
        scheme = url.partition(":")[0].lower()
        if scheme == "file":
            return self._files
        return self._http if scheme in ("http", "https") else self._pooch

    @cached_property
    def _options(self) -> Options:
        settings = self._settings
        # Where the user wants it slow, a slow connection is no dead one.
        stall_rate = settings.stall_rate
        if settings.limit_rate:
            stall_rate = min(stall_rate, max(1, settings.limit_rate // (2 * settings.jobs)))
        return Options(
            connect_timeout=settings.connect_timeout,
            stall_timeout=settings.stall_timeout,
            stall_rate=stall_rate,
            limit_rate=settings.limit_rate,
            ca_bundle=settings.ca_bundle,
            headers=self._headers,
            credentials=Credentials(settings.auth, environment_variable),
        )

    @cached_property
    def _pooch(self) -> PoochDownloads:
        from dscache.sources.pooch import PoochDownloads  # late: what most URLs need is curl

        return PoochDownloads(self._options, self._folder)

    @cached_property
    def _http(self) -> Http | PoochDownloads:
        try:
            from dscache.sources.http import Http
        except ImportError as error:
            self._emit(
                Notice(f"downloading with one stream and without resume: no pycurl ({error})")
            )
            return self._pooch
        return Http(self._options, self._settings.jobs)


def rewritten(url: str, table: Mapping[str, str]) -> str:
    """The URL after the user's table of prefixes; the longest prefix wins."""
    if not table:
        return url
    prefix = max((each for each in table if url.startswith(each)), key=len, default=None)
    return url if prefix is None else table[prefix] + url[len(prefix) :]

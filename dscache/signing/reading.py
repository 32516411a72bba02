"""A signed registry as a place: every file that the server sends is verified before it is answered
or remembered.

It is an ordinary `Prefix` with a reader that verifies, and with copies of its own for each pinned
root. So a fresh copy is used without the packages that verify, and without a network.
"""

from __future__ import annotations

import os
import time
import urllib.parse
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from dscache import disk
from dscache.errors import InvalidFile, StorageError, TransferError
from dscache.events import Emit, Notice, Waiting
from dscache.filesystem import READ_ONLY
from dscache.registry.places import Place, Prefix
from dscache.registry.tables import too_long
from dscache.settings import Settings
from dscache.signing import pins, require
from dscache.signing.roles import ROOT, TIMESTAMP_FILE, metadata_file, target_file
from dscache.store import Store

if TYPE_CHECKING:
    from tuf.api.metadata import TargetFile

    from dscache.signing.updating import Client
    from dscache.sources.small import Answer

_MOST = 512_000  # bytes of a root, or of a timestamp; far more than they need


class Means(NamedTuple):
    """What a signed registry is read with.

    Attributes:
        read: reads a URL of at most so many bytes.
    """

    read: Callable[[str, int], Answer]
    store: Store
    settings: Settings
    emit: Emit


def open_signed(address: str, root: bytes, means: Means) -> Place:
    """The signed registry at an address, by the root that is pinned for it.

    A folder counts as a server does: what is local only, `file:` URLs and paths, is refused in it.
    """
    base = _base(address)
    sha256 = pins.fingerprint(root).partition(":")[2]
    layout = means.store.layout
    return Prefix(
        address if "://" in address else base,
        _Verifying(base, root, layout.signed_metadata(base, sha256), means),
        layout.signed_registry(base, sha256),
        max_age=means.settings.registry_max_age,
        offline=means.settings.offline,
        emit=means.emit,
    )


def offered_root(address: str, means: Means) -> bytes | None:
    """The first root of the registry at an address; None if it is not signed.

    A folder with roots but without a timestamp is the author's own, and not signed itself.

    Raises:
        TransferError: the address cannot be read.
        InvalidFile: what is there is too long for a root.
    """
    base = _base(address)
    if base.startswith("file:") and means.read(f"{base}{TIMESTAMP_FILE}", _MOST).data is None:
        return None
    try:
        return means.read(base + metadata_file(ROOT, 1), _MOST).data
    except TransferError as error:
        if error.facts.get("status") not in (401, 403):
            raise
        means.emit(Notice(f"whether {address} is signed cannot be told, so it is not: {error}"))
        return None


class _Verifying:
    """The reader of one signed registry (a `SmallReader`).

    Its answers carry the sha256 as validator, so that what is unchanged is not read again.
    """

    def __init__(self, base: str, root: bytes, folder: str, means: Means) -> None:
        self._base = base
        self._root = root
        self._folder = folder
        self._means = means

    def __call__(self, url: str, known: str, limit: int) -> Answer:
        """Answer for a URL of the registry.

        Raises:
            InvalidFile: the file is longer than `limit`.
            IntegrityError: a rule is broken; or the server cannot be asked, and what it said
                earlier has expired.
            TransferError: the server cannot be asked; what it said earlier is still good.
            UsageError: the packages that verify are missing.
        """
        require()
        from dscache.sources.small import Answer

        file = urllib.parse.unquote(url.removeprefix(self._base))
        try:
            with self._locked(), disk.storage_errors("signed metadata cannot be verified"):
                target = self._client.target(file)
        except TransferError:
            self._refuse_expired(known)
            raise
        if target is None:
            return Answer()
        if target.length > limit:
            raise too_long(limit)
        validator = f'"{next(iter(target.hashes.values()))}"'
        if known == validator:
            return Answer(unchanged=True)
        return Answer(self._content(file, target), validator)

    @cached_property
    def _client(self) -> Client:
        from dscache.signing.updating import Client  # late: a fresh copy needs no verifying

        return Client(self._base, self._root, self._folder, self._read, self._means.emit)

    def _read(self, url: str, limit: int) -> bytes | None:
        return self._means.read(url, limit).data

    def _content(self, file: str, target: TargetFile) -> bytes:
        from dscache.signing import verdicts

        digest = next(iter(target.hashes.values()))
        url = self._base + urllib.parse.quote(target_file(digest, file))
        try:
            data = self._read(url, target.length)
        except InvalidFile as error:
            raise verdicts.broken(url, "tampering", "it is longer than what was signed") from error
        if data is None:
            raise verdicts.missing(url)
        try:
            target.verify_length_and_hashes(data)
        except verdicts.REFUSALS as error:
            raise verdicts.refusal(error, url) from error
        return data

    def _refuse_expired(self, known: str) -> None:
        """Without its server a registry is believed no longer than its timestamp says."""
        from dscache.signing import verdicts

        until = self._client.good_until()
        if until is None and known:
            raise verdicts.expired(self._base, "an unknown time")
        if until is not None and until < time.time():
            raise verdicts.expired(self._base, _shown(until))

    @contextmanager
    def _locked(self) -> Iterator[None]:
        """One process at a time changes what is kept; where nothing can be kept, none needs it."""
        key = f"registry-{os.path.basename(self._folder)}"
        try:
            lock = self._means.store.locks.wait(
                key, lambda holder: self._means.emit(Waiting(self._base, holder))
            )
        except StorageError as error:
            if error.facts.get("errno") not in READ_ONLY:
                raise
            yield
            return
        try:
            yield
        finally:
            lock.release()


def _base(address: str) -> str:
    """The URL of a registry, ending in '/'."""
    url = address if "://" in address else Path(address).expanduser().absolute().as_uri()
    return url if url.endswith("/") else f"{url}/"


def _shown(when: float) -> str:
    return time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime(when))

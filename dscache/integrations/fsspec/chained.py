"""Chained: files of other filesystems by their URL, through the cache, `dscache::https://…`."""

from __future__ import annotations

import errno
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import fsspec

from dscache import Cache
from dscache.errors import TransferError, UsageError
from dscache.integrations.fsspec.reading import ReadOnlyFiles, translated

#: The protocols whose files dscache can bring, as fsspec calls them, with the scheme of the URL.
_SCHEMES = {
    "http": "http",
    "https": "https",
    "ftp": "ftp",
    "sftp": "sftp",
    "ssh": "sftp",
    "file": "file",
    "local": "file",
}


#: What servers answer where nothing is.
_GONE = frozenset({404, 410})


def _passed(name: str) -> Callable[..., Any]:
    """A method that asks the target."""

    def method(self: ThroughCache, *arguments: Any, **options: Any) -> Any:
        return getattr(self.fs, name)(*arguments, **options)

    method.__name__, method.__doc__ = name, f"As `{name}` of the target filesystem."
    return method


class ThroughCache(ReadOnlyFiles):
    """Files of another filesystem: listed there, brought by dscache, opened here.

    Args:
        target_protocol, target_options: the other filesystem, as fsspec hands them on.
        fs: the other filesystem itself, instead of these.
        known_hash: `alg:hex` of the file, or a mapping from URLs to such; a URL that the mapping
            lacks is refused. None accepts whatever comes, with a warning.
        cache_dir: the cache folder; default: as configured.

    Raises:
        UsageError: dscache cannot bring files of such a filesystem.
    """

    def __init__(
        self,
        target_protocol: str | None = None,
        target_options: Mapping[str, Any] | None = None,
        fs: Any = None,
        known_hash: str | Mapping[str, str] | None = None,
        cache_dir: str | None = None,
        **options: Any,
    ) -> None:
        if self._cached:
            return
        super().__init__(**options)
        self.fs = fs or fsspec.filesystem(target_protocol, **(target_options or {}))
        protocol = self.fs.protocol if isinstance(self.fs.protocol, str) else self.fs.protocol[0]
        protocol = target_protocol or protocol
        if protocol not in _SCHEMES:
            raise UsageError(
                f"dscache:: cannot bring files of {protocol}://",
                hint=f"it can of {', '.join(f'{each}://' for each in _SCHEMES)}; "
                f"filecache::{protocol}:// is fsspec's own",
            )
        self._scheme = _SCHEMES[protocol]
        self._host = dict(target_options or self.fs.storage_options)
        self._hash = known_hash
        self._cache = Cache(cache_dir)

    def _strip_protocol(self, path: Any) -> Any:
        if isinstance(path, list):
            return [self._strip_protocol(each) for each in path]
        return self.fs._strip_protocol(type(self)._bare(path))

    @classmethod
    def _bare(cls, path: Any) -> str:
        return str(super()._strip_protocol(path))

    def unstrip_protocol(self, name: str) -> str:
        """The path with its protocols."""
        return f"dscache::{self.fs.unstrip_protocol(name)}"

    ls = _passed("ls")
    info = _passed("info")
    glob = _passed("glob")
    find = _passed("find")
    walk = _passed("walk")
    exists = _passed("exists")
    isfile = _passed("isfile")
    isdir = _passed("isdir")
    ukey = _passed("ukey")
    checksum = _passed("checksum")

    def local(self, path: str) -> str:
        """Where the file stands on this machine; it is brought and verified if need be."""
        url = self._url(path)
        known_hash = self._known_hash(url)
        return _path_of(self._cache.retrieve_all(url, known_hash), url)

    def bring(self, paths: Sequence[str]) -> None:
        """Bring several files at once, as far as they are not here."""
        urls = [self._url(path) for path in paths]
        wanted = [(url, self._known_hash(url), None) for url in urls]
        for url, found in zip(urls, self._cache.retrieve_many(wanted), strict=True):
            _path_of(found, url)

    def _known_hash(self, url: str) -> str | None:
        if self._hash is None or isinstance(self._hash, str):
            return self._hash
        if url not in self._hash:
            raise UsageError(f"`known_hash` says nothing of {url}")
        return self._hash[url]

    def _url(self, path: str) -> str:
        """The URL of a path, which fsspec has taken the host out of for some protocols."""
        path = self._strip_protocol(path)
        if "://" in path or self._scheme == "file":
            return str(path)
        host, port = self._host.get("host", ""), self._host.get("port")
        return f"{self._scheme}://{host}{f':{port}' if port else ''}/{path.lstrip('/')}"


def _path_of(found: Any, url: str) -> str:
    with translated(url):
        try:
            return str(found.unwrap())
        except TransferError as error:
            if error.facts.get("status") not in _GONE:
                raise
            raise FileNotFoundError(errno.ENOENT, error.message, url) from error

"""The cache: the verbs of the library on one cache folder.

Every verb reads as the steps it takes; the work is done by the modules named in them. Those that a
hit does not need are imported where they are called, since importing is most of what a warm
`dscache path` costs. A `Cache` holds no connection, thread or open file between calls.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from itertools import starmap
from pathlib import Path
from typing import TypedDict, Unpack

from dscache.asking import Patterns, patterns_of
from dscache.call import Call, begun, folder_of
from dscache.declaring import Declaring
from dscache.errors import DscacheError, NotCached
from dscache.events import Progress
from dscache.fetching import fetch
from dscache.keeping import StrPath
from dscache.layers import standing
from dscache.model import Dataset
from dscache.results import Fetched
from dscache.view import Target
from dscache.wishes import Wish

#: What to call it in an error, and how it is found.
_Asked = tuple[str, Callable[[Call], Dataset]]


class FetchOptions(TypedDict, total=False):
    """The options of `Cache.fetch`, which documents them."""

    into: StrPath | None
    link: str | None
    files: Patterns | None
    force: bool
    refresh: bool
    offline: bool | None
    keep_archives: bool | None
    progress: Progress | None


class Cache(Declaring):
    """One cache folder and the verbs on it.

    Args:
        root: the cache folder; default: as configured.
        settings: what `dscache.settings.load()` gives; default: read anew at each call, so that
            changes of environment and configuration count.
    """

    def fetch(
        self,
        name: str,
        *,
        into: StrPath | None = None,
        link: str | None = "auto",
        files: Patterns | None = None,
        force: bool = False,
        refresh: bool = False,
        offline: bool | None = None,
        keep_archives: bool | None = None,
        progress: Progress | None = None,
    ) -> Path:
        """The path of a dataset, downloaded and verified if it is not here yet.

        Args:
            name: `[registry/]name[@version]`.
            into: put the files into this folder as well, and return it or the file in it.
            link: how: "auto", "reflink", "hardlink", "symlink" or "copy".
            files: patterns (fnmatch on the whole path); only matching files are fetched.
            force: replace other files of the same names in `into`.
            refresh: ask remote registries now instead of using what was read before.
            offline: use no network; default: as configured.
            keep_archives: keep archives in the cache once they are unpacked; default: as
                configured.
            progress: True shows it, in a notebook or on a terminal (`dscache.bars`); a function is
                called with each event of `dscache.events`; default: notices are logged.

        Returns:
            The file, for a dataset of one; else the folder. Never change what it holds.

        Raises:
            UsageError: the name or an option is malformed.
            NotFound: no registry in use has the dataset, or no file matches.
            NotCached: it is not here, and this is offline mode.
            ManualDownload: a person must download it; the message says how.
            TransferError: every source failed, retries included; what came is kept.
            IntegrityError: wrong bytes from every source.
            StorageError: the disk does not take it, or files of yours are in the way.
            UnsafeError: the registry entry, or a redirect, is refused.
            InvalidFile: a registry or configuration file is malformed.
        """
        options: FetchOptions = {
            "into": into,
            "link": link,
            "force": force,
            "refresh": refresh,
            "offline": offline,
            "keep_archives": keep_archives,
            "progress": progress,
        }
        with self._call(options) as call:
            wish = Wish(call.find(name), patterns_of(files))
            return fetch(call, [wish], _target(options))[wish].unwrap()

    def fetch_many(self, names: Iterable[str], **options: Unpack[FetchOptions]) -> dict[str, Path]:
        """`fetch` for several datasets through one pool of connections.

        With `into` each gets a folder of its name there. Where some fail the others are fetched
        all the same, and the first error is raised at the end.
        """
        wanted = list(dict.fromkeys(names))
        results = self._fetch(map(_by_name, wanted), _target(options, separate=True), options)
        return {name: found.unwrap() for name, found in zip(wanted, results, strict=True)}

    def fetch_all(self, names: Sequence[str], **options: Unpack[FetchOptions]) -> list[Fetched]:
        """As `fetch_many`, with all there is to say on each name; errors stand in the results."""
        target = _target(options, separate=len(names) > 1)
        return self._fetch(map(_by_name, names), target, options)

    def sync(self, *, locked: bool = False, **options: Unpack[FetchOptions]) -> list[Fetched]:
        """Bring all that the project of the current folder has locked; errors stand in the results.

        What `dscache.toml` asks for and `dscache.lock` lacks is locked first. With `into` each
        dataset gets a folder of its name there. As long as it is locked, no prune takes it; what
        this process must keep after that, it has to `fetch`.

        Args:
            locked: refuse a lock that is not what `dscache.toml` asks for, and write neither.
            options: as for `fetch`, but for `files`.

        Raises:
            NotFound: there is no project; or with `locked`, the lock is not up to date.
            UsageError: two datasets of one name would stand in one folder of `into`.
            InvalidFile, UnsafeError: one of the two files is malformed, or refused.
        """
        from dscache import projects

        with self._call(options) as call:
            return projects.sync(call, _target(options, separate=True), locked=locked)

    @contextmanager
    def hold(self, name: str, **options: Unpack[FetchOptions]) -> Iterator[Path]:
        """As `fetch`, and no prune takes the dataset before the end of the `with` block.

        What `fetch` returns is kept until the process ends; this ends earlier.
        """
        with self._call(options) as call:
            lease = call.store.leases.new()
        with lease:
            with self._call(options) as call:
                call.lease = lease
                wish = Wish(call.find(name), patterns_of(options.get("files")))
                path = fetch(call, [wish], _target(options))[wish].unwrap()
            yield path

    def retrieve(
        self,
        url: str,
        known_hash: str | None,
        *,
        fname: str | None = None,
        unpack: str | None = None,
        files: Patterns | None = None,
        into: StrPath | None = None,
        link: str | None = "auto",
        force: bool = False,
        offline: bool | None = None,
        keep_archives: bool | None = None,
        progress: Progress | None = None,
    ) -> Path:
        """The path of one file by its URL, downloaded and verified if it is not here yet.

        Args:
            known_hash: `alg:hex`, or sha256 in hex; None accepts whatever comes, with a warning.
            fname: name of the file; default: from the URL.
            unpack: how to unpack it: "tar", "zip", "gzip", "bzip2", "xz", "zstd", or "auto", which
                goes by the name and the first bytes; default: it is used as it is.
            files, into, link, force, offline, keep_archives, progress: as for `fetch`.

        Raises:
            As `fetch`.
        """
        options: FetchOptions = {
            "files": files,
            "into": into,
            "link": link,
            "force": force,
            "offline": offline,
            "keep_archives": keep_archives,
            "progress": progress,
        }
        result = self.retrieve_all(url, known_hash, fname=fname, unpack=unpack, **options)
        return result.unwrap()

    def retrieve_all(
        self,
        url: str,
        known_hash: str | None,
        *,
        fname: str | None = None,
        unpack: str | None = None,
        **options: Unpack[FetchOptions],
    ) -> Fetched:
        """As `retrieve`, with all there is to say; an error stands in the result."""
        from dscache import retrieving

        with self._call(options) as call:
            dataset = retrieving.dataset_of(
                url, known_hash, fname=fname, unpack=unpack or "", emit=call.emit
            )
            wish = Wish(dataset, patterns_of(options.get("files")))
            return fetch(call, [wish], _target(options))[wish]

    def retrieve_many(
        self,
        wanted: Iterable[tuple[str, str | None, str | None]],
        **options: Unpack[FetchOptions],
    ) -> list[Fetched]:
        """`retrieve_all` for several URLs through one pool of connections.

        Args:
            wanted: of each the URL, the known hash and the file name (None: from the URL).

        Returns:
            One result for each, in their order; errors stand in the results.
        """
        from dscache import retrieving

        def asked(url: str, known_hash: str | None, fname: str | None) -> _Asked:
            return fname or url, lambda call: retrieving.dataset_of(
                url, known_hash, fname=fname, unpack="", emit=call.emit
            )

        return self._fetch(starmap(asked, wanted), _target(options), options)

    def path(self, name: str, *, files: Patterns | None = None) -> Path:
        """Where a dataset stands; looks at the disk only, and downloads nothing.

        Raises:
            NotCached: it is not here, or not completely.
            NotFound, UsageError, InvalidFile: as `fetch`.
        """
        return self.find(name, files=files).unwrap()

    def find(self, name: str, *, files: Patterns | None = None) -> Fetched:
        """As `path`, with all there is to say."""
        with self._call({"offline": True}) as call:
            wish = Wish(call.find(name), patterns_of(files))
            _, found = standing(call, wish)
        if found is None:
            raise NotCached(
                f"{name} is not in the cache" + (" completely" if not files else ""),
                hint=f"`dscache fetch {name}` brings it",
                name=name,
            )
        return found

    def import_file(self, name: str, *files: StrPath, progress: Progress | None = None) -> Fetched:
        """Take files that a person has downloaded into the cache.

        Each file is matched to an artifact of the dataset by its hash, and neither moved nor
        changed. The result's `path` is None as long as other artifacts are missing.

        Raises:
            IntegrityError: a file is none of the dataset's; says what was expected.
            NotFound, UsageError, StorageError: as `fetch`.
        """
        from dscache import importing

        with self._call({"progress": progress}) as call:
            dataset = call.find(name)
            return importing.take(call, dataset, [folder_of(file) for file in files])

    def _fetch(
        self,
        wanted: Iterable[_Asked],
        target: Target | None,
        options: FetchOptions,
    ) -> list[Fetched]:
        patterns = patterns_of(options.get("files"))
        results: list[Fetched | Wish] = []
        with self._call(options) as call:
            for name, find in wanted:
                try:
                    results.append(Wish(find(call), patterns))
                except DscacheError as error:
                    results.append(Fetched(name, error=error))
            wishes = [each for each in results if isinstance(each, Wish)]
            fetched = fetch(call, wishes, target)
        return [fetched[each] if isinstance(each, Wish) else each for each in results]

    def _call(self, options: FetchOptions) -> AbstractContextManager[Call]:
        found = self.settings
        if options.get("offline") is not None:
            found = found.override(offline=options["offline"])
        if options.get("refresh"):
            found = found.override(registry_max_age=0)
        if options.get("keep_archives") is not None:
            found = found.override(keep_archives=options["keep_archives"])
        return begun(found, options.get("progress"))


def _target(options: FetchOptions, *, separate: bool = False) -> Target | None:
    into = options.get("into")
    if into is None:
        return None
    link, force = options.get("link") or "auto", bool(options.get("force"))
    return Target(folder_of(into), link, force, separate)


def _by_name(name: str) -> _Asked:
    return name, lambda call: call.find(name)

"""The room in which everything happens: folders, served files, servers, the environment.

Files and servers are made when a workload asks for them first, and end with the room.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from functools import cached_property
from pathlib import Path

from tests.bench import payloads
from tests.bench.archives import Archive
from tests.bench.machine import filesystem
from tests.bench.measuring import Course
from tests.bench.payloads import File, Lists, Many
from tests.servers import Certificate, Server, caddy, certificate, nginx

MIDDLE = 256 << 20
_SMALL_COUNT, _SMALL_SIZE = 5000, 20 << 10
#: What nginx, the programs and whoever else is on the machine need beside what is unpacked.
_SPARE = 768 << 20
#: What a proxy or a configuration of this machine would change.
_KEPT = ("PATH", "LANG", "LD_LIBRARY_PATH", "TMPDIR")


@contextmanager
def room(big: int, members: int, runs: int) -> Iterator[Room]:
    """A room in memory where there is place enough, so that the disk does not decide."""
    parent = Path(os.environ.get("BENCH_FOLDER") or _roomy(big))
    with tempfile.TemporaryDirectory(prefix="bench-", dir=parent) as folder, ExitStack() as ends:
        yield Room(Path(folder), big, members, runs, ends)


def _roomy(big: int) -> str:
    memory, disk = "/dev/shm", tempfile.gettempdir()
    # The big file, what is fetched of it, half of it again, and the small ones.
    needed = 3 * big + (1 << 30)
    has_place = os.path.isdir(memory) and shutil.disk_usage(memory).free > needed
    return memory if has_place else disk


def _free(folder: Path) -> int:
    """Bytes that fit; where the filesystem is memory, no more than there is of that."""
    free = shutil.disk_usage(folder).free
    if filesystem(folder) != "tmpfs":
        return free
    lines = Path("/proc/meminfo").read_text().splitlines()
    available = next(line.split()[1] for line in lines if line.startswith("MemAvailable:"))
    return min(free, int(available) << 10)


class Room:
    """The folder of a run, and what is in it.

    Attributes:
        big_size: bytes of the large file.
        members: files in the largest archive.
        runs: timed runs of each contender at most.
    """

    def __init__(self, folder: Path, big: int, members: int, runs: int, ends: ExitStack) -> None:
        self.folder = folder
        self.big_size = big
        self.members = members
        self.runs = runs
        self._ends = ends
        self._archives: dict[str, Archive] = {}
        self.files = folder / "files"
        self.files.mkdir()

    @cached_property
    def big(self) -> File:
        """The large file; 2 GiB by default."""
        return payloads.file(self.files / "big.bin", self.big_size)

    @cached_property
    def half(self) -> File:
        """A file of half that size."""
        return payloads.file(self.files / "half.bin", self.big_size // 2)

    @cached_property
    def middle(self) -> File:
        """256 MiB, for what is throttled."""
        return payloads.file(self.files / "middle.bin", MIDDLE)

    @cached_property
    def small(self) -> Many:
        """The many small files."""
        return payloads.many(self.files / "small", _SMALL_COUNT, _SMALL_SIZE)

    def archive(self, name: str, make: Callable[[Path], Archive], needed: int) -> Archive:
        """The archive of that name, made unless it is there; it is then the only served file.

        Args:
            needed: bytes that it and all that is made of it take.

        Raises:
            RuntimeError: there is no place for so much.
        """
        if name not in self._archives:
            self._empty()
        here = self._archives[name].file.size if name in self._archives else 0
        free = _free(self.folder)
        if free < needed - here + _SPARE:
            wanted = f"{(needed - here + _SPARE) / (1 << 30):.1f} GiB"
            raise RuntimeError(f"{wanted} are needed, {free / (1 << 30):.1f} GiB are free")
        if not here:
            self._archives[name] = make(self.files / name)
        return self._archives[name]

    def _empty(self) -> None:
        """Remove what was made to be served, and what was fetched of it; both can be made anew."""
        for name in ("big", "half", "middle", "small", "registry_of_big"):
            self.__dict__.pop(name, None)
        self._archives.clear()
        for folder in (self.files, self.shared, self.folder / "registry-of-big"):
            shutil.rmtree(folder, ignore_errors=True)
        self.files.mkdir()

    @cached_property
    def http(self) -> Server:
        """nginx."""
        return self._ends.enter_context(nginx(self.files, self.folder / "http"))

    @cached_property
    def https(self) -> Server:
        """nginx over TLS."""
        pair = self.certificate.pair
        return self._ends.enter_context(nginx(self.files, self.folder / "https", tls=pair))

    @cached_property
    def limited(self) -> Server:
        """nginx that limits each request to 20 MiB/s."""
        server = nginx(self.files, self.folder / "limited", limit_rate="20m")
        return self._ends.enter_context(server)

    @cached_property
    def http2(self) -> Server:
        """Caddy over TLS, with HTTP/2; its authority is in `http2_authority`."""
        return self._ends.enter_context(caddy(self.files, self.folder / "http2", tls=True))

    @property
    def http2_authority(self) -> Path:
        """Where `tests.servers` says that it is."""
        return self.folder / "http2" / "authority.pem"

    @cached_property
    def certificate(self) -> Certificate:
        """For `https`."""
        (self.folder / "certificate").mkdir()
        return certificate(self.folder / "certificate")

    @cached_property
    def shared(self) -> Path:
        """A cache that stays from one workload to the next."""
        return self.folder / "shared"

    @cached_property
    def registry_of_big(self) -> Path:
        """A registry with the dataset `big`, of the large file."""
        url = f"{self.http.url}/{self.big.path.name}"
        return payloads.register(self.folder / "registry-of-big", big=(self.big, url))

    def lists(self, name: str, url: str, count: int | None = None) -> Lists:
        """Lists of the small files, found below `url`."""
        return payloads.lists(self.folder / name, self.small, f"{url}/small/", count)

    def environment(
        self, *, registry: Path | None = None, authority: Path | None = None
    ) -> Mapping[str, str]:
        """No user's configuration, no proxy; with a registry for dscache, an authority for all."""
        kept = {name: os.environ[name] for name in _KEPT if name in os.environ}
        home = dict.fromkeys(("HOME", "XDG_CONFIG_HOME", "XDG_CACHE_HOME"), str(self.folder))
        quiet = {"HF_HUB_DISABLE_PROGRESS_BARS": "1", "HF_HUB_DISABLE_TELEMETRY": "1"}
        registries = {"DSCACHE_REGISTRIES": str(registry)} if registry else {}
        names = ("SSL_CERT_FILE", "CURL_CA_BUNDLE", "REQUESTS_CA_BUNDLE") if authority else ()
        return kept | home | quiet | registries | dict.fromkeys(names, str(authority))

    def course(self, file: File, environment: Mapping[str, str] | None = None) -> Course:
        """The conditions for fetching one file, after a warm-up."""
        found = self.environment() if environment is None else environment
        return Course(self.folder / "target", 1, file.size, found, self.runs)
